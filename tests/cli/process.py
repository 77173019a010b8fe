"""`periscope` as a real process: started, read line by line with a timeout, stopped by signals."""

from __future__ import annotations

import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

#: Generous: the machine may be busy with other things.
TIMEOUT_S = 120.0
#: A shell starts what runs in its background with SIGINT ignored, children inherit that, and Python then leaves it so.
#: What a test starts gets its signals from the test instead: this sets SIGINT and becomes the program that was meant.
_LAUNCHER = (
    "import os, signal, sys\n"
    "signal.signal(signal.SIGINT, signal.Handlers(int(sys.argv[1])))\n"
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])\n"
)


def environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours, without the settings of whoever runs the tests, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PERISCOPE_")}
    ours = {"HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "PERISCOPE_CAPTION_CACHE__PERSIST": "false"}
    ours["PERISCOPE_PROMPT_CACHE__PERSIST"] = "false"
    ours["PERISCOPE_HOME"] = os.environ["PERISCOPE_HOME"]
    return {**kept, **ours, **(changes or {})}


def new_home() -> str:
    """A folder for the state and the log of one server, which goes with the tests.

    All that it finds of earlier servers is what transformers takes half a second to find in its own files.
    """
    homes = Path(os.environ["PERISCOPE_HOME"])
    home = Path(tempfile.mkdtemp(dir=homes))
    if (kept := next(homes.glob("*/state/imports.json"), None)) is not None:
        (home / "state").mkdir(mode=0o700)
        shutil.copy(kept, home / "state")
    return str(home)


def free_port() -> str:
    """A port that nobody listens on at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return str(taken.getsockname()[1])


def run_command(
    *arguments: str, stdin: str = "", changes: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    command = [sys.executable, "-m", "periscope", *arguments]
    return subprocess.run(  # noqa: S603 - our own program
        command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, env=environment(changes)
    )


class CommandProcess:
    """Owns one running command and what it has written so far.

    Args:
        on_sigint: what SIGINT does to it at first: `SIG_DFL`, as in a terminal, or `SIG_IGN`, as in the background.
    """

    def __init__(
        self,
        *arguments: str,
        changes: Mapping[str, str] | None = None,
        on_sigint: signal.Handlers = signal.Handlers.SIG_DFL,
    ) -> None:
        launcher = [sys.executable, "-c", _LAUNCHER, str(int(on_sigint))]
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [*launcher, "-m", "periscope", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(changes),
        )
        self.seen: list[str] = []
        self._pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        pipes = (self.process.stdout.fileno(), self.process.stderr.fileno())
        self._readers = [threading.Thread(target=self._read, args=(pipe,), daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.process.stdout.close()
        self.process.stderr.close()

    @property
    def output(self) -> str:
        """Everything that was read, stdout and stderr as they came."""
        self._drain()
        return "".join(self.seen)

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Reads on until the pattern stands in the output."""
        while (found := re.search(pattern, "".join(self.seen))) is None:
            piece = self._pieces.get(timeout=TIMEOUT_S)
            assert piece is not None, f"ended without {pattern!r}:\n{self.output}"
            self.seen.append(piece)
        return found

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        """Its exit status."""
        code = self.process.wait(TIMEOUT_S)
        for reader in self._readers:
            reader.join(TIMEOUT_S)
        return code

    def _read(self, pipe: int) -> None:
        for piece in _pieces_of(pipe):
            self._pieces.put(piece)
        self._pieces.put(None)

    def _drain(self) -> None:
        while not self._pieces.empty():
            self.seen.append(self._pieces.get() or "")


class ServeProcess(CommandProcess):
    """`periscope serve`, in a home of its own unless it is given one."""

    def __init__(
        self, *arguments: str, home: str | None = None, on_sigint: signal.Handlers = signal.Handlers.SIG_DFL
    ) -> None:
        super().__init__("serve", *arguments, changes={"PERISCOPE_HOME": home or new_home()}, on_sigint=on_sigint)

    @property
    def url(self) -> str:
        """Known as soon as it listens."""
        return self.wait_for(r"listening on (https?://\S+|unix:\S+)")[1]

    def wait_until_ready(self) -> str:
        """Its ready line."""
        return self.wait_for(r"Periscope is ready on .*\n")[0].strip()

    def terminate(self) -> int:
        """SIGTERM, as launchd sends it; the exit status."""
        self.signal(signal.SIGTERM)
        return self.wait()


def _pieces_of(pipe: int) -> Iterable[str]:
    while data := os.read(pipe, 65536):
        yield data.decode("utf-8", errors="replace")
