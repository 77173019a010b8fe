"""An assistant's turn that is left open: the prompt of an answer that goes on with text of the client's (prefill).

Two ways, because templates write an answer in places of their own and change what they write:

1. **In its place.** The template renders the conversation with a word in place of the answer's text; the prompt is what
   stands before that word, then the text as it is. So it stands where the template puts answers (behind an empty think
   block, in a channel), and nothing of it is trimmed. transformers' `continue_final_message` looks for the text itself,
   which templates that trim or split it have changed.
2. **Behind the opening** of a new turn: reasoning that is not complete, because templates write only complete blocks of
   it; and every answer that the first way loses or the template refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from periscope.engine.text.message_rewrites import REASONING_KEYS, Messages
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.core import JSONObject, OutputFormat
    from periscope.engine.text.template_fit import FittedChat, Render, TemplateFit

#: Stands for the text while the template renders. Only its last occurrence counts.
_PLACE: Final = "theanswergoesonhere"
#: Markers behind which models write reasoning on a line of its own.
_ON_A_LINE: Final = ("<think>", "<seed:think>")


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A rendered conversation whose last answer goes on.

    Attributes:
        in_reasoning: the text ends within a think block.
    """

    chat: FittedChat
    in_reasoning: bool


class TurnOpener:
    """Renders conversations that end with an open answer. Pure but for the template.

    Args:
        closed: renders a conversation with its last turn closed.
        opened: renders a conversation and opens a new turn of the assistant.
        output_format: how the model marks reasoning.
    """

    def __init__(self, fit: TemplateFit, closed: Render, opened: Render, output_format: OutputFormat) -> None:
        self._fit = fit
        self._closed = closed
        self._opened = opened
        self._start = output_format.think_start or ""
        self._end = output_format.think_end or ""

    def open(self, messages: Messages, schemas: list[JSONObject]) -> OpenTurn:
        """The conversation, whose last message is the assistant's and holds text or reasoning, with that left open.

        Raises:
            InvalidRequest: the template refuses it, or there is nothing but reasoning and the model has none.
        """
        *before, last = messages
        text, reasoning = last["content"], next((last[key] for key in REASONING_KEYS if last.get(key)), "")
        if self._start and text.lstrip().startswith(self._start):
            return self._behind_opening(before, schemas, text.lstrip())
        if not text:
            return self._behind_opening(before, schemas, self._thought(reasoning))
        in_place = self._in_place(messages, schemas, reasoning)
        if in_place is not None:
            return in_place
        thought = f"{self._thought(reasoning)}\n{self._end}\n\n" if reasoning and self._end else ""
        return self._behind_opening(before, schemas, thought + text)

    def _thought(self, reasoning: str) -> str:
        if not self._start:
            raise InvalidRequest(
                "The last message has reasoning and no text, but this model writes no reasoning that could go on. Give "
                "the message a text, or leave it out.",
                param="messages",
            )
        return f"{self._start}\n{reasoning}" if self._start in _ON_A_LINE else self._start + reasoning

    def _in_place(self, messages: Messages, schemas: list[JSONObject], reasoning: str) -> OpenTurn | None:
        """The first way; None if the template has no place for the answer, or leaves its reasoning out."""
        *before, last = messages
        try:
            chat = self._fit.fit([*before, {**last, "content": _PLACE}], schemas, self._closed, "closed")
        except InvalidRequest:
            return None
        head, place, _ = chat.text.rpartition(_PLACE)
        if not place or (self._end and reasoning.strip() not in head):
            return None
        return OpenTurn(replace(chat, text=head + last["content"]), self._is_open(head))

    def _behind_opening(self, before: Messages, schemas: list[JSONObject], text: str) -> OpenTurn:
        chat = self._fit.fit(before, schemas, self._opened)
        head = chat.text
        is_thought = bool(self._start) and text.startswith(self._start)
        if is_thought:
            empty_block = rf"{re.escape(self._start)}\s*{re.escape(self._end)}\s*\Z"
            head = re.sub(empty_block, "", head) if self._end else head
        if self._is_open(head):
            text = self._within_thought(head, text, is_thought=is_thought)
        in_reasoning = is_thought and bool(self._end) and self._end not in text
        return OpenTurn(replace(chat, text=head + text), in_reasoning)

    def _within_thought(self, head: str, text: str, *, is_thought: bool) -> str:
        """The text behind a think block that the template has opened: that of the block, or an answer that ends it."""
        if not is_thought:
            return f"\n{self._end}\n\n{text}"
        text = text.removeprefix(self._start)
        return text.lstrip("\n") if head.endswith("\n") else text

    def _is_open(self, head: str) -> bool:
        return bool(self._start) and head.rstrip().endswith(self._start)
