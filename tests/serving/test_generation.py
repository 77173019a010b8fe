"""One request on a real engine: the effect of stop strings and limits on answers, reasoning and calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from periscope.core import (
    AnswerGrammar,
    Echo,
    Finished,
    FinishReason,
    GenerationParams,
    GenerationRequest,
    Message,
    OutputEvent,
    OutputSpec,
    ReasoningDelta,
    ResponseFormat,
    Role,
    TextDelta,
    TextPart,
    TextPrompt,
    Tool,
    ToolCallDelta,
    ToolCallStart,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.config import EngineConfig
from periscope.errors import ContextLengthExceeded, InvalidRequest
from periscope.serving.generation import LocalGenerator
from tests.tiny_models import CHAT_TEMPLATE, write_text_model

DEMO = str(EMBEDDED_MODELS["embedded:text"])
GREEDY = GenerationParams(temperature=0.0, max_tokens=120)
WEATHER = Tool(
    "get_weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
)


@dataclass
class Told:
    """A completion as a client gets it."""

    text: str
    reasoning: str
    calls: list[tuple[str, str]]
    tokens: str
    events: Sequence[OutputEvent]

    @property
    def end(self) -> Finished:
        assert isinstance(self.events[-1], Finished)
        return self.events[-1]


def told(events: Sequence[OutputEvent], choice: int = 0) -> Told:
    mine = [event for event in events if getattr(event, "choice", None) == choice]
    texts = [event for event in mine if isinstance(event, TextDelta)]
    calls: list[tuple[str, str]] = []
    for event in mine:
        if isinstance(event, ToolCallStart):
            calls.append((event.name, ""))
        elif isinstance(event, ToolCallDelta):
            calls[-1] = (calls[-1][0], calls[-1][1] + event.arguments)
    return Told(
        "".join(event.text for event in texts),
        "".join(event.text for event in mine if isinstance(event, ReasoningDelta)),
        calls,
        "".join(entry.token.text for event in texts for entry in event.logprobs),
        events,
    )


def asking(text: str, params: GenerationParams = GREEDY, **fields: object) -> GenerationRequest:
    message = Message(Role.USER, (TextPart(text),))
    return replace(GenerationRequest("t", "", (message,), params), **fields)  # type: ignore[arg-type]


def answers(model: str, *requests: GenerationRequest) -> list[list[OutputEvent]]:
    async def answer(generator: LocalGenerator, request: GenerationRequest) -> list[OutputEvent]:
        async with aclosing(generator.stream(request)) as events:
            return [event async for event in events]

    async def run() -> list[list[OutputEvent]]:
        async with await LocalGenerator.load(model) as generator:
            results = await asyncio.gather(*(answer(generator, request) for request in requests))
            while generator.num_rows:  # a row that was given up is dropped at the worker's next look
                await asyncio.sleep(0)
        return results

    return asyncio.run(asyncio.wait_for(run(), 120))


WEATHER_QUESTION = "What is the weather in Paris?"
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)


@pytest.mark.parametrize("choice", [ToolChoice(), REQUIRED], ids=["free", "forced"])
def test_a_stop_string_inside_a_call_does_not_end_it(choice: ToolChoice) -> None:
    """A newline of the markup or a word of the arguments does not end a call, be it forced or the model's own."""
    request = asking(WEATHER_QUESTION, output=OutputSpec((WEATHER,), choice))
    stopping = [replace(request, params=replace(GREEDY, stop=(stop,))) for stop in ("\n", "Paris", "}", "tool_call")]
    first, *others = (told(events) for events in answers(DEMO, request, *stopping))
    ((name, arguments), *_) = first.calls
    assert (name, json.loads(arguments)) == ("get_weather", {"city": "Paris"})
    assert first.end.finish_reason is FinishReason.TOOL_CALLS
    for other in others:
        assert (other.calls, other.text) == (first.calls, first.text)
        assert other.end.finish_reason is FinishReason.TOOL_CALLS
        assert other.end.usage.num_completion_tokens == first.end.usage.num_completion_tokens


def test_a_prompt_beyond_the_context_is_counted(tmp_path: Path) -> None:
    """Its length is why a client counts: to see how much has to go."""

    async def count(num_letters: int, engine: LocalGenerator) -> Finished:
        messages = (Message(Role.USER, (TextPart("x" * num_letters),)),)
        (end,) = [event async for event in engine.stream(GenerationRequest("r", "m", messages, counts_only=True))]
        assert isinstance(end, Finished)
        return end

    async def main() -> None:
        engine = await LocalGenerator.load(str(write_text_model(tmp_path / "tiny")), EngineConfig(context_length=64))
        try:
            short, long = await count(8, engine), await count(100, engine)
        finally:
            await engine.close()
        assert short.usage.num_completion_tokens == 0
        assert short.usage.num_prompt_tokens < 64 < long.usage.num_prompt_tokens

    asyncio.run(main())


def test_a_schema_ends_an_answer_that_ignores_its_end() -> None:
    """The grammar allows nothing after the object, so `ignore_eos` and `min_tokens` do not spoil it."""
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    output = OutputSpec(response_format=ResponseFormat(schema))
    forever = [replace(GREEDY, ignore_eos=True), replace(GREEDY, min_tokens=100)]
    for events in answers(DEMO, *(asking("Is it so?", params, output=output) for params in forever)):
        assert isinstance(json.loads(told(events).text)["ok"], bool)
        assert told(events).end.finish_reason is FinishReason.STOP


def test_a_stop_token_is_no_part_of_the_answer() -> None:
    """The text and the log-probabilities end before it; it counts as generated, as the model's own end does."""
    question, params = "What can you do?", replace(GREEDY, logprobs=True)
    (whole,) = (told(events) for events in answers(DEMO, asking(question, params)))
    entries = [entry.token for event in whole.events if isinstance(event, TextDelta) for entry in event.logprobs]
    place = len(entries) // 2
    stop = entries[place].token_id
    first = next(n for n, entry in enumerate(entries) if entry.token_id == stop)
    (cut,) = (told(events) for events in answers(DEMO, asking(question, replace(params, stop_token_ids=(stop,)))))
    assert cut.text == "".join(entry.text for entry in entries[:first])
    assert cut.tokens == cut.text
    assert cut.end.finish_reason is FinishReason.STOP
    assert cut.end.usage.num_completion_tokens == first + 1


def test_a_stop_string_ends_the_answer_before_it() -> None:
    """The text ends before the first one, with reason stop, and only those tokens and their log-probabilities count."""
    question, with_logprobs = "What can you do?", replace(GREEDY, logprobs=True)
    (whole,) = (told(events) for events in answers(DEMO, asking(question)))
    words = whole.text.split(" ")
    stop = " " + " ".join(words[len(words) // 2 :][:2])
    before = whole.text.partition(stop)[0]
    stopping = replace(with_logprobs, stop=("never said", stop))
    one, two = answers(DEMO, asking(question, stopping), asking(question, stopping, num_choices=2))
    for cut, end in ((told(one), told(one).end), (told(two, 0), told(two).end), (told(two, 1), told(two).end)):
        assert cut.text == before
        assert {*end.finish_reasons} == {FinishReason.STOP}
        assert cut.tokens.startswith(before)
        assert stop not in cut.tokens
    assert told(one).end.usage.num_completion_tokens < whole.end.usage.num_completion_tokens
    assert told(two).end.usage.num_completion_tokens == 2 * told(one).end.usage.num_completion_tokens


def test_a_stop_string_inside_reasoning_does_not_end_it(tmp_path: Path) -> None:
    """A model that reasons continues up to its limit."""
    folder = write_text_model(tmp_path / "model", chat_template=CHAT_TEMPLATE + "<think>\n{# </think> #}")
    params = GenerationParams(temperature=1.0, seed=3, max_tokens=60)
    (thinking,) = (told(events) for events in answers(str(folder), asking("Hello", params)))
    assert len(thinking.reasoning) > 20
    stopping = replace(params, stop=(thinking.reasoning[5:7],))
    (again,) = (told(events) for events in answers(str(folder), asking("Hello", stopping)))
    assert again.reasoning == thinking.reasoning
    assert again.end.finish_reason is FinishReason.LENGTH


def test_a_stop_string_ends_an_answer_in_json_too() -> None:
    """As with OpenAI, a client that asks for both gets the text before it, which is then not valid JSON."""
    schema = ResponseFormat({"type": "object", "properties": {"a": {"enum": ["yes"]}}, "required": ["a"]})
    asked = asking("Hello", replace(GREEDY, stop=("es",)), output=OutputSpec(response_format=schema))
    (cut,) = (told(events) for events in answers(DEMO, asked))
    assert cut.text == '{"a": "y'
    assert cut.end.finish_reason is FinishReason.STOP


def test_a_number_under_a_schema_ends_as_valid_json() -> None:
    """The demo model repeats digits, and still ends within its limit, whether the schema gives a type or not."""
    member = [{"type": "integer"}, {"type": "number"}, {"type": "number", "minimum": 0}]
    schemas = [{"type": "object", "properties": {"a": each}, "required": ["a"]} for each in member]
    schemas.append({"properties": {"a": {"type": "integer"}}, "required": ["a"]})
    questions = ("Hello!", "How many shapes?", "Give me JSON.")
    asked = [
        asking(question, output=OutputSpec(response_format=ResponseFormat(schema)))
        for question in questions
        for schema in schemas
    ]
    for completion in map(told, answers(DEMO, *asked)):
        assert [*json.loads(completion.text)] == ["a"]
        assert completion.end.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("choice", [ToolChoice(), REQUIRED], ids=["free", "forced"])
def test_a_call_cut_off_anywhere_shows_no_markup(choice: ToolChoice) -> None:
    """Whatever `max_tokens` is, there is no content, and of the call what was written, or nothing yet.

    A call that a grammar holds to is completed early where there is room for any: its arguments are JSON then.
    """
    request = asking(WEATHER_QUESTION, output=OutputSpec((WEATHER,), choice))
    (whole,) = (told(events) for events in answers(DEMO, request))
    num_tokens = whole.end.usage.num_completion_tokens
    limits = range(1, num_tokens - 1, 2)
    cut = answers(DEMO, *(replace(request, params=replace(GREEDY, max_tokens=limit)) for limit in limits))
    num_partial = 0
    for completion in map(told, cut):
        assert completion.text == ""
        assert completion.end.finish_reason is FinishReason.LENGTH
        for (name, arguments), (whole_name, whole_arguments) in zip(completion.calls, whole.calls, strict=False):
            assert name == whole_name
            assert whole_arguments.startswith(arguments) or [*json.loads(arguments)] == [*json.loads(whole_arguments)]
            num_partial += arguments != whole_arguments
    assert num_partial


def completing(
    *sources: str | tuple[int, ...], params: GenerationParams = GREEDY, **fields: object
) -> GenerationRequest:
    prompts = tuple(TextPrompt(source) for source in sources)
    return replace(GenerationRequest("t", "", (), params, prompts=prompts), **fields)  # type: ignore[arg-type]


def test_texts_are_completed_together_as_each_alone() -> None:
    """Choices are numbered through; every prompt is counted once."""
    short = replace(GREEDY, max_tokens=6)
    one, other, both = answers(
        DEMO,
        completing("Hello", params=short),
        completing("What is", params=short),
        completing("Hello", "What is", params=short, num_choices=2),
    )
    texts = [told(both, choice).text for choice in range(4)]
    assert texts == [told(one).text] * 2 + [told(other).text] * 2
    end, usage = told(both).end, told(both).end.usage
    assert len(end.finish_reasons) == 4
    assert usage.num_prompt_tokens == sum(told(each).end.usage.num_prompt_tokens for each in (one, other))
    assert usage.num_completion_tokens == 2 * sum(told(each).end.usage.num_completion_tokens for each in (one, other))


def test_a_seed_gives_every_prompt_the_same_choices() -> None:
    """Those of one prompt differ from each other; a prompt's are the same beside others and alone."""
    hot = GenerationParams(temperature=1.5, max_tokens=12, seed=5)
    both, alone = answers(
        DEMO, completing("The", "The", params=hot, num_choices=2), completing("The", params=hot, num_choices=2)
    )
    texts = [told(both, choice).text for choice in range(4)]
    assert texts[:2] == texts[2:] == [told(alone, choice).text for choice in range(2)]
    assert texts[0] != texts[1]


def test_a_text_comes_back_before_its_completion_if_asked() -> None:
    """Also one of tokens, and alone."""
    short = replace(GREEDY, max_tokens=4)
    plain, echoed, alone = answers(
        DEMO,
        completing("Hello", params=short),
        completing("Hello", params=short, echo=Echo.PROMPT),
        completing("Hello", (65, 66), params=short, echo=Echo.ALONE),
    )
    assert told(echoed).text == "Hello" + told(plain).text
    assert told(alone).text == "Hello"
    assert told(alone, 1).text
    assert told(alone).end.finish_reasons == (FinishReason.LENGTH,) * 2
    assert told(alone).end.usage.num_completion_tokens == 0


def test_nothing_in_the_completion_of_a_text_is_reasoning_or_a_call(tmp_path: Path) -> None:
    """Markers are text there; the same model's answer in a chat is read."""
    folder = write_text_model(tmp_path / "tiny", chat_template=CHAT_TEMPLATE + "{# <think> </think> <tool_call> #}")
    choices = AnswerGrammar(choices=("<think>a</think>b",), param="guided_choice")
    (events,) = answers(str(folder), completing("x", output=OutputSpec(response_format=choices)))
    assert (told(events).text, told(events).reasoning) == ("<think>a</think>b", "")


def test_a_text_that_cannot_be_completed_is_named(tmp_path: Path) -> None:
    """By its place in the request, before the first event."""
    prompts = (TextPrompt("a", param="prompt[0]"), TextPrompt("x" * 4000, param="prompt[1]"))
    folder = str(write_text_model(tmp_path / "tiny"))
    with pytest.raises(ContextLengthExceeded) as refusal:
        answers(folder, replace(completing(), prompts=prompts))
    assert refusal.value.param == "prompt[1]"


def conversation(*said: str, params: GenerationParams = GREEDY, **fields: object) -> GenerationRequest:
    """A question, then the assistant's own words."""
    request = asking(said[0], params, **fields)
    spoken = tuple(Message(Role.ASSISTANT, (TextPart(text),)) for text in said[1:])
    return replace(request, messages=(*request.messages, *spoken))


def test_an_answer_goes_on_as_it_would_have() -> None:
    """Cut before any of its words, the rest is what the model would have said; only the rest is told and counted."""
    question = "What can you do?"
    (whole,) = (told(events) for events in answers(DEMO, asking(question)))
    cuts = [at for at, char in enumerate(whole.text) if char == " "][:6]
    begun = [conversation(question, whole.text[:cut], continues=True) for cut in cuts]
    for cut, events in zip(cuts, answers(DEMO, *begun), strict=True):
        assert told(events).text == whole.text[cut:]
        assert told(events).end.usage.num_completion_tokens < whole.end.usage.num_completion_tokens


@pytest.mark.parametrize(
    ("output", "param"),
    [
        (OutputSpec(response_format=ResponseFormat({"type": "object"}, "guided_json")), "guided_json"),
        (OutputSpec((WEATHER,), REQUIRED), "tool_choice"),
        (OutputSpec((replace(WEATHER, is_strict=True),)), "tools"),
    ],
)
def test_an_answer_that_has_begun_cannot_be_held_to_a_grammar(output: OutputSpec, param: str) -> None:
    """Its beginning is the client's, so the whole would not fit; refused by the field that asks for it."""
    with pytest.raises(InvalidRequest, match="already begun") as refusal:
        answers(DEMO, conversation("Hello!", "I", continues=True, output=output))
    assert refusal.value.param == param


def test_the_tokens_of_an_echoed_text_have_log_probabilities() -> None:
    """All but the first, before those of the completion, which are as without; and alone, for no token more."""
    params = replace(GREEDY, max_tokens=3, logprobs=True, top_logprobs=1)
    scoring = replace(params, prompt_logprobs=True)
    text = "What can you do?"
    plain, echoed, alone = answers(
        DEMO,
        completing(text, params=params),
        completing(text, params=scoring, echo=Echo.PROMPT),
        completing(text, params=replace(scoring, max_tokens=1), echo=Echo.ALONE),
    )
    assert told(echoed).text == told(echoed).tokens == text + told(plain).text
    assert told(alone).text == told(alone).tokens == text
    assert told(alone).end.usage.num_completion_tokens == 0
    entries, rest = ([e for d in each if isinstance(d, TextDelta) for e in d.logprobs] for each in (echoed, plain))
    assert [entry.logprob is None for entry in entries] == [True, *[False] * (len(entries) - 1)]
    assert [entry.token for entry in entries[-len(rest) :]] == [entry.token for entry in rest]


def test_log_probabilities_of_too_long_prompts_are_refused() -> None:
    """By arithmetic, before anything is computed."""
    scoring = replace(GREEDY, max_tokens=1, logprobs=True, prompt_logprobs=True)
    prompts = [(65,) * 700] * 4
    with pytest.raises(InvalidRequest, match="at most 32768") as refusal:
        answers(DEMO, completing(*prompts, params=scoring, echo=Echo.PROMPT, num_choices=16))
    assert refusal.value.param == "echo"
