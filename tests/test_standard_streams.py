"""Standard streams that never wait: what a full pipe takes, what is lost, and that it is told."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from periscope.standard_streams import UnwaitingFile, never_wait_for_readers

LINE = b"x" * 99 + b"\n"


class Pipe:
    """Owns a pipe, of which nothing is read until somebody asks for it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.reader, False)

    def read(self) -> bytes:
        pieces = []
        with suppress(BlockingIOError):
            while piece := os.read(self.reader, 65536):
                pieces.append(piece)
        return b"".join(pieces)

    def fill(self) -> int:
        """Write until nothing more is taken."""
        num_bytes = 0
        os.set_blocking(self.writer, False)
        with suppress(BlockingIOError):
            while True:
                num_bytes += os.write(self.writer, LINE)
        os.set_blocking(self.writer, True)
        return num_bytes


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for end in (pipe.reader, pipe.writer):
        with suppress(OSError):  # a test has closed it
            os.close(end)


def test_what_a_pipe_takes_is_written_whole(pipe: Pipe) -> None:
    """Messages longer than what a pipe takes at once, too."""
    file = UnwaitingFile(pipe.writer)
    long = b"y" * 30_000 + b"\n"
    assert [file.write(message) for message in (LINE, long, LINE)] == [100, 30_001, 100]
    assert pipe.read() == LINE + long + LINE


def test_messages_that_nobody_reads_are_dropped_whole_and_counted(pipe: Pipe) -> None:
    """The writer goes on at once; the message that had begun is completed, and the next tells of those in between."""
    file = UnwaitingFile(pipe.writer)
    num_filled = pipe.fill()
    huge = b"z" * 1_000_000 + b"\n"
    pipe_has_room = os.read(pipe.reader, 8192)
    assert file.write(huge) == len(huge)  # begun
    for _ in range(3):
        assert file.write(LINE) == len(LINE)  # dropped
    seen = b""
    while b"y" not in seen:  # the reader has come back
        seen += pipe.read()
        file.write(b"y\n")
    seen = seen[num_filled - len(pipe_has_room) :]
    assert seen.startswith(huge)
    told = seen[len(huge) :].splitlines()
    lost = int(told[0].split()[0].removeprefix(b"["))
    assert told[0] == b"[%d messages were lost here: nobody had read this output]" % lost
    assert lost >= 3
    assert set(told[1:]) == {b"y"}


def test_a_reader_that_is_gone_ends_nothing(pipe: Pipe) -> None:
    file = UnwaitingFile(pipe.writer)
    os.close(pipe.reader)
    assert file.write(LINE) == len(LINE)


def test_a_burst_is_no_loss_for_a_reader_that_reads(pipe: Pipe) -> None:
    """The pipe is full when a message comes, and its reader takes a moment."""
    num_filled, pieces = pipe.fill(), list[bytes]()
    file = UnwaitingFile(pipe.writer, grace_s=60)
    reader = threading.Timer(0.1, lambda: pieces.append(pipe.read()))
    reader.start()
    file.write(b"end\n")
    reader.join(60)
    assert (b"".join(pieces) + pipe.read())[num_filled:] == b"end\n"


def test_only_pipes_are_replaced(pipe: Pipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, and what is no file at all, stay; a pipe becomes a stream of lines for all that writes to it."""
    file = (tmp_path / "out").open("w")
    stream = os.fdopen(os.dup(pipe.writer), "w", encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", file)
    monkeypatch.setattr(sys, "stderr", stream)
    with file, stream:
        never_wait_for_readers("stdout", "stderr")
        assert sys.stdout is file
        assert sys.stderr is not stream
        assert sys.stderr.fileno() == stream.fileno()
        sys.stderr.write("größer")
        sys.stderr.write(" 1\n")
        assert pipe.read() == "größer 1\n".encode()
    never_wait_for_readers("stdout")  # closed
