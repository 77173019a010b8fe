"""What crosses between the server and a captioner's own process: frozen data, each in a frame with its length.

Both sides run this very module. Pickle is safe here: the pipe is anonymous and leads only to a process that we started
as ourselves, and nothing but the classes of this module's table is made of what comes out of it. It guards against a
process that breaks, not against a model's code that means harm: that runs with the user's rights on either side.
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
#: Holds the largest picture that `max_side_px` allows. Four bytes of stray text are a larger number.
MAX_FRAME_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Load:
    """In, first and once: load this model."""

    model: str
    config: EngineConfig


@dataclass(frozen=True, slots=True)
class Describe:
    """In: describe this image. Answered exactly once under its number, by `Described`, `Failed` or `Dropped`.

    Before that it may be told that the image has `Begun`.
    """

    number: int
    image: Image
    prompt: str
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """In: nobody waits for this description any more."""

    number: int


@dataclass(frozen=True, slots=True)
class ReleaseMemory:
    """In: give back what is kept for speed alone."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Out: how far the load is."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """Out: the model is there."""

    path: str
    weights_bytes: int


@dataclass(frozen=True, slots=True)
class Begun:
    """Out: an image's turn has come; its answer follows."""

    number: int


@dataclass(frozen=True, slots=True)
class Described:
    """Out: an image's text."""

    number: int
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """Out: a cancelled description has left the batch."""

    number: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Out: an error of ours, taken apart, because not every class of them can be pickled.

    Attributes:
        number: of the description; None = the load.
    """

    number: int | None
    kind: type[PeriscopeError]
    args: tuple[str, ...]
    details: dict[str, object]

    @classmethod
    def of(cls, error: PeriscopeError, number: int | None = None) -> Failed:
        """An error as it can cross."""
        return cls(number, type(error), error.args, vars(error))

    def error(self) -> PeriscopeError:
        """The error as it was on the other side."""
        error = self.kind.__new__(self.kind, *self.args)
        vars(error).update(self.details)
        return error


Request: TypeAlias = Load | Describe | Cancel | ReleaseMemory
Reply: TypeAlias = Progress | Loaded | Begun | Described | Dropped | Failed

_MESSAGES = (Load, Describe, Cancel, ReleaseMemory, Progress, Loaded, Begun, Described, Dropped, Failed)
#: All that may come out of a frame, by module and name.
_CLASSES = {
    (kind.__module__, kind.__qualname__): kind
    for kind in (*_MESSAGES, Image, EngineConfig, *vars(errors).values())
    if isinstance(kind, type)
}


class BrokenFrame(Exception):
    """What came out of the pipe is no message."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        return _CLASSES[module, name]


def frame_of(message: Request | Reply) -> bytes:
    """Pure: a message as it goes into the pipe."""
    body = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


async def next_message(pipe: asyncio.StreamReader) -> Request | Reply | None:
    """The next message; None when the other side has closed its end, be it in the middle of one.

    Raises:
        BrokenFrame: what came is no message.
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
