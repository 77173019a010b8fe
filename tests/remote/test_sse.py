"""The reader of server-sent events, against what the HTML standard says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.errors import RemoteAnswerBroken
from periscope.remote.sse import ServerSentEvent, SSEDecoder


def read(*pieces: bytes) -> list[ServerSentEvent]:
    decoder = SSEDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


#: What is sent, and what an EventSource would dispatch.
CASES: dict[str, tuple[bytes, list[ServerSentEvent]]] = {
    "one event": (b"data: a\n\n", [ServerSentEvent("a")]),
    "CRLF": (b"data: a\r\n\r\ndata: b\r\n\r\n", [ServerSentEvent("a"), ServerSentEvent("b")]),
    "CR": (b"data: a\r\rdata: b\r\r", [ServerSentEvent("a"), ServerSentEvent("b")]),
    "mixed line ends": (b"data: a\r\ndata: b\rdata: c\n\r\n", [ServerSentEvent("a\nb\nc")]),
    "several data lines": (b"data: a\ndata\ndata: b\n\n", [ServerSentEvent("a\n\nb")]),
    "no space, two spaces": (b"data:a\n\ndata:  b\n\n", [ServerSentEvent("a"), ServerSentEvent(" b")]),
    "a colon in the value": (b"data: a: b\n\n", [ServerSentEvent("a: b")]),
    "comments": (b": hi\n:\ndata: a\n: within\n\n:\n\n", [ServerSentEvent("a")]),
    "an event without data": (b"event: x\nid: 1\n\ndata: a\n\n", [ServerSentEvent("a")]),
    "empty data": (b"data\n\ndata:\n\n", [ServerSentEvent(""), ServerSentEvent("")]),
    "a type": (b"event: x\ndata: a\n\ndata: b\n\n", [ServerSentEvent("a", "x"), ServerSentEvent("b")]),
    "ids and reconnection times": (
        b"id: 7\nretry: 3000\ndata: a\n\nid\ndata: b\n\n",
        [ServerSentEvent("a"), ServerSentEvent("b")],
    ),
    "unknown fields": (b"Data: x\n data: y\nfoo\ndata: a\n\n", [ServerSentEvent("a")]),
    "a byte order mark": (b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n", [ServerSentEvent("a")]),
    "an event that is cut off": (b"data: a\n\ndata: b\n", [ServerSentEvent("a")]),
    "no event": (b"", []),
    "line ends of Unicode only": (
        "data: a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\n\n".encode(),
        [ServerSentEvent("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg")],
    ),
    "bytes that are no UTF-8": (b"data: a\xffb\n\n", [ServerSentEvent("a\ufffdb")]),
}


@pytest.mark.parametrize(("sent", "events"), CASES.values(), ids=CASES)
def test_streams_are_read_as_the_standard_says(sent: bytes, events: list[ServerSentEvent]) -> None:
    """Lines end at CR, LF and CRLF alone, and fields, comments and types mean what they mean in a browser."""
    assert read(sent) == events


@given(
    st.lists(
        st.sampled_from(
            [
                b"data: ",
                b"data",
                b":",
                b"a",
                "\u20ac".encode(),
                b"\r",
                b"\n",
                b"\r\n",
                b"\n\n",
                b"id: 1",
                b"\xef\xbb\xbf",
            ]
        ),
        max_size=30,
    ),
    st.data(),
)
def test_it_does_not_matter_where_a_stream_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    """Whatever pieces the network delivers, byte by byte or cut inside a character, the events are the same."""
    sent = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    bounds = list(zip([0, *cuts], [*cuts, len(sent)], strict=True))
    assert read(*(sent[start:end] for start, end in bounds)) == read(sent)
    assert read(*(sent[i : i + 1] for i in range(len(sent)))) == read(sent)


def test_an_event_comes_with_its_last_byte() -> None:
    """A lone carriage return ends a line at once; the line feed that may follow it ends no second one."""
    decoder = SSEDecoder()
    assert decoder.feed(b"data: a\r\n\r") == [ServerSentEvent("a")]
    assert decoder.feed(b"\ndata: b\n\n") == [ServerSentEvent("b")]


@pytest.mark.parametrize("piece", [b"data: 0123456789a\n", b"x" * 17])
def test_an_event_that_never_ends_is_given_up(piece: bytes) -> None:
    """Neither one endless line nor endlessly many of them fill the memory; comments and other events do not count."""
    decoder = SSEDecoder(max_event_bytes=64)
    for _ in range(100):
        decoder.feed(b": keep-alive 0123456789\n")
        decoder.feed(b"data: 0123456789\n\n")
    for _ in range(64 // 17):
        decoder.feed(piece)
    with pytest.raises(RemoteAnswerBroken, match="more than 64 bytes"):
        decoder.feed(piece)
