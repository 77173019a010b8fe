"""Thinking that ends, on a real engine: by a budget, by a command, in every choice, before JSON and before calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from periscope.core import (
    Finished,
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Message,
    OutputSpec,
    ReasoningDelta,
    ResponseFormat,
    Role,
    TextDelta,
    TextPart,
    Tool,
    ToolCallStart,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.engine.config import EngineConfig
from periscope.errors import ModelLoadError, NotThinking
from periscope.serving.generation import LocalGenerator
from tests.serving.test_generation import Told, told
from tests.tiny_models import CHAT_TEMPLATE, write_text_model

#: It opens the thinking, and shows that of earlier turns in the manner of Qwen3.
TEMPLATE = (
    CHAT_TEMPLATE.replace(
        "{{ m.content }}",
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}{{ m.content }}",
    )
    + "<think>\n"
)
#: Letters only: the tiny model never ends anything by itself.
LETTERS = tuple((token, -100.0) for token in range(258) if not 65 <= token < 91)
PARAMS = GenerationParams(temperature=1.0, seed=3, max_tokens=80, logit_bias=LETTERS)
ENDING = "\n</think>\n\n"
SCHEMA = ResponseFormat({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]})
TOOL = Tool("get", "Gets.", {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]})
T = TypeVar("T")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("thinking") / "model", chat_template=TEMPLATE)


def asking(params: GenerationParams = PARAMS, **fields: object) -> GenerationRequest:
    message = Message(Role.USER, (TextPart("Hello"),))
    return replace(GenerationRequest("t", "", (message,), params), **fields)  # type: ignore[arg-type]


def with_model(folder: Path, use: Callable[[LocalGenerator], Awaitable[T]], config: EngineConfig = EngineConfig()) -> T:
    async def run() -> T:
        async with await LocalGenerator.load(str(folder), config) as generator:
            return await use(generator)

    return asyncio.run(asyncio.wait_for(run(), 120))


def answers(folder: Path, *requests: GenerationRequest, config: EngineConfig = EngineConfig()) -> list[Told]:
    async def one(generator: LocalGenerator, request: GenerationRequest) -> Told:
        async with aclosing(generator.stream(request)) as events:
            return told([event async for event in events])

    async def use(generator: LocalGenerator) -> list[Told]:
        return list(await asyncio.gather(*(one(generator, request) for request in requests)))

    return with_model(folder, use, config)


def test_a_budget_ends_the_thinking_and_the_answer_goes_on(folder: Path) -> None:
    """The end is no text of either; usage counts it with the thinking, in all choices together."""
    endless, bounded, several = answers(
        folder,
        asking(),
        asking(replace(PARAMS, thinking_budget=12)),
        asking(replace(PARAMS, thinking_budget=12), num_choices=2),
    )
    assert (endless.text, len(endless.reasoning)) == ("", 80)
    assert endless.end.usage.num_reasoning_tokens == 80
    assert bounded.reasoning == endless.reasoning[:12] + "\n"
    assert len(bounded.text) == 80 - 12 - len(ENDING)
    assert bounded.end.usage.num_reasoning_tokens == 12 + len("\n</think>")
    second = told(several.events, 1)
    assert (several.reasoning, several.text) == (bounded.reasoning, bounded.text)
    assert len(second.reasoning) == 13
    assert second.text != bounded.text
    assert several.end.usage.num_reasoning_tokens == 2 * bounded.end.usage.num_reasoning_tokens


def test_a_sentence_may_stand_before_the_end(folder: Path) -> None:
    """As in Qwen's recipe, so that the model knows why it stops."""
    config = EngineConfig(thinking_end_message="I must answer now.")
    (bounded,) = answers(folder, asking(replace(PARAMS, thinking_budget=5)), config=config)
    assert bounded.reasoning[5:] == "\n\nI must answer now.\n"
    assert bounded.text


@pytest.mark.parametrize("budget", [0, 1, 9])
def test_a_schema_holds_after_thinking_that_was_ended(folder: Path, budget: int) -> None:
    """So does a call that is demanded: the grammar goes on behind the end."""
    params = replace(PARAMS, thinking_budget=budget, logit_bias=())
    forced = OutputSpec((TOOL,), ToolChoice(ToolChoiceMode.REQUIRED))
    answer, call = answers(
        folder, asking(params, output=OutputSpec(response_format=SCHEMA)), asking(params, output=forced)
    )
    assert isinstance(json.loads(answer.text)["ok"], bool)
    assert answer.end.usage.num_reasoning_tokens <= budget + 8 + len("\n</think>")
    assert [(name, json.loads(arguments)["n"] in (1, 2)) for name, arguments in call.calls[:1]] == [("get", True)]


def test_a_running_request_answers_now(folder: Path) -> None:
    """All choices that think do; afterwards, and for a request that nobody knows, there is nothing to end."""

    async def use(generator: LocalGenerator) -> tuple[list[object], int]:
        request, seen, num_refused = asking(replace(PARAMS, max_tokens=2000), num_choices=2), list[object](), 0
        with pytest.raises(NotThinking, match="does not think"):
            generator.answer_now(request.id)
        async with aclosing(generator.stream(request)) as events:
            async for event in events:
                seen.append(event)
                if len(seen) == 5:
                    generator.answer_now(request.id)
                texts = {each.choice for each in seen if isinstance(each, TextDelta) and each.text}
                if texts == {0, 1}:
                    with pytest.raises(NotThinking, match="writes its answer already"):
                        generator.answer_now(request.id)
                    num_refused += 1
                    break
        with pytest.raises(NotThinking):
            generator.answer_now(request.id)
        return seen, num_refused

    seen, num_refused = with_model(folder, use)
    assert num_refused == 1
    for choice in (0, 1):
        thought = "".join(event.text for event in seen if isinstance(event, ReasoningDelta) and event.choice == choice)
        assert 0 < len(thought) < 1000
        assert thought.endswith("\n")


def test_a_model_that_marks_no_thinking_cannot_be_told(tiny_text_model: Path) -> None:
    """The error says so, and a budget is without effect on it."""

    async def use(generator: LocalGenerator) -> Finished:
        with pytest.raises(NotThinking, match="marks no thinking"):
            generator.answer_now("t")
        async with aclosing(generator.stream(asking(replace(PARAMS, thinking_budget=3)))) as events:
            told_events = [event async for event in events]
        assert not any(isinstance(event, ReasoningDelta | ToolCallStart) for event in told_events)
        assert isinstance(told_events[-1], Finished)
        return told_events[-1]

    end = with_model(tiny_text_model, use)
    assert (end.finish_reason, end.usage.num_reasoning_tokens) == (FinishReason.LENGTH, 0)


def test_a_model_is_read_as_models_yaml_says(tiny_text_model: Path) -> None:
    """Another template opens the thinking, and another parser finds its end, in place of what the files tell."""
    template = CHAT_TEMPLATE + "[THINK]"
    config = EngineConfig(chat_template=template, reasoning_parser="mistral")
    (bounded,) = answers(tiny_text_model, asking(replace(PARAMS, thinking_budget=6)), config=config)
    assert len(bounded.reasoning) == 6
    assert bounded.text
    plain = EngineConfig(chat_template=template, reasoning_parser="none")
    (unread,) = answers(tiny_text_model, asking(replace(PARAMS, thinking_budget=6)), config=plain)
    assert (unread.reasoning, len(unread.text)) == ("", 80)


def test_a_broken_template_is_a_failed_load_that_names_the_line(tiny_text_model: Path) -> None:
    """Not a refusal of every request."""
    with pytest.raises(ModelLoadError, match="error in line 2"):
        answers(tiny_text_model, asking(), config=EngineConfig(chat_template="{{ messages }}\n{% if %}"))
