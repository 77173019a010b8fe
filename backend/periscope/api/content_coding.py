"""Compressed request bodies (`Content-Encoding`), decoded in bounded slices, so that a bomb takes no memory."""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from periscope.api.errors import ContentCodingRefused
from periscope.api.wording import clip
from periscope.errors import InvalidRequest

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from starlette.types import Message, Receive

#: Most decoded bytes that are passed on at a time.
_SLICE_BYTES = 256 * 1024
#: Bound of a frame's window, whatever the frame asks for (RFC 9659).
_ZSTD_WINDOW_LOG_MAX = 23
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS


class Decoder(Protocol):
    """Decodes one compressed stream."""

    def decode(self, data: bytes) -> bytes:
        """Decoded bytes, `_SLICE_BYTES` at most; what is left of `data` is kept.

        Raises:
            Exception: one of `_BROKEN`; the data is not valid.
        """
        ...

    @property
    def is_done(self) -> bool:
        """Whether the end of the stream was decoded."""
        ...

    @property
    def unused(self) -> bytes:
        """Bytes after the end of the stream."""
        ...


class _Zlib:
    """gzip, and deflate with or without zlib's frame: clients send either under that name."""

    def __init__(self, wbits: int | None) -> None:
        self._wbits = wbits
        self._stream = None if wbits is None else zlib.decompressobj(wbits)
        self._pending = b""

    def decode(self, data: bytes) -> bytes:
        data = self._pending + data
        if self._stream is None:
            if len(data) < 2:  # the frame's header
                self._pending = data
                return b""
            has_frame = data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB if has_frame else _RAW)
        out = self._stream.decompress(data, _SLICE_BYTES)
        self._pending = self._stream.unconsumed_tail
        return out

    @property
    def is_done(self) -> bool:
        return self._stream is not None and self._stream.eof

    @property
    def unused(self) -> bytes:
        return b"" if self._stream is None else self._stream.unused_data


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG_MAX})

    def decode(self, data: bytes) -> bytes:
        return b"" if self._stream.eof else self._stream.decompress(data, _SLICE_BYTES)

    @property
    def is_done(self) -> bool:
        return self._stream.eof

    @property
    def unused(self) -> bytes:
        return self._stream.unused_data if self._stream.eof else b""


_BROKEN = (zlib.error, zstd.ZstdError)
_DECODERS: Mapping[str, Callable[[], Decoder]] = {
    "gzip": lambda: _Zlib(_GZIP),
    "deflate": lambda: _Zlib(None),
    "zstd": _Zstd,
}
#: The old name, which RFC 9110 keeps.
_ALIASES = {"x-gzip": "gzip"}
_SUPPORTED = ", ".join(_DECODERS)


def coding_of(header: str) -> str | None:
    """Pure: the one coding that a `content-encoding` names; None for a body without one.

    Raises:
        ContentCodingRefused: it names several, or an unknown one.
    """
    named = [name for part in header.lower().split(",") if (name := part.strip()) not in ("", "identity")]
    if not named:
        return None
    coding = _ALIASES.get(named[0], named[0])
    if len(named) > 1 or coding not in _DECODERS:
        raise ContentCodingRefused(
            f"The header `Content-Encoding: {clip(header)}` is not supported. Send the body plain, or under one of "
            f"{_SUPPORTED}.",
            supported=_SUPPORTED,
        )
    return coding


class DecodedBody:
    """ASGI `receive` that returns the decoded body, slice by slice. Owns the decoder.

    Raises:
        InvalidRequest: the data is invalid, cut off, or continues after its end.
    """

    def __init__(self, receive: Receive, coding: str) -> None:
        self._receive = receive
        self._coding = coding
        self._decoder = _DECODERS[coding]()
        self._num_raw_bytes = 0
        self._has_more = True
        self._is_over = False

    async def __call__(self) -> Message:
        """The next slice; after the end, the server's next message (a disconnect)."""
        if self._is_over:
            return await self._receive()
        data = b""
        while not (slice_ := self._decode(data)):
            if not self._has_more:
                return self._end()
            message = await self._receive()
            if message["type"] != "http.request":
                return message
            data = message.get("body", b"")
            self._num_raw_bytes += len(data)
            self._has_more = message.get("more_body", False)
        await asyncio.sleep(0)  # a small body may hold a thousand slices, so other tasks run in between
        return {"type": "http.request", "body": slice_, "more_body": True}

    def _decode(self, data: bytes) -> bytes:
        try:
            slice_ = self._decoder.decode(data)
        except _BROKEN as error:
            raise InvalidRequest(f"The body is not valid {self._coding} data: {clip(str(error), 200)}.") from None
        if self._decoder.unused:
            raise InvalidRequest(f"The body's {self._coding} data goes on behind its end. Send it as one stream.")
        return slice_

    def _end(self) -> Message:
        if self._num_raw_bytes and not self._decoder.is_done:
            raise InvalidRequest(f"The body's {self._coding} data is cut off: its end is missing.")
        self._is_over = True
        return {"type": "http.request", "body": b"", "more_body": False}
