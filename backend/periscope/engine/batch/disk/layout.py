"""How the caches of one sequence lie in a file: as named arrays in pieces, and a tree that says where each belongs.

Arrays of plain caches are stored token by token, `(num_tokens, heads, head_dim)`, so that the first tokens of a state
are the first bytes of each array; all others are stored as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from periscope.core import JSONObject
from periscope.engine.device.memory import flat

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches

#: Bytes that are written or read at a time: a few milliseconds.
PIECE_BYTES = 4 * 2**20
#: Caches that hold one line for each token, by name, and where their `state` has the number of tokens.
_BY_TOKEN = {"KVCache": 2, "QuantizedKVCache": 2, "QuantizedCache": 2}
#: The names that safetensors has for types, MLX's type, and the type of NumPy that has its size.
_DTYPES: dict[str, tuple[mx.Dtype, type[np.unsignedinteger[Any]]]] = {
    "F32": (mx.float32, np.uint32),
    "F16": (mx.float16, np.uint16),
    "BF16": (mx.bfloat16, np.uint16),
    "U8": (mx.uint8, np.uint8),
    "U32": (mx.uint32, np.uint32),
    "I32": (mx.int32, np.uint32),
    "I64": (mx.int64, np.uint64),
}
_NAMES = {dtype: name for name, (dtype, _) in _DTYPES.items()}


class NotStorable(Exception):
    """These caches cannot be written to a file; says why."""


@dataclass(frozen=True, slots=True)
class Part:
    """One array of a state.

    Attributes:
        shape: as it is stored.
        is_by_token: its first axis is the tokens; in the cache it is the axis before the last.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    is_by_token: bool

    @property
    def num_rows(self) -> int:
        """How many rows pieces are cut from: tokens, or single numbers."""
        return self.shape[0] if self.is_by_token else math.prod(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        row = self.shape[1:] if self.is_by_token else ()
        return math.prod(row) * _DTYPES[self.dtype][0].size

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return self.num_rows * self.row_bytes

    def pieces(self, num_rows: int | None = None) -> Iterator[tuple[int, int]]:
        """First row and the one after the last of each piece; of those pieces that hold the first `num_rows`."""
        step = max(1, PIECE_BYTES // max(self.row_bytes, 1))
        for start in range(0, self.num_rows if num_rows is None else min(num_rows, self.num_rows), step):
            yield start, min(start + step, self.num_rows)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a file holds of a state.

    Attributes:
        layers: of each cache object its class and the tree of its `state`.
        is_trimmable: the whole state can be trimmed to any length.
    """

    num_tokens: int
    parts: tuple[Part, ...]
    layers: tuple[JSONObject, ...]
    is_trimmable: bool

    @property
    def may_be_cut(self) -> bool:
        """Whether the first tokens can be read without the rest."""
        return all(part.is_by_token for part in self.parts)

    def nbytes(self, num_tokens: int) -> int:
        """Bytes of the arrays of the first `num_tokens` tokens, as far as they can be read without the rest."""
        if not self.may_be_cut:
            return sum(part.nbytes for part in self.parts)
        return num_tokens * sum(part.row_bytes for part in self.parts)


def layout_of(caches: LayerCaches, num_tokens: int, *, is_trimmable: bool) -> Layout:
    """The layout of a state that holds `num_tokens` tokens.

    Raises:
        NotStorable: a cache holds something that a file cannot.
    """
    parts: list[Part] = []
    layers = []
    for number, cache in enumerate(flat(caches)):
        name = type(cache).__name__
        counted = _BY_TOKEN.get(name)
        if counted is not None and cache.state[counted] != num_tokens:
            raise NotStorable(f"a {name} of {cache.state[counted]} tokens in a state of {num_tokens}")
        tree = _tree(cache.state, str(number), parts, counted=counted, num_tokens=num_tokens)
        layers.append({"class": name, "state": tree})
    return Layout(num_tokens, tuple(parts), tuple(layers), is_trimmable)


def _tree(value: Any, name: str, parts: list[Part], *, counted: int | None, num_tokens: int) -> Any:
    if isinstance(value, mx.array):
        if value.dtype not in _NAMES:
            raise NotStorable(f"an array of {value.dtype}")
        shape = tuple(value.shape)
        if counted is not None:
            if len(shape) != 4 or shape[0] != 1:
                raise NotStorable(f"an array of shape {shape} in a plain cache")
            shape = (num_tokens, shape[1], shape[3])
        parts.append(Part(name, _NAMES[value.dtype], shape, counted is not None))
        return {"array": len(parts) - 1}
    if isinstance(value, (list, tuple)):
        return [
            {"num_tokens": True}
            if counted is not None and index == counted and "." not in name
            else _tree(each, f"{name}.{index}", parts, counted=counted, num_tokens=num_tokens)
            for index, each in enumerate(value)
        ]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise NotStorable(f"a {type(value).__name__} in the state of a cache")


def array_at(caches: LayerCaches, name: str) -> mx.array:
    """The array of a state that a part is named after."""
    layer, *path = (int(number) for number in name.split("."))
    value = list(flat(caches))[layer].state
    for index in path:
        value = value[index]
    found: mx.array = value
    return found


def piece_of(caches: LayerCaches, part: Part, start: int, stop: int) -> memoryview:
    """The bytes of some rows of a part; blocks until they are computed."""
    array = array_at(caches, part.name)
    rows = array[0, :, start:stop].transpose(1, 0, 2) if part.is_by_token else array.reshape(-1)[start:stop]
    return np.asarray(mx.contiguous(rows).view(mx.uint8)).reshape(-1).data


def array_from(part: Part, data: np.ndarray, num_rows: int) -> mx.array:
    """The array of a cache, evaluated, from the bytes of the first `num_rows` rows of its part or more."""
    dtype, plain = _DTYPES[part.dtype]
    stored = mx.array(data[: num_rows * part.row_bytes].view(plain)).view(dtype)
    if part.is_by_token:
        stored = mx.contiguous(stored.reshape(num_rows, *part.shape[1:]).transpose(1, 0, 2)[None])
    else:
        stored = stored.reshape(part.shape)
    mx.eval(stored)
    return stored


def fill(caches: LayerCaches, layout: Layout, arrays: Sequence[mx.array], num_tokens: int) -> None:
    """Give new caches of a model the state of a file.

    Raises:
        ValueError: they are other caches than those that the file was written of.
    """
    leaves = list(flat(caches))
    if [type(cache).__name__ for cache in leaves] != [layer["class"] for layer in layout.layers]:
        raise ValueError("it holds other caches than this model's")
    for cache, layer in zip(leaves, layout.layers, strict=True):
        cache.state = _value(layer["state"], arrays, num_tokens)


def _value(tree: Any, arrays: Sequence[mx.array], num_tokens: int) -> Any:
    if isinstance(tree, list):
        return [_value(each, arrays, num_tokens) for each in tree]
    if isinstance(tree, dict):
        return num_tokens if "num_tokens" in tree else arrays[tree["array"]]
    return tree


def shape_of(caches: LayerCaches) -> list[Any]:
    """Pure: what tells the caches of one configuration from those of another: classes, windows, bits. Of empty ones."""
    return [[type(cache).__name__, repr(cache.state)] for cache in flat(caches)]
