"""A real server in a process of its own, with the embedded demo pair, as `make serve` starts it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest

from tests.cli.process import new_home

READY = re.compile(r"ready on (http://[\d.]+:\d+)/v1")
START_TIMEOUT_S = 180
#: The server itself ends within 30 s of its own time.
STOP_TIMEOUT_S = 180


@dataclass
class RunningServer:
    """Owns the process. `url` has no path."""

    process: subprocess.Popen[str]
    url: str
    reading: threading.Thread

    def stop(self) -> int:
        """SIGTERM, as launchd sends it; the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOP_TIMEOUT_S)
        self.reading.join(STOP_TIMEOUT_S)
        return status


def start_server(
    config: Path | None = None,
    *,
    log: Path,
    program: Sequence[str] = (sys.executable, "-m", "periscope"),
    changes: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> RunningServer:
    """Start `periscope serve` on a free port, with `changes` to the environment, and wait for its ready line."""
    command = [*program, "serve", "--port", "0"]
    command += ["--config", str(config)] if config else []
    ours = {"PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1", "PERISCOPE_HOME": new_home()}
    environment = {**os.environ, **ours, **(changes or {})}
    process = subprocess.Popen(  # noqa: S603
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment, cwd=cwd
    )
    assert process.stderr is not None
    watchdog = threading.Timer(START_TIMEOUT_S, process.kill)
    watchdog.start()
    seen = []
    for line in process.stderr:
        seen.append(line)
        if found := READY.search(line):
            break
    else:
        pytest.fail("the server did not start:\n" + "".join(seen))
    watchdog.cancel()
    reading = threading.Thread(target=_keep_log, args=(process.stderr, log))
    reading.start()
    return RunningServer(process, found[1], reading)


def _keep_log(stderr: IO[str], log: Path) -> None:
    """Read to the end, so that the server never blocks on a full pipe.

    A server's second life goes on in the same file.
    """
    with stderr, log.open("a") as file:
        for line in stderr:
            file.write(line)
            file.flush()


@pytest.fixture
def client(server: RunningServer) -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with httpx.Client(base_url=server.url, timeout=120) as http:
        yield http
