"""A tool call between its markers, while it is open. Pure; knows only the text of the call."""

from __future__ import annotations

from periscope.core import ToolCallStyle
from periscope.parsing.call_reader import CallReader, ReadOpening, json_opening, mistral_opening
from periscope.parsing.contracts import CallCounter, Delta
from periscope.parsing.json_scan import JSONScanner

#: Styles whose calls can be read while they are generated. Others are read when they are complete.
_OPENINGS: dict[ToolCallStyle, ReadOpening] = {
    ToolCallStyle.HERMES: json_opening,
    ToolCallStyle.MISTRAL: mistral_opening,
}


class OpenCall:
    """Owns the text of one open call that has not been emitted, and the reader of the rest.

    Args:
        marker: the marker that opened it.
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
        """Whether it has ended without a marker."""
        return not self._has_end and self.is_whole

    @property
    def is_in_string(self) -> bool:
        """Whether the next character is inside a JSON string, where no marker counts."""
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
        """Takes more text and returns how much of it belongs to the call."""
        end = len(text)
        if self._reader is not None and self._reader.is_reading:
            end = self._reader.feed(text, 0, len(text))
        if not self.is_over:
            end = len(text)  # text between the arguments and the end marker is dropped
        if self._is_json:
            self._scanner.feed_all(text[:end])
        if not self.has_begun:
            self._pieces.append(text[:end])
        return end
