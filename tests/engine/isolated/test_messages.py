"""Messages through the pipe to a captioner's process arrive unchanged, and anything else is refused."""

from __future__ import annotations

import asyncio
import pickle

import pytest

from periscope import errors
from periscope.core import Image
from periscope.engine.config import EngineConfig
from periscope.engine.isolated.messages import (
    BrokenFrame,
    Describe,
    Failed,
    Load,
    Reply,
    Request,
    frame_of,
    next_message,
)


def received(*pieces: bytes) -> list[Request | Reply]:
    """The messages that a reader gets from a pipe with these pieces."""

    async def run() -> list[Request | Reply]:
        pipe = asyncio.StreamReader()
        for piece in pieces:
            pipe.feed_data(piece)
        pipe.feed_eof()
        messages = []
        while (message := await next_message(pipe)) is not None:
            messages.append(message)
        return messages

    return asyncio.run(run())


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


SPECIAL = [
    errors.ContextLengthExceeded(9, 8),
    errors.InputTooLong("why and what to do", param="input", num_tokens=9, limit=8),
    errors.MemoryExceeded(num_prompt_tokens=9, needed_bytes=9, available_bytes=8),
    errors.InvalidRequest("why", param="messages"),
    errors.FilesMissing("What is missing.", pulled="owner/model"),
    errors.FileInvalid("why and what to do", reason="it is broken", param="messages"),
    errors.VideoInvalid("why and what to do", reason="it is broken", param="messages"),
    errors.DocumentInvalid("why and what to do", reason="it is broken", param="messages"),
]
PLAIN = [
    kind("why and what to do")
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.PeriscopeError) and kind not in map(type, SPECIAL)
]


def test_messages_come_out_as_they_went_in() -> None:
    """However the pipe cuts them, equal messages arrive in order, with pixels and settings."""
    image = Image(bytes(range(12)), 2, 2, 4, 4, "digest")
    sent: list[Request | Reply] = [Load("some/model", EngineConfig(max_num_seqs=3)), Describe(7, image, "What?", 99)]
    data = b"".join(frame_of(message) for message in sent)
    assert received(*(data[i : i + 1] for i in range(len(data)))) == sent


@pytest.mark.parametrize("error", [*SPECIAL, *PLAIN], ids=lambda error: type(error).__name__)
def test_every_error_crosses_with_its_class_and_words(error: errors.PeriscopeError) -> None:
    """The error on one side equals the error on the other, including its attributes."""
    (message,) = received(frame_of(Failed.of(error, 3)))
    assert isinstance(message, Failed)
    crossed = message.error()
    assert type(crossed) is type(error)
    assert (str(crossed), vars(crossed), message.number) == (str(error), vars(error), 3)


@pytest.mark.parametrize(
    "data",
    [
        b"Downloading 100%\n",
        framed(b"no pickle"),
        framed(pickle.dumps("no message")),
        framed(pickle.dumps(print)),
        framed(frame_of(Load("m", EngineConfig()))[4:-9]),
    ],
    ids=["text", "noise", "another value", "a function", "a torn message"],
)
def test_bytes_that_are_not_a_message_are_refused(data: bytes) -> None:
    """Stray output and foreign pickles raise at once and create no object."""
    with pytest.raises(BrokenFrame):
        received(data)


@pytest.mark.parametrize("length", [0, 2, 4, 20])
def test_a_pipe_that_ends_anywhere_is_an_end(length: int) -> None:
    """A process that dies in the middle of a message has sent nothing."""
    assert received(frame_of(Load("some/model", EngineConfig()))[:length]) == []
