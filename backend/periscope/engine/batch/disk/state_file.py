"""One kept state as a file: safetensors, with the tokens first and checksums of it all last.

Written and read in pieces, so that nobody waits long. A file is only ever seen whole: it has its name once all of it is
written. What is not as it should be is a `StateFileInvalid`, found by arithmetic before anything is read.
Source: https://github.com/huggingface/safetensors (the format).
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from periscope.engine.batch.disk.layout import Layout, Part, array_from, fill, piece_of

if TYPE_CHECKING:
    from periscope.core import JSONObject
    from periscope.engine.batch.prompt_cache import LayerCaches

#: Part of the identity of every file. Another way of writing gets another number.
FORMAT = "periscope-state-1"
_MAX_HEADER_BYTES = 8 * 2**20
_LENGTH_BYTES = 8
_ITEM_BYTES = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1, "U32": 4, "I32": 4, "I64": 8}


class StateFileInvalid(Exception):
    """The file is no state of this model, or is damaged; says what is wrong with it."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredState:
    """What is known of a file without its arrays.

    Attributes:
        tokens: `(num_tokens,)`, those of the state.
        data_at: where in the file the arrays begin.
        nbytes: size of the file.
    """

    path: Path
    tokens: np.ndarray
    layout: Layout
    data_at: int
    nbytes: int


def encode_header(key: str, tokens: np.ndarray, layout: Layout) -> tuple[bytes, int]:
    """The header of a file, and the size of the whole file in bytes."""
    tensors: dict[str, JSONObject] = {}
    end = 0

    def add(name: str, dtype: str, shape: Sequence[int]) -> None:
        nonlocal end
        begin, end = end, end + math.prod(shape) * _ITEM_BYTES[dtype]
        tensors[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}

    add("tokens", "I64", tokens.shape)
    for part in layout.parts:
        add(part.name, part.dtype, part.shape)
    add("crc32", "U32", (1 + sum(1 for _ in _all_pieces(layout)),))
    told = {
        "parts": [[part.name, part.is_by_token] for part in layout.parts],
        "layers": list(layout.layers),
        "is_trimmable": layout.is_trimmable,
    }
    metadata = {"format": FORMAT, "key": key, "state": json.dumps(told)}
    header = json.dumps({"__metadata__": metadata, **tensors}).encode()
    header += b" " * (-len(header) % _LENGTH_BYTES)
    return len(header).to_bytes(_LENGTH_BYTES, "little") + header, _LENGTH_BYTES + len(header) + end


def _all_pieces(layout: Layout) -> Iterator[tuple[Part, int, int]]:
    for part in layout.parts:
        for start, stop in part.pieces():
            yield part, start, stop


def write_pieces(
    file: IO[bytes], header: bytes, tokens: np.ndarray, layout: Layout, caches: Callable[[], LayerCaches | None]
) -> Generator[None, None, bool]:
    """Write a state, piece by piece; yields after each. Returns False if the state went away meanwhile.

    Args:
        file: empty and unbuffered.
        caches: the state, asked for at each piece, so that it is not kept in memory for this; None = it is gone.

    Raises:
        OSError: the file cannot be written.
    """
    head = header + np.ascontiguousarray(tokens, dtype="<i8").tobytes()
    sums = [zlib.crc32(head)]
    _write_all(file, head)
    yield
    for part, start, stop in _all_pieces(layout):
        state = caches()
        if state is None:
            return False
        piece = piece_of(state, part, start, stop)
        del state
        _write_all(file, piece)
        sums.append(zlib.crc32(piece))
        yield
    _write_all(file, np.asarray(sums, dtype="<u4").tobytes())
    return True


def _write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def read_header(path: Path, key: str) -> StoredState:
    """What a file holds, checked against its size; reads no arrays.

    Raises:
        StateFileInvalid: it is truncated, damaged, or not of this key.
        OSError: it cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if not 0 < length <= min(_MAX_HEADER_BYTES, size - _LENGTH_BYTES):
            raise StateFileInvalid("it has no header")
        try:
            stored = _stored(path, json.loads(file.read(length)), key, data_at=_LENGTH_BYTES + length, size=size)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise StateFileInvalid(f"its header cannot be understood ({type(error).__name__})") from None
        file.seek(size - _sums_bytes(stored.layout))
        expected = int.from_bytes(file.read(_ITEM_BYTES["U32"]), "little")
        file.seek(0)
        head = _read(file, stored.data_at + stored.layout.num_tokens * _ITEM_BYTES["I64"])
        if zlib.crc32(head) != expected:
            raise StateFileInvalid("its header or its tokens are damaged")
    stored.tokens[:] = np.frombuffer(head, dtype="<i8", offset=stored.data_at)
    return stored


def _sums_bytes(layout: Layout) -> int:
    return _ITEM_BYTES["U32"] * (1 + sum(1 for _ in _all_pieces(layout)))


def _stored(path: Path, header: JSONObject, key: str, *, data_at: int, size: int) -> StoredState:
    metadata = header["__metadata__"]
    if (metadata["format"], metadata["key"]) != (FORMAT, key):
        raise StateFileInvalid("it was written for another model, or by another version")
    told = json.loads(metadata["state"])
    (num_tokens,) = header["tokens"]["shape"]
    parts = tuple(
        _part(header, name, is_by_token=is_by_token, num_tokens=num_tokens) for name, is_by_token in told["parts"]
    )
    layout = Layout(num_tokens, parts, tuple(told["layers"]), told["is_trimmable"] is True)
    if num_tokens < 0 or num_tokens * _ITEM_BYTES["I64"] + sum(part.nbytes for part in parts) > size:
        raise StateFileInvalid("it is not as long as it says")
    expected, num_bytes = encode_header(key, np.empty(num_tokens, np.int64), layout)
    if num_bytes - len(expected) != size - data_at or json.loads(expected[_LENGTH_BYTES:]) != header:
        raise StateFileInvalid("it is not as long as it says")
    return StoredState(path, np.empty(num_tokens, np.int64), layout, data_at, size)


def _part(header: JSONObject, name: str, *, is_by_token: bool, num_tokens: int) -> Part:
    told = header[name]
    part = Part(name, told["dtype"], tuple(int(size) for size in told["shape"]), is_by_token is True)
    if part.dtype not in _ITEM_BYTES or min(part.shape, default=0) < 0:
        raise StateFileInvalid("it holds arrays of another kind")
    if part.is_by_token and (len(part.shape) != 3 or part.shape[0] != num_tokens):
        raise StateFileInvalid("its arrays are of another length than its tokens")
    return part


def read_pieces(
    stored: StoredState, num_tokens: int, new_caches: Callable[[], LayerCaches]
) -> Generator[None, None, LayerCaches]:
    """Read the first `num_tokens` tokens of a state, or all of it where it cannot be cut; yields after each piece.

    Raises:
        StateFileInvalid: a piece is damaged, or the caches are not this model's.
        OSError: the file is gone, or cannot be read.
    """
    layout = stored.layout
    if not layout.may_be_cut:
        num_tokens = layout.num_tokens
    arrays: list[mx.array] = []
    with stored.path.open("rb", buffering=0) as file:
        file.seek(stored.nbytes - _sums_bytes(layout) + 4)
        sums = np.frombuffer(_read(file, _sums_bytes(layout) - 4), dtype="<u4")
        at, num_before = stored.data_at + layout.num_tokens * _ITEM_BYTES["I64"], 0
        for part in layout.parts:
            num_rows = num_tokens if part.is_by_token else part.num_rows
            pieces = list(part.pieces(num_rows))
            data = np.empty(pieces[-1][1] * part.row_bytes if pieces else 0, np.uint8)
            file.seek(at)
            for number, (start, stop) in enumerate(pieces):
                piece = data.data[start * part.row_bytes : stop * part.row_bytes]
                _read_into(file, piece)
                if zlib.crc32(piece) != sums[num_before + number]:
                    raise StateFileInvalid("its arrays are damaged")
                yield
            arrays.append(array_from(part, data, num_rows))
            del data
            at += part.nbytes
            num_before += sum(1 for _ in part.pieces())
    caches = new_caches()
    try:
        fill(caches, layout, arrays, num_tokens)
    except (ValueError, TypeError, LookupError) as error:
        raise StateFileInvalid(str(error)) from None
    return caches


def _read(file: IO[bytes], num_bytes: int) -> bytes:
    data = bytearray(num_bytes)
    _read_into(file, memoryview(data))
    return bytes(data)


def _read_into(file: Any, data: memoryview) -> None:
    while data:
        num_bytes = file.readinto(data)
        if not num_bytes:
            raise StateFileInvalid("it ends too soon")
        data = data[num_bytes:]
