"""Compressed bodies: decoded in bounded slices, and refused with a reason where they cannot be."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from periscope.api.content_coding import DecodedBody, coding_of
from periscope.api.errors import ContentCodingRefused
from periscope.api.replies import dump_json
from periscope.errors import InvalidRequest
from tests.api.driving import HELLO, FakeBackend, client_of, error_of, in_loop

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def deflate_raw(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


ENCODERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", deflate_raw),
    "zstd": ("zstd", zstd.compress),
}


async def decoded(coding: str, *pieces: bytes) -> list[bytes]:
    """The slices of a body that comes in these pieces."""
    coming: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    coming += [{"type": "http.request", "body": b"", "more_body": False}, {"type": "http.disconnect"}]

    async def receive() -> Message:
        return coming.pop(0)

    body, slices = DecodedBody(receive, coding), []
    while (message := await body())["more_body"]:
        slices.append(message["body"])
    assert (await body())["type"] == "http.disconnect"
    return slices


@given(st.sampled_from(sorted(ENCODERS)), st.binary(max_size=200), st.integers(0, 300))
def test_any_body_in_any_pieces_comes_out_as_it_was(name: str, data: bytes, cut: int) -> None:
    """Whatever the coding, the data and the cut."""
    coding, encode = ENCODERS[name]
    encoded = encode(data)
    assert b"".join(asyncio.run(decoded(coding, encoded[:cut], encoded[cut:]))) == data


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate", "zstd"])
def test_a_bomb_unfolds_slice_by_slice(name: str) -> None:
    """50 MB from a few kilobytes are never in memory at once."""
    coding, encode = ENCODERS[name]
    slices = asyncio.run(decoded(coding, encode(bytes(50_000_000))))
    assert sum(map(len, slices)) == 50_000_000
    assert max(map(len, slices)) <= 256 * 1024


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate", "zstd"])
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data[:-5], "cut off|not valid"),
        (lambda data: data + data, "behind its end|not valid"),
        (lambda data: b"{}" + data, "cut off|not valid"),
    ],
    ids=["cut off", "twice", "plain"],
)
def test_broken_data_is_the_clients_error(name: str, change: Callable[[bytes], bytes], told: str) -> None:
    """The coding is named, and what is wrong."""
    coding, encode = ENCODERS[name]
    with pytest.raises(InvalidRequest, match=told) as refused:
        asyncio.run(decoded(coding, change(encode(b"hello hello hello"))))
    assert f"{coding} data" in refused.value.message


def test_a_window_of_gigabytes_is_refused() -> None:
    """A frame of a few bytes cannot ask for that much memory."""
    stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    frame = stream.compress(bytes(1000)) + stream.flush()
    with pytest.raises(InvalidRequest, match="not valid zstd data"):
        asyncio.run(decoded("zstd", frame))


@pytest.mark.parametrize(("header", "coding"), [("", None), ("identity", None), ("GZIP", "gzip"), ("x-gzip", "gzip")])
def test_the_header_names_one_coding(header: str, coding: str | None) -> None:
    """In any case; `identity` is none."""
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", ["br", "gzip, zstd", "gzip, gzip", "aws-chunked", "x" * 1000])
def test_other_codings_are_refused_by_name(header: str) -> None:
    """415: the error names the header and what is supported."""
    with pytest.raises(ContentCodingRefused, match=r"Content-Encoding: .*gzip, deflate, zstd") as refused:
        coding_of(header)
    assert len(refused.value.message) < 250


@pytest.mark.parametrize("name", sorted(ENCODERS))
@in_loop
async def test_a_compressed_request_is_answered(name: str) -> None:
    """Through the whole app."""
    coding, encode = ENCODERS[name]
    async with client_of(FakeBackend()) as client:
        reply = await client.post(
            "/v1/chat/completions",
            content=encode(dump_json(HELLO)),
            headers={"content-encoding": name if name == "x-gzip" else coding},
        )
    assert reply.status_code == 200


@in_loop
async def test_a_coding_that_is_not_known_is_415_and_says_what_is() -> None:
    """Nothing of the body is read."""
    async with client_of(FakeBackend()) as client:
        reply = await client.post("/v1/chat/completions", content=b"x", headers={"content-encoding": "br"})
    assert reply.status_code == 415
    assert reply.headers["accept-encoding"] == "gzip, deflate, zstd"
    assert error_of(reply)["code"] == "unsupported_content_encoding"


@pytest.mark.parametrize("name", ["gzip", "zstd"])
@in_loop
async def test_limits_hold_for_what_is_decoded(name: str) -> None:
    """A body that is small on the wire and large behind it is a 413."""
    coding, encode = ENCODERS[name]
    body = encode(b'{"url": "' + b"A" * 2_000_000 + b'"}')
    async with client_of(FakeBackend(), max_body_bytes=1_000_000) as client:
        reply = await client.post("/v1/chat/completions", content=body, headers={"content-encoding": coding})
    assert reply.status_code == 413
    assert "1000000" in error_of(reply)["message"]
