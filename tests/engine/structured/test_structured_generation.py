"""Structured output of real models fits its schema, whatever the model would rather write."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from random import Random

import jsonschema
import pytest

from periscope.core import (
    FinishReason,
    GenerationParams,
    JSONObject,
    Message,
    OutputSpec,
    ResponseFormat,
    Role,
    TextDelta,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import InferenceEngine
from periscope.errors import InvalidRequest
from periscope.parsing.registry import parser_for
from tests.engine.random_schemas import SchemaWriter
from tests.parsing.events import Called, events_from
from tests.tiny_models import CHAT_TEMPLATE, write_text_model

NUM_SCHEMAS = 50


@pytest.fixture(params=["demo", "random weights"])
def model(request: pytest.FixtureRequest, tiny_text_model: Path) -> str:
    return str(EMBEDDED_MODELS["embedded:text"] if request.param == "demo" else tiny_text_model)


def test_fifty_schemas_at_once_each_get_output_that_fits(model: str) -> None:
    """Sampled at temperature 2, sixteen at a time, by a trained model and one with random weights.

    Open strings, arrays, objects and trees end, too, before the tokens do.
    """
    writer = SchemaWriter(Random(17))
    schemas = [writer.document() for _ in range(NUM_SCHEMAS)]

    async def answer(engine: InferenceEngine, schema: JSONObject, seed: int) -> str | None:
        """None for schemas that are refused, such as contradictions inside `allOf`."""
        params = GenerationParams(temperature=2.0, seed=seed, max_tokens=150)
        try:
            out = await engine.generate("Write JSON: ", params, OutputSpec(response_format=ResponseFormat(schema)))
        except InvalidRequest:
            return None
        return out.text

    async def run() -> None:
        async with await InferenceEngine.load(model) as engine:
            texts = await asyncio.gather(*(answer(engine, schema, seed) for seed, schema in enumerate(schemas)))
        written = [(text, schema) for text, schema in zip(texts, schemas, strict=True) if text is not None]
        for text, schema in written:
            jsonschema.validate(json.loads(text), schema)
        assert len(written) >= NUM_SCHEMAS - 5

    asyncio.run(run())


def test_an_answer_that_is_shortened_to_be_complete_says_so(model: str) -> None:
    """JSON that was closed early has finish reason `length`; `stop` if it would have ended there anyway."""
    schema: JSONObject = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}

    async def run() -> None:
        async with await InferenceEngine.load(model) as engine:
            spec = OutputSpec(response_format=ResponseFormat(schema))
            letter, quote = (engine.tokenize(text)[-1] for text in ("a", '"'))
            outs = {}
            for token in (letter, quote):
                params = GenerationParams(temperature=0.0, max_tokens=40, logit_bias=((token, 100.0),))
                outs[token] = await engine.generate("Write: ", params, spec)
        assert set(json.loads(outs[letter].text)["a"]) == {"a"}
        assert outs[letter].finish_reason is FinishReason.LENGTH
        assert json.loads(outs[quote].text) == {"a": ""}
        assert outs[quote].finish_reason is FinishReason.STOP

    asyncio.run(run())


def test_constrained_rows_leave_their_neighbours_alone(model: str) -> None:
    """A free request gets the same tokens beside constrained rows as alone."""
    free = GenerationParams(temperature=0.0, max_tokens=40)
    schema = ResponseFormat({"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False})

    async def run() -> None:
        async with await InferenceEngine.load(model) as engine:
            alone = await engine.generate("Hello", free)
            constrained = GenerationParams(temperature=1.0, seed=1, max_tokens=60)
            beside, *_ = await asyncio.gather(
                engine.generate("Hello", free),
                *(engine.generate("Hello", constrained, OutputSpec(response_format=schema)) for _ in range(3)),
            )
        assert beside.tokens == alone.tokens

    asyncio.run(run())


def test_a_forced_call_names_an_offered_tool_and_fits_its_schema(tiny_text_model: Path) -> None:
    """Even a model with random weights calls an offered tool with arguments that fit."""
    parameters: JSONObject = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    tools = (Tool("weather", "", parameters), Tool("time", "", parameters))
    choice = ToolChoice(ToolChoiceMode.REQUIRED, name="weather", is_parallel=False)

    async def run() -> str:
        async with await InferenceEngine.load(str(tiny_text_model)) as engine:
            params = GenerationParams(temperature=1.0, seed=5, max_tokens=400)
            return (await engine.generate("Call: ", params, OutputSpec(tools, choice))).text

    call = json.loads(asyncio.run(run()).removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call["name"] == "weather"
    jsonschema.validate(call["arguments"], parameters)


#: What no model would guess.
STRICT = Tool(
    "get_weather",
    "The weather in a city.",
    {
        "type": "object",
        "properties": {"town": {"enum": ["Bergen", "Turku"]}, "days": {"type": "integer", "minimum": 2, "maximum": 9}},
        "required": ["town", "days"],
        "additionalProperties": False,
    },
    is_strict=True,
)
ANSWER = ResponseFormat(
    {
        "type": "object",
        "properties": {"note": {"type": "string", "maxLength": 12}},
        "required": ["note"],
        "additionalProperties": False,
    }
)


@pytest.mark.parametrize("answer", [None, ANSWER], ids=["text", "json"])
def test_a_call_of_a_strict_tool_fits_its_schema(answer: ResponseFormat | None) -> None:
    """The demo model calls the tool by itself; without the constraint it would name another city."""
    question = [Message(Role.USER, (TextPart("What is the weather in Paris?"),))]

    async def run(tool: Tool) -> list[JSONObject]:
        async with await InferenceEngine.load(str(EMBEDDED_MODELS["embedded:text"])) as engine:
            spec = OutputSpec((tool,), response_format=answer)
            params = [GenerationParams(temperature=1.0, seed=seed, max_tokens=100) for seed in range(4)]
            texts = [(await engine.generate(question, each, spec)).text for each in params]
            parsers = [parser_for(spec.format_for(engine.output_format), spec) for _ in texts]
        events = [event for pair in zip(parsers, texts, strict=True) for event in events_from(pair[0], [pair[1]])]
        return [json.loads(event.call.arguments) for event in events if isinstance(event, Called)]

    validator = jsonschema.Draft202012Validator(STRICT.parameters)
    held, free = asyncio.run(run(STRICT)), asyncio.run(run(replace(STRICT, is_strict=False)))
    assert len(held) == 4
    assert all(validator.is_valid(arguments) for arguments in held)
    assert not any(validator.is_valid(arguments) for arguments in free)


def test_random_weights_answer_in_calls_or_json_beside_tools(tmp_path: Path) -> None:
    """At temperature 1 a model with random weights writes both, and each is complete and fits."""
    folder = write_text_model(tmp_path / "model", chat_template=CHAT_TEMPLATE + "{# <tool_call></tool_call> #}")

    async def run() -> list[str]:
        async with await InferenceEngine.load(str(folder)) as engine:
            assert engine.output_format.has_tools
            spec = OutputSpec((STRICT,), ToolChoice(is_parallel=False), ANSWER)
            params = [GenerationParams(temperature=1.0, seed=seed, max_tokens=300) for seed in range(24)]
            outs = await asyncio.gather(*(engine.generate("Do: ", each, spec) for each in params))
            parsers = [parser_for(spec.format_for(engine.output_format), spec) for _ in outs]
        whole = [(parser, out.text) for parser, out in zip(parsers, outs, strict=True) if out.finish_reason == "stop"]
        kinds = []
        for parser, text in whole:
            (event,) = events_from(parser, [text])
            if isinstance(event, Called):
                jsonschema.validate(json.loads(event.call.arguments), STRICT.parameters)
            else:
                assert isinstance(event, TextDelta)
                jsonschema.validate(json.loads(event.text), ANSWER.schema)
            kinds.append(type(event).__name__)
        return kinds

    assert {*asyncio.run(run())} == {"Called", "TextDelta"}
