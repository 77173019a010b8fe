"""Whatever a chat template leaves out, nothing of a request is lost silently."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from mlx_lm import tokenizer_utils

from periscope.core import (
    Message,
    OutputFormat,
    OutputSpec,
    Role,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    ToolCallStyle,
)
from periscope.engine.text.chat_template import ChatTokenizer
from periscope.engine.text.output_format import hermes_calls
from periscope.engine.text.template_fit import TemplateFit, ToolPlace
from periscope.errors import InvalidRequest
from periscope.parsing.registry import parser_for
from tests.engine.template_shapes import SHAPES
from tests.tiny_models import CHAT_TEMPLATE, write_tokenizer

NUM_CONVERSATIONS = 40
WEATHER = Tool("get_weather", "Tells it.", {"type": "object", "properties": {"city": {"type": "string"}}})


def chat_tokenizer(folder: Path, template: Any, special_tokens: tuple[str, ...] = ()) -> ChatTokenizer:
    write_tokenizer(folder, template, special_tokens)
    return ChatTokenizer(tokenizer_utils.load(folder), {})


def prompt_of(tokenizer: ChatTokenizer, *messages: Message, tools: tuple[Tool, ...] = ()) -> str:
    return tokenizer.decode(tokenizer.render(messages, tools).token_ids)


def said(role: Role, text: str, name: str | None = None) -> Message:
    return Message(role, (TextPart(text),), name=name)


ASK, ANSWER = said(Role.USER, "Ask."), said(Role.ASSISTANT, "Well.")
CALLED = Message(Role.ASSISTANT, tool_calls=(ToolCall("call_1", "get_weather", '{"city": "Turku"}'),))
RESULT = Message(Role.TOOL, (TextPart("Rain."),), tool_call_id="call_1")


@dataclass
class Drawn:
    """A conversation with a different word in every text and field."""

    rng: random.Random
    words: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)

    def word(self) -> str:
        self.words.append(f"Quux{len(self.words)}z")
        return self.words[-1]

    def chance(self, share: float) -> bool:
        return self.rng.random() < share

    def say(self, role: Role) -> None:
        self.messages.append(said(role, self.word(), self.word() if self.chance(0.1) else None))

    def call(self) -> None:
        calls = tuple(
            ToolCall(f"call_{len(self.words)}_{number}", "get_weather", json.dumps({"city": self.word()}))
            for number in range(self.rng.choice((1, 1, 2)))
        )
        text = (TextPart(self.word()),) if self.chance(0.5) else ()
        self.messages.append(Message(Role.ASSISTANT, text, calls))
        results = [Message(Role.TOOL, (TextPart(self.word()),), tool_call_id=call.id) for call in calls]
        self.messages += self.rng.sample(results, len(results))

    def turn(self) -> None:
        for _ in range(self.rng.choice((1, 1, 1, 2))):
            self.say(Role.USER)
        if self.chance(0.4):
            self.call()
        if self.chance(0.1):
            self.say(Role.SYSTEM)
        for _ in range(self.rng.choice((0, 1, 1, 1, 2))):
            self.say(Role.ASSISTANT)


def drawn_request(seed: int) -> tuple[list[Message], tuple[Tool, ...], list[str]]:
    """Messages and tools, and the words that must all reach the model."""
    drawn = Drawn(random.Random(seed))
    for _ in range(drawn.rng.choice((0, 1, 1, 2))):
        drawn.say(Role.SYSTEM)
    if drawn.chance(0.2):
        drawn.say(Role.ASSISTANT)
    for _ in range(drawn.rng.randint(1, 3)):
        drawn.turn()
    if not drawn.chance(0.5):
        return drawn.messages, (), drawn.words
    parameters = {"type": "object", "properties": {drawn.word(): {"type": "string", "description": drawn.word()}}}
    return drawn.messages, (Tool(drawn.word(), drawn.word(), parameters),), drawn.words


@pytest.mark.parametrize("shape", SHAPES)
def test_every_word_arrives_or_the_request_is_refused(tmp_path: Path, shape: str) -> None:
    """This holds for drawn conversations with calls, results and tools, and the templates of all families."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES[shape])
    num_refused = 0
    for seed in range(NUM_CONVERSATIONS):
        messages, tools, words = drawn_request(seed)
        try:
            prompt = prompt_of(tokenizer, *messages, tools=tools)
        except InvalidRequest:
            num_refused += 1
            continue
        assert [word for word in words if word not in prompt] == []
    is_hopeless = shape in ("short memory", "last only", "always no")
    assert (num_refused > 0) == is_hopeless


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ("plain chatml", ToolPlace.SYSTEM),
        ("hermes", ToolPlace.TEMPLATE),
        ("calls only", ToolPlace.TEMPLATE),
        ("alternating", ToolPlace.TEMPLATE),
        ("no system", ToolPlace.SYSTEM),
        ("deaf to system", ToolPlace.SYSTEM),
        ("names of tools", ToolPlace.SYSTEM),
        ("no parameters", ToolPlace.DESCRIPTION),
        ("tools in system", ToolPlace.SYSTEM),
        ("last only", ToolPlace.NOWHERE),
        ("always no", ToolPlace.NOWHERE),
    ],
)
def test_where_tools_are_described(tmp_path: Path, shape: str, place: ToolPlace) -> None:
    """The template describes tools if it shows all their parts; otherwise they are in a text that it renders."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES[shape])
    assert tokenizer._fit is not None
    assert tokenizer._fit.tool_place is place


def test_tools_that_a_template_lacks_are_in_the_system_message(tmp_path: Path) -> None:
    """They follow the client's own text in Hermes' format, and so do calls and results."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES["plain chatml"])
    chat = (said(Role.SYSTEM, "Be brief."), ASK, CALLED, RESULT)
    system, _, rest = prompt_of(tokenizer, *chat, tools=(WEATHER,)).partition("<|im_end|>\n")
    assert system.startswith("<|im_start|>system\nBe brief.\n\n# Tools\n")
    listed = system.partition("<tools>\n")[2].partition("\n</tools>")[0]
    assert json.loads(listed)["function"] == {
        "name": "get_weather",
        "description": "Tells it.",
        "parameters": WEATHER.parameters,
    }
    call = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Turku"}}\n</tool_call>'
    assert rest == (
        f"<|im_start|>user\nAsk.<|im_end|>\n<|im_start|>assistant\n{call}<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nRain.\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )
    assert "# Tools" not in prompt_of(tokenizer, *chat[:2])


def test_calls_of_a_model_that_got_tools_as_text_are_parsed(tmp_path: Path) -> None:
    """Its output in that format is a call, and its reasoning is still recognised."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES["plain chatml"], ("<think>", "</think>"))
    assert tokenizer.has_tools
    assert tokenizer.output_format.tool_call_style is ToolCallStyle.HERMES
    parser = parser_for(tokenizer.output_format, OutputSpec((WEATHER,)))
    written = (
        '<think>Hm.</think>Look.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Turku"}}\n</tool_call>'
    )
    deltas = parser.feed(written) + parser.finish()
    (called,) = [delta.name for delta in deltas if isinstance(delta, ToolCallStart)]
    arguments = "".join(delta.arguments for delta in deltas if isinstance(delta, ToolCallDelta))
    assert (called, json.loads(arguments)) == ("get_weather", {"city": "Turku"})
    assert "".join(delta.text for delta in deltas if isinstance(delta, TextDelta)).strip() == "Look."


def test_a_model_s_own_hermes_format_is_kept() -> None:
    """A model whose vocabulary has the markers is told the format that it was trained with."""
    own = OutputFormat(tool_start="<tool_call>", tool_end="</tool_call>", tool_call_style=ToolCallStyle.HERMES)
    assert hermes_calls(own) is own


def test_tools_are_refused_where_no_template_carries_them(tmp_path: Path) -> None:
    """The 400 names the tools, and the model does not claim to support them."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES["last only"], ("<tool_call>", "</tool_call>"))
    assert not tokenizer.has_tools
    with pytest.raises(InvalidRequest, match="cannot be offered tools") as caught:
        tokenizer.render([ASK], [WEATHER])
    assert caught.value.param == "tools"


def test_the_refusal_names_the_part_that_would_be_lost(tmp_path: Path) -> None:
    """The error says which part of the request the model would not get."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES["short memory"])
    assert "Ask." in prompt_of(tokenizer, ASK, ANSWER, ASK)
    with pytest.raises(InvalidRequest, match=r"leaves out `messages\[0\].content`") as caught:
        tokenizer.render([ASK, ANSWER, ASK, ANSWER, ASK])
    assert caught.value.param == "messages[0].content"


def test_a_template_for_tools_is_taken_where_there_is_one(tmp_path: Path) -> None:
    """Of several named templates, the one for tools describes them; rewrites make up for what the default one drops."""
    named = [{"name": "default", "template": CHAT_TEMPLATE}, {"name": "tool_use", "template": SHAPES["hermes"]}]
    tokenizer = chat_tokenizer(tmp_path, named)
    assert "<tools>{" in prompt_of(tokenizer, ASK, CALLED, RESULT, tools=(WEATHER,))
    without = prompt_of(tokenizer, ASK, CALLED, RESULT)
    assert '<tool_call>\n{"name": "get_weather"' in without
    assert "Rain." in without


def test_the_beginning_of_a_conversation_stays_the_same(tmp_path: Path) -> None:
    """Rewrites do not depend on later messages, so that cached prefixes stay valid."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES["calls only"])
    turns = [said(Role.SYSTEM, "Be."), ASK, replace(CALLED, parts=(TextPart("Look."),)), RESULT, ANSWER, ASK]
    prompts = [prompt_of(tokenizer, *turns[:length], tools=(WEATHER,)) for length in (2, 4, 6)]
    opened = "<|im_start|>assistant\n"
    assert all(later.startswith(before.removesuffix(opened)) for before, later in itertools.pairwise(prompts))


def test_a_template_may_drop_reasoning_of_earlier_turns(tmp_path: Path) -> None:
    """Dropped reasoning of earlier turns is not rewritten, and the log says so."""
    tokenizer = chat_tokenizer(tmp_path, SHAPES["reasoning"])
    thought = Message(Role.ASSISTANT, (TextPart("Well."),), reasoning="Hmm.")
    assert "Hmm." not in prompt_of(tokenizer, ASK, thought, ASK)
    assert any("reasoning of earlier turns" in note for note in tokenizer.notes)
    assert not any("reasoning" in note for note in chat_tokenizer(tmp_path / "b", "{{ messages }}").notes)


def test_the_notes_say_what_a_template_drops(tmp_path: Path) -> None:
    """They tell the server's operator what is rewritten, and how."""
    notes = " ".join(chat_tokenizer(tmp_path, SHAPES["no system"]).notes)
    assert "knows no tools" in notes
    assert "writes no `name` of user messages" in notes


@pytest.mark.parametrize("name", ["chat_template", "tools", "messages", "tokenize", "continue_final_message"])
def test_a_client_sets_variables_of_the_template_and_nothing_else(tmp_path: Path, name: str) -> None:
    """A request cannot set the template itself, the messages or the renderer's other arguments."""
    tokenizer = chat_tokenizer(tmp_path, CHAT_TEMPLATE)
    with pytest.raises(InvalidRequest, match="cannot be set") as caught:
        tokenizer.render([ASK], template_kwargs={name: "x"})
    assert caught.value.param == f"chat_template_kwargs.{name}"


def test_a_shape_once_checked_is_not_rendered_twice() -> None:
    """The check renders short words a second time, once: a longer text of the same shape is not checked again."""
    rendered: list[list[dict[str, Any]]] = []

    def render(messages: list[dict[str, Any]], _schemas: list[dict[str, Any]]) -> str:
        rendered.append(messages)
        return str(messages)

    fit = TemplateFit(render)
    rendered.clear()
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    assert fit.fit(chat, [], render).messages == chat
    assert len(rendered) == 2
    fit.fit([*chat[:2], {"role": "user", "content": "something else"}], [], render)
    assert len(rendered) == 3
    fit.fit(chat, [], render, "other settings")
    assert len(rendered) == 5
