"""A tool call between its model's markers, while it is open. Pure; knows its text, not the text around it."""

from __future__ import annotations

from periscope.core import ToolCallStyle
from periscope.parsing.call_reader import CallReader, ReadOpening, json_opening, mistral_opening
from periscope.parsing.contracts import CallCounter, Delta
from periscope.parsing.json_scan import JSONScanner

#: Styles whose calls can be read while they are written. The others are read when they are whole.
_OPENINGS: dict[ToolCallStyle, ReadOpening] = {
    ToolCallStyle.HERMES: json_opening,
    ToolCallStyle.MISTRAL: mistral_opening,
}


class OpenCall:
    """Owns the text of one open call that has not been emitted, and the reader of the rest.

    Args:
        marker: what opened it.
        has_end: a marker ends it. Otherwise a call that has begun ends with its arguments.
        events: where its events go.
    """

    def __init__(
        self, marker: str, style: ToolCallStyle, counter: CallCounter, events: list[Delta], *, has_end: bool
    ) -> None:
        self._pieces = [marker]
        self._has_end = has_end
        self._is_json = style is ToolCallStyle.HERMES
        self._scanner = JSONScanner()
        opening = _OPENINGS.get(style)
        self._reader = None if opening is None else CallReader(opening, counter, events)

    @property
    def has_begun(self) -> bool:
        """Whether the start of the call has been emitted."""
        return self._reader is not None and self._reader.has_begun

    @property
    def is_whole(self) -> bool:
        """Whether it has been emitted to its end, apart from a marker."""
        return self._reader is not None and self._reader.is_whole

    @property
    def is_over(self) -> bool:
        """Whether it has come to its end without a marker."""
        return not self._has_end and self.is_whole

    @property
    def is_in_string(self) -> bool:
        """Whether what comes next stands in a JSON string, where no marker counts."""
        return self._is_json and self._scanner.is_in_string

    @property
    def raw(self) -> str:
        """Marker and text so far of a call that has not begun."""
        return "".join(self._pieces)

    @property
    def body(self) -> str:
        """The call's text after its marker."""
        return "".join(self._pieces[1:])

    def take(self, text: str) -> int:
        """Takes more text; returns how much of it was the call's."""
        end = len(text)
        if self._reader is not None and self._reader.is_reading:
            end = self._reader.feed(text, 0, len(text))
        if not self.is_over:
            end = len(text)  # what stands between the arguments and the end marker says nothing
        if self._is_json:
            self._scanner.feed_all(text[:end])
        if not self.has_begun:
            self._pieces.append(text[:end])
        return end
