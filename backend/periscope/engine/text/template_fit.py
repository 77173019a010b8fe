"""Finds what a chat template leaves out, and rewrites messages and tools so that the model gets the whole request.

Templates silently leave out what their authors did not think of: tools, a second system message, a name, text beside
a call. Two checks find that. Probes run once per template: short conversations with a word that the rendered text must
contain. A rewrite that a probe needs is always applied, so that the prefix of a conversation stays the same from turn
to turn. The second check runs once per shape of conversation: the request's own messages, with a unique word in place
of every text. A request that loses a word with every rewrite is refused.

The reasoning of earlier turns is left out by design and stays so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TypeAlias

from periscope.core import JSONObject
from periscope.engine.text.message_rewrites import (
    REASONING_KEYS,
    Messages,
    in_call_order,
    tools_as_text,
    with_result_names,
    with_system_text,
)
from periscope.engine.text.template_probes import PROBE_TOOL, PROBE_WORD, REWRITES, Rewrite, attempts, called
from periscope.engine.text.tool_text import described_by_schema, tools_text
from periscope.errors import InvalidRequest

#: Renders messages and tools with the template and its settings. May raise anything: a template is code
#: of the model's authors, which most often calls `raise_exception`.
Render: TypeAlias = Callable[[Messages, list[JSONObject]], str]

#: How many shapes of conversations that render completely are remembered. A client has few, and each is small.
_MAX_KNOWN_SHAPES = 256


class ToolPlace(StrEnum):
    """Where in the prompt the tools are described.

    Attributes:
        TEMPLATE: the template writes them.
        DESCRIPTION: the template writes them without parameters, which are appended to the description.
        SYSTEM: in the text of the system message, because the template ignores tools.
        NOWHERE: the template shows neither tools nor a system message; requests with tools are refused.
    """

    TEMPLATE = "template"
    DESCRIPTION = "description"
    SYSTEM = "system"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class FittedChat:
    """Messages and tools as rewritten for the template, and the rendered text with the assistant's turn opened."""

    messages: Messages
    schemas: list[JSONObject]
    text: str


class TemplateFit:
    """Owns the probe results of one chat template. Not thread-safe. Construction runs the probes (some milliseconds).

    Args:
        render: renders with the model's own template settings.
    """

    def __init__(self, render: Render) -> None:
        plain = _needed(render, [])
        self.tool_place = _tool_place_of(render, plain)
        shows_tools = self.tool_place in (ToolPlace.TEMPLATE, ToolPlace.DESCRIPTION)
        self._needed = {False: plain, True: _needed(render, [PROBE_TOOL]) if shows_tools else plain}
        self._known: OrderedDict[Hashable, None] = OrderedDict()
        self.notes = tuple(_notes(render, self.tool_place, plain))

    def fit(self, messages: Messages, schemas: list[JSONObject], render: Render, settings: str = "") -> FittedChat:
        """Rewrite a request so that the template renders all of it.

        Args:
            render: renders with the request's template settings.
            settings: a key that identifies the request's template settings.

        Raises:
            InvalidRequest: the template refuses it, or leaves a part out, with every rewrite.
        """
        told, shown = self._told(schemas)
        marked, words = _marked(messages)
        wholes = attempts(self._arranged(messages, told, has_tools=bool(shown)))
        probes = attempts(self._arranged(marked, told, has_tools=bool(shown)))
        shape = (settings, bool(schemas), _shape_of(marked))
        is_known = shape in self._known
        refusal: Exception | None = None
        lost: list[str] = []
        for whole, probe in zip(wholes, probes, strict=False):
            try:
                text = render(whole, shown)
            except Exception as error:  # noqa: BLE001 - see `Render`
                refusal, is_known = refusal or error, False
                continue
            missing = [] if is_known else _missing(words, partial(render, probe, shown))
            if not missing:
                if refusal is None and not lost:
                    self._remember(shape)
                return FittedChat(whole, shown, text)
            lost = lost or missing
        raise _refusal(refusal, lost)

    def _told(self, schemas: list[JSONObject]) -> tuple[str, list[JSONObject]]:
        """The text about tools for the system message, and the tools that are passed to the template."""
        if not schemas or self.tool_place is ToolPlace.TEMPLATE:
            return "", schemas
        match self.tool_place:
            case ToolPlace.DESCRIPTION:
                return "", [described_by_schema(schema) for schema in schemas]
            case ToolPlace.SYSTEM:
                return tools_text(schemas), []
        raise InvalidRequest(
            "This model cannot be offered tools: its chat template shows neither tools nor a text that tells of them. "
            "Leave `tools` out, or use another model.",
            param="tools",
        )

    def _arranged(self, messages: Messages, told: str, *, has_tools: bool) -> Messages:
        arranged = with_result_names(in_call_order(messages))
        if told:
            arranged = tools_as_text(with_system_text(arranged, told))
        for rewrite in self._needed[has_tools]:
            arranged = rewrite.apply(arranged)
        return arranged

    def _remember(self, shape: Hashable) -> None:
        self._known[shape] = None
        self._known.move_to_end(shape)
        while len(self._known) > _MAX_KNOWN_SHAPES:
            self._known.popitem(last=False)


def _refusal(refusal: Exception | None, lost: list[str]) -> InvalidRequest:
    if refusal is not None:
        return InvalidRequest(f"The model's chat template refuses these messages: {refusal}", param="messages")
    places = ", ".join(f"`{place}`" for place in lost[:3])
    return InvalidRequest(
        f"The model's chat template leaves out {places}, however the messages are put: the model would never read it. "
        "Leave it out yourself, or use another model.",
        param=lost[0] if lost else "messages",
    )


# Probes ---------------------------------------------------------------------------------------------------------------


def _needed(render: Render, schemas: list[JSONObject]) -> tuple[Rewrite, ...]:
    """The rewrites that this template needs: it silently drops a probe's word without them, and keeps it with them."""
    needed: list[Rewrite] = []
    for rewrite in REWRITES:
        for probe in rewrite.probes:
            before = with_result_names(probe)
            for earlier in needed:
                before = earlier.apply(before)
            if _carries(render, before, schemas) is False and _carries(render, rewrite.apply(before), schemas):
                needed.append(rewrite)
                break
    return tuple(needed)


def _carries(render: Render, probe: Messages, schemas: list[JSONObject], word: str = PROBE_WORD) -> bool | None:
    """Whether the rendered probe contains the word; None if the template raises, which is not a silent loss."""
    try:
        return word in render(probe, schemas)
    except Exception:  # noqa: BLE001 - see `Render`
        return None


def _word(number: int) -> str:
    return f"{PROBE_WORD}{number}x"


#: Stand for the parts of a tool that a model must see: name, description, parameter and its description.
_TOOL_WORDS = frozenset({_word(0), _word(1), _word(2), _word(3)})
_PARAMETER_WORDS = frozenset({_word(2), _word(3)})
_TOLD_TOOL: JSONObject = {
    "type": "function",
    "function": {
        "name": _word(0),
        "description": f"{_word(1)}.",
        "parameters": {
            "type": "object",
            "properties": {_word(2): {"type": "string", "description": f"{_word(3)}."}},
            "required": [_word(2)],
        },
    },
}
_ASK: JSONObject = {"role": "user", "content": "Ask."}
_ANSWER: JSONObject = {"role": "assistant", "content": "Well."}
_RULES: JSONObject = {"role": "system", "content": "Be."}
#: Some templates show tools only with a system message, only without one, or only at the first user message.
_TOOL_PROBES = (
    [_ASK],
    [_RULES, _ASK],
    [_RULES, _ASK, _ANSWER, _ASK],
    called("first"),
    [_RULES, *called("first"), _ANSWER, _ASK],
)


def _tool_place_of(render: Render, needed: tuple[Rewrite, ...]) -> ToolPlace:
    lost = _lost_of_tool(render, _TOLD_TOOL)
    if not lost:
        return ToolPlace.TEMPLATE
    if lost <= _PARAMETER_WORDS and not _lost_of_tool(render, described_by_schema(_TOLD_TOOL)):
        return ToolPlace.DESCRIPTION
    text = tools_text([_TOLD_TOOL])
    for probe in _TOOL_PROBES:
        told = tools_as_text(with_system_text(probe, text))
        for rewrite in needed:
            told = rewrite.apply(told)
        if not any(_shows(render, attempt, text) for attempt in attempts(told)):
            return ToolPlace.NOWHERE
    return ToolPlace.SYSTEM


def _lost_of_tool(render: Render, tool: JSONObject) -> frozenset[str]:
    """The tool's words that are missing from a rendered probe; all of them if the template refuses all probes."""
    lost: frozenset[str] | None = None
    for probe in _TOOL_PROBES:
        try:
            text = render(probe, [tool, PROBE_TOOL])
        except Exception:  # noqa: BLE001, S112 - see `Render`
            continue
        missing = frozenset(word for word in _TOOL_WORDS if word not in text)
        lost = missing if lost is None else lost | missing
    return _TOOL_WORDS if lost is None else lost


def _shows(render: Render, messages: Messages, text: str) -> bool:
    try:
        return text in render(messages, [])
    except Exception:  # noqa: BLE001 - see `Render`
        return False


def _notes(render: Render, place: ToolPlace, needed: tuple[Rewrite, ...]) -> Iterator[str]:
    match place:
        case ToolPlace.DESCRIPTION:
            yield "writes no parameters of tools: they go into the tool's description"
        case ToolPlace.SYSTEM:
            yield "knows no tools: they go into the system message, calls and results are text"
        case ToolPlace.NOWHERE:
            yield "has no place for tools: requests with tools are refused"
    yield from dict.fromkeys(f"{rewrite.note}: rewritten" for rewrite in needed if rewrite.note)
    thought: Messages = [_ASK, {**_ANSWER, **dict.fromkeys(REASONING_KEYS, PROBE_WORD)}, _ASK]
    if _carries(render, thought, []) is False:
        yield "leaves out the reasoning of earlier turns: kept so, as its authors meant it"


# The check of a shape -------------------------------------------------------------------------------------------------


def _marked(messages: Messages) -> tuple[Messages, dict[str, str]]:
    """The conversation with a unique word in place of every text, and the field of the request for each word."""
    words: dict[str, str] = {}
    names: dict[str, tuple[str, str]] = {}

    def mark(place: str) -> str:
        word = _word(len(words))
        words[word] = place
        return word

    marked = []
    for at, message in enumerate(messages):
        changed = dict(message)
        if message["content"].strip():
            changed["content"] = mark(f"messages[{at}].content")
        if message.get("name"):
            name, word = names.get(message.get("tool_call_id", ""), ("", ""))
            changed["name"] = word if name == message["name"] else mark(f"messages[{at}].name")
        if message.get("tool_calls"):
            place = f"messages[{at}].tool_calls[{{}}].function"
            changed["tool_calls"] = [
                {**call, "function": _marked_function(call["function"], mark, place.format(number))}
                for number, call in enumerate(message["tool_calls"])
            ]
            called_as = zip(message["tool_calls"], changed["tool_calls"], strict=True)
            names |= {call["id"]: (call["function"]["name"], other["function"]["name"]) for call, other in called_as}
        marked.append(changed)
    return marked, words


def _marked_function(function: JSONObject, mark: Callable[[str], str], place: str) -> JSONObject:
    name, arguments = mark(f"{place}.name"), function["arguments"]
    if isinstance(arguments, dict):
        word = mark(f"{place}.arguments") if arguments else ""
        return {"name": name, "arguments": dict.fromkeys(arguments, word)}
    return {"name": name, "arguments": mark(f"{place}.arguments") if arguments.strip() else arguments}


def _missing(words: dict[str, str], render: Callable[[], str]) -> list[str]:
    """Fields whose words are missing from the rendered text; none if the template refuses the marked messages."""
    try:
        text = render()
    except Exception:  # noqa: BLE001 - see `Render`
        return []
    return [place for word, place in words.items() if word not in text]


def _shape_of(messages: Messages) -> Hashable:
    """What templates branch on: roles, which fields are set, adjacent messages, and the rough number of messages."""
    kinds = [_kind_of(message) for message in messages]
    neighbours = frozenset(zip([None, *kinds], kinds, [*kinds[1:], None], strict=False))
    return len(messages).bit_length(), neighbours


def _kind_of(message: JSONObject) -> Hashable:
    calls = message.get("tool_calls", ())
    given = tuple(bool(message.get(key)) for key in ("content", "name", "tool_call_id", *REASONING_KEYS))
    return message["role"], given, min(len(calls), 2), any(isinstance(c["function"]["arguments"], str) for c in calls)
