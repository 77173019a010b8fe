"""periscope.sync in processes of its own: Ctrl-C, and programs that forget to close."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.library.conftest import DEMO

PATIENCE_S = 120
FORGETFUL = """
from periscope.sync import Periscope
print(Periscope("models.yaml").start().chat("Hello!").text)
"""
INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run as a job in the background
from periscope import GenerationParams
from periscope.sync import Periscope
async def num_requests():
    return len(periscope._inner.runtime.control.requests())
with Periscope("models.yaml") as periscope:
    long = GenerationParams(max_tokens=4000, ignore_eos=True)
    try:
        for event in periscope.stream("Hello!", params=long):
            print("streams", flush=True)
            periscope.chat("Hello!", params=long)
    except KeyboardInterrupt:
        print(periscope._running.run(num_requests()), periscope.chat("Hello!").text)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.yaml").write_text(DEMO)
    return tmp_path


def start(program: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", program],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def test_a_program_that_closes_nothing_ends(folder: Path) -> None:
    """Without a word on stderr."""
    with start(FORGETFUL, folder) as process:
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out[:6], err) == (0, "Hello!", "")


def test_ctrl_c_cancels_the_call_that_waits(folder: Path) -> None:
    """The chat and the stream around it are gone when the interrupt is raised, and the next call is answered."""
    with start(INTERRUPTED, folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "streams\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, out[:8], err) == (0, "0 Hello!", "")
