"""Server-sent events, as the HTML standard parses them: bytes in, events out. Knows no socket and no dialect.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

Written here instead of taken from httpx-sse (0.4.3), which does not bound what it buffers, dispatches events without
data, takes the charset from a header, and withholds an event whose last byte is a carriage return until more arrives.
httpx's own `aiter_lines` also splits at U+2028 and U+0085, which JSON strings may hold.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from periscope.errors import RemoteAnswerBroken

#: Of one event, its unfinished line included. Chunks of chat completions have a few hundred bytes.
MAX_EVENT_BYTES = 16 * 2**20

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerSentEvent:
    """One event that was dispatched.

    Attributes:
        data: the event's `data` fields, joined by newlines.
        event: its type.
    """

    data: str
    event: str = "message"


class SSEDecoder:
    """Owns what one stream has said of the event that is not complete yet; that event is dropped where a stream ends.

    Ids and reconnection times are not kept: nothing here connects to a stream again.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._head: bytes | None = b""  # the first bytes, until it is known whether they are a byte order mark
        self._line: list[bytes] = []  # pieces of the unfinished line
        self._is_after_cr = False
        self._num_bytes = 0  # of the unfinished event
        self._data: list[str] = []
        self._event = ""

    def feed(self, received: bytes) -> list[ServerSentEvent]:
        """The events that these bytes complete.

        Raises:
            RemoteAnswerBroken: one event is larger than `max_event_bytes`.
        """
        received = self._without_bom(received)
        if self._is_after_cr and received.startswith(b"\n"):
            received = received[1:]  # the second half of a CRLF, whose line the first half has ended
            self._is_after_cr = False
        if not received:
            return []
        self._is_after_cr = received.endswith(b"\r")
        *ended, unfinished = _LINE_END.split(received)
        events: list[ServerSentEvent] = []
        for piece in ended:
            self._keep(piece)
            line, self._line = b"".join(self._line), []
            if (event := self._end_line(line)) is not None:
                events.append(event)
        self._keep(unfinished)
        return events

    def _without_bom(self, received: bytes) -> bytes:
        if self._head is None:
            return received
        head = self._head + received
        if len(head) < len(_BOM) and _BOM.startswith(head):
            self._head = head
            return b""
        self._head = None
        return head.removeprefix(_BOM)

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._num_bytes += len(piece)
        if self._num_bytes > self._max_event_bytes:
            raise RemoteAnswerBroken(f"The server sent an event of more than {self._max_event_bytes} bytes.")
        self._line.append(piece)

    def _end_line(self, line: bytes) -> ServerSentEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.decode(errors="replace").partition(":")
        if name == "":  # a comment, which belongs to no event
            self._num_bytes -= len(line)
        else:
            self._set(name, value.removeprefix(" "))
        return None

    def _set(self, name: str, value: str) -> None:
        match name:
            case "data":
                self._data.append(value)
            case "event":
                self._event = value

    def _dispatch(self) -> ServerSentEvent | None:
        data, event = self._data, self._event
        self._data, self._event, self._num_bytes = [], "", 0
        return ServerSentEvent("\n".join(data), event or "message") if data else None
