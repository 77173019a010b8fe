"""The messages between the server and a captioner's process: frozen data, each in a frame that starts with its length.

Both sides run this module. Pickle is safe here: the pipe is anonymous and leads only to a process that we started as
the same user, and only classes of this module's table are unpickled. The table guards against a broken process, not
against malicious code in a model, which has the user's rights in either process.
"""

from __future__ import annotations

import asyncio
import io
import pickle
from dataclasses import dataclass
from typing import TypeAlias

from periscope import errors
from periscope.core import Image
from periscope.engine.config import EngineConfig
from periscope.errors import PeriscopeError

_LENGTH_BYTES = 4
#: Enough for the largest image that `max_side_px` allows. Four bytes of stray text, read as a length, exceed it.
MAX_FRAME_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    """Request, sent once and first: load this model."""

    model: str
    config: EngineConfig


@dataclass(frozen=True, slots=True)
class Describe:
    """Request: describe this image. Answered exactly once under its number, by `Described`, `Failed` or `Dropped`.

    `Started` may come before the answer.
    """

    number: int
    image: Image
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Request: cancel this description."""

    number: int


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """Request: free memory that is kept only for speed."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Reply: the progress of the load."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Reply: the model is loaded."""

    path: str
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Started:
    """Reply: work on an image has started."""

    number: int


@dataclass(frozen=True, slots=True)
class Described:
    """Reply: the description of an image."""

    number: int
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Reply: the row of a cancelled description has been removed from the batch."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Reply: a PeriscopeError, taken apart because not every subclass can be pickled.

    Attributes:
        number: the description that failed; None = the load.
    """

    number: int | None
    kind: type[PeriscopeError]
    args: tuple[str, ...]
    details: dict[str, object]

    @classmethod
    def of(cls, error: PeriscopeError, number: int | None = None) -> Failed:
        """Take an error apart."""
        return cls(number, type(error), error.args, vars(error))

    def error(self) -> PeriscopeError:
        """Rebuild the error that the other side raised."""
        error = self.kind.__new__(self.kind, *self.args)
        vars(error).update(self.details)
        return error


Request: TypeAlias = Load | Describe | Cancel | ReleaseMemory
Reply: TypeAlias = Progress | Loaded | Started | Described | Dropped | Failed

_MESSAGES = (Load, Describe, Cancel, ReleaseMemory, Progress, Loaded, Started, Described, Dropped, Failed)
#: The only classes that are unpickled, by module and name.
_CLASSES = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (*_MESSAGES, Image, EngineConfig, *vars(errors).values())
    if isinstance(kind, type)
}


class BrokenFrame(Exception):
    """The bytes in the pipe are not a message."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return _CLASSES[module, name]


def frame_of(message: Request | Reply) -> bytes:
    """Pure: encode a message with its length in front."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def next_message(pipe: asyncio.StreamReader) -> Request | Reply | None:
    """Read the next message; None if the other side has closed the pipe, even in the middle of a message.

    Raises:
        BrokenFrame: the bytes are not a message.
    """
    try:
        length = int.from_bytes(await pipe.readexactly(_LENGTH_BYTES), "big")
        if length > MAX_FRAME_BYTES:
            raise BrokenFrame(f"a frame of {length} bytes")
        body = await pipe.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None
    try:
        message = _Unpickler(io.BytesIO(body)).load()
    except Exception as error:  # noqa: BLE001 - a broken pickle raises anything
        raise BrokenFrame(f"a frame that cannot be read: {type(error).__name__}") from None
    if not isinstance(message, _MESSAGES):
        raise BrokenFrame(f"a frame with a {type(message).__name__} in it")
    return message
