"""A server whose output nobody reads, as when the program that has started it forgets its pipes, or has closed them."""

from __future__ import annotations

import os
import subprocess
import sys

import httpx

from tests.cli.process import free_port, new_home
from tests.e2e.conftest import READY, STOP_TIMEOUT_S

#: What a pipe holds on Linux, and at most on macOS.
_PIPE_BYTES = 65_536
#: Bytes of the shortest line that a request leaves in the log.
_LEAST_LINE_BYTES = 80


def test_a_server_whose_output_nobody_reads_goes_on() -> None:
    """Its log is longer than a pipe holds: it answers as ever, and ends."""
    changes = {"HF_HUB_OFFLINE": "1", "PERISCOPE_HOME": new_home()}
    command = [sys.executable, "-m", "periscope", "serve", "--port", "0"]
    with subprocess.Popen(  # noqa: S603 - our own program
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | changes
    ) as server:
        assert server.stderr is not None
        try:
            url = next(found[1] for line in server.stderr if (found := READY.search(line)))
            with httpx.Client(base_url=url, timeout=60) as client:
                for _ in range(_PIPE_BYTES // _LEAST_LINE_BYTES + 10):
                    assert client.get("/v1/models").status_code == 200
            server.terminate()
            assert server.wait(STOP_TIMEOUT_S) == 0
            assert "/v1/models status=200" in server.stderr.read()
        finally:
            server.kill()


def test_a_server_without_standard_streams_works() -> None:
    """Whoever starts it has closed them, as some daemons do."""
    changes, port = {"HF_HUB_OFFLINE": "1", "PERISCOPE_HOME": new_home()}, free_port()
    closing = "import os, sys; os.closerange(0, 3); os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = [sys.executable, "-c", closing, "-m", "periscope", "serve", "--port", port]
    with subprocess.Popen(command, env=os.environ | changes) as server:  # noqa: S603 - our own program
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=8), timeout=60) as client:  # until it listens
                assert client.get(f"http://127.0.0.1:{port}/v1/models").status_code == 200
            server.terminate()
            assert server.wait(STOP_TIMEOUT_S) == 0
        finally:
            server.kill()
