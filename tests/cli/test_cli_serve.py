"""`periscope serve` as a real process over a tiny model."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import write_config
from tests.cli.process import TIMEOUT_S, ServeProcess, run_command
from tests.cli.stub import stub_server

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}
STREAM = CHAT | {"stream": True}


def assert_cut_off(lines: Iterator[str]) -> None:
    """A stream's last event is the error, then comes its end."""
    *_, error, done = [line for line in lines if line]
    assert json.loads(error.removeprefix("data: "))["error"]["code"] == "server_stopping"
    assert done == "data: [DONE]"


def wait_for_a_request(url: str) -> None:
    """Until one is generated."""
    with httpx.stream("GET", f"{url}/api/events", timeout=TIMEOUT_S) as events:
        assert any('"generating"' in line for line in events.iter_lines())


def test_it_says_where_it_is_ready_and_what_it_serves(running: ServeProcess) -> None:
    """One line with the base URL for clients and the default model's name and sight."""
    assert running.wait_until_ready() == f"Periscope is ready on {running.url}/v1 (model tiny, text only)"
    assert running.wait_for(rf"Try: curl {re.escape(running.url)}/v1/chat/completions ")


def test_each_model_state_is_one_line(running: ServeProcess) -> None:
    """The log tells that the model was loaded, once. Other tests may have loaded it again since."""
    started, _, _ = running.output.partition(running.wait_until_ready())
    assert started.count("model tiny: loading") == 1
    assert started.count("model tiny: ready after") == 1
    assert "unloaded -> loading" not in started


def test_it_answers_probes_and_chats(running: ServeProcess) -> None:
    """What the ready line promises holds."""
    assert httpx.get(f"{running.url}/livez", timeout=TIMEOUT_S).json()["status"] == "alive"
    reply = httpx.post(f"{running.url}/v1/chat/completions", json=CHAT, timeout=TIMEOUT_S).json()
    assert reply["usage"]["completion_tokens"] == 24


def test_head_is_answered_without_a_body(running: ServeProcess) -> None:
    """On a connection that is used again afterwards, the endless event stream included."""
    with httpx.Client(base_url=running.url, timeout=TIMEOUT_S) as client:
        for path in ("/v1/models", "/v1/models/tiny", "/api/events", "/api/status", "/health"):
            head = client.head(path)
            assert (head.status_code, head.content) == (200, b"")
        assert client.get("/v1/models/").json()["data"][0]["id"] == "tiny"


@pytest.mark.parametrize("flag", ["-q", "-v"])
def test_sigterm_ends_it_with_0_and_the_ready_line_does_not_depend_on_verbosity(short_config: Path, flag: str) -> None:
    """To launchd 0 is a wanted end: it does not restart the server. The line is what scripts wait for."""
    with ServeProcess("--config", str(short_config), "--port", "0", flag) as server:
        server.wait_until_ready()
        assert ("INFO" in server.output) is (flag == "-v")
        assert server.terminate() == 0, server.output


def test_sigterm_ends_a_server_in_the_background(short_config: Path) -> None:
    """A shell's `&` leaves SIGINT ignored; SIGTERM ends the server all the same."""
    with ServeProcess("--config", str(short_config), "--port", "0", on_sigint=signal.Handlers.SIG_IGN) as server:
        server.wait_until_ready()
        assert server.terminate() == 0, server.output


def test_sigterm_while_models_load_ends_it_with_0(short_config: Path) -> None:
    """A stop does not wait for the start: whatever is being imported or loaded is given up."""
    with ServeProcess("--config", str(short_config), "--port", "0") as server:
        assert server.url
        assert server.terminate() == 0, server.output


def test_sigterm_during_a_stream_lets_it_finish(endless_model: Path, tmp_path: Path) -> None:
    """The running answer comes to its end, nobody new is let in, and the process leaves with 0 in time."""
    config = write_config(tmp_path, endless_model)
    with ServeProcess("--config", str(config), "--port", "0") as server:
        server.wait_until_ready()
        body = CHAT | {"stream": True, "max_tokens": 600}
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=TIMEOUT_S) as reply:
            lines = reply.iter_lines()
            assert '"content"' in next(line for line in lines if line)
            server.signal(signal.SIGTERM)
            server.wait_for("stopping")
            told = [line for line in lines if line]
        assert told[-1] == "data: [DONE]"
        assert json.loads(told[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
        assert server.wait() == 0, server.output
        assert "Traceback" not in server.output


def test_a_stream_that_does_not_end_is_ended_after_the_grace(endless_config: Path) -> None:
    """Eight seconds after SIGTERM the process leaves with 0 although clients would read on for minutes.

    Who reads a stream gets an error event and its end, who waits for a whole answer a 503, and eight who do not read at
    all, one of them the events, delay nothing.
    """
    with (
        ServeProcess("--config", str(endless_config), "--port", "0") as server,
        ThreadPoolExecutor(1) as threads,
        ExitStack() as unread,
    ):
        server.wait_until_ready()
        url = f"{server.url}/v1/chat/completions"
        whole = threads.submit(httpx.post, url, json=CHAT, timeout=TIMEOUT_S)
        wait_for_a_request(server.url)
        streams = [httpx.stream("GET", f"{server.url}/api/events", timeout=TIMEOUT_S)]
        streams += [httpx.stream("POST", url, json=STREAM, timeout=TIMEOUT_S) for _ in range(7)]
        assert all(unread.enter_context(stream).status_code == 200 for stream in streams)
        with httpx.stream("POST", url, json=STREAM, timeout=TIMEOUT_S) as reply:
            lines = reply.iter_lines()
            assert next(lines)
            asked_at = time.monotonic()
            server.signal(signal.SIGTERM)
            assert_cut_off(lines)
        assert server.wait() == 0, server.output
        assert 7 < time.monotonic() - asked_at < 25
        assert (whole.result().status_code, whole.result().json()["error"]["code"]) == (503, "server_stopping")
        assert "Traceback" not in server.output


def test_a_second_ctrl_c_ends_it_at_once(endless_config: Path) -> None:
    """Whoever presses Ctrl-C twice does not wait for running answers; the status says that they were cut."""
    with ServeProcess("--config", str(endless_config), "--port", "0") as server:
        server.wait_until_ready()
        with httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json=CHAT | {"stream": True}, timeout=TIMEOUT_S
        ) as reply:
            lines = reply.iter_lines()  # kept: a generator that is dropped hangs up
            assert next(lines)
            server.signal(signal.SIGINT)
            server.wait_for("stopping")
            asked_at = time.monotonic()
            server.signal(signal.SIGINT)
            assert_cut_off(lines)
            assert server.wait() == 130, server.output
        assert time.monotonic() - asked_at < 9


def test_a_held_port_is_75(endless_config: Path) -> None:
    """Told at once, before any model is loaded, with the port's number."""
    with stub_server(get=b"some other program") as holder:
        port = holder.url.rpartition(":")[2]
        ended = run_command("serve", "--config", str(endless_config), "--port", port)
    assert ended.returncode == 75
    assert f"Port {port}" in ended.stderr
    assert "loading" not in ended.stderr


def test_a_bad_configuration_is_78_with_the_line(tmp_path: Path) -> None:
    """Every problem with file and line, nothing is started."""
    file = tmp_path / "models.yaml"
    file.write_text("models:\n  - name: tiny\n    local_pth: /x\nserver:\n  port: many\n")
    ended = run_command("serve", "--config", str(file))
    assert ended.returncode == 78
    assert "models.yaml:3" in ended.stderr
    assert "local_path" in ended.stderr
    assert "models.yaml:5" in ended.stderr


def test_a_model_that_cannot_load_is_told_and_the_server_stays_up(tmp_path: Path) -> None:
    """The reason with its fix on stderr, /livez alive, /health 503; then a clean end."""
    file = write_config(tmp_path, tmp_path / "nowhere")
    with ServeProcess("--config", str(file), "--port", "0") as server:
        server.wait_for("stays up, but model tiny cannot answer")
        assert "There is no folder" in server.output
        assert httpx.get(f"{server.url}/livez", timeout=TIMEOUT_S).status_code == 200
        health = httpx.get(f"{server.url}/health", timeout=TIMEOUT_S)
        assert health.status_code == 503
        assert "There is no folder" in health.json()["problems"][0]
        assert server.terminate() == 0


def test_a_captioner_that_cannot_load_is_told_in_the_ready_line(endless_model: Path, tmp_path: Path) -> None:
    """Text goes on, and nobody has to find out by asking about a picture."""
    file = write_config(tmp_path, endless_model)
    file.write_text(
        f"{file.read_text()}    capabilities: {{vision_mode: proxy, vision_proxy: {{model: eyes}}}}\n"
        f"  - name: eyes\n    local_path: {tmp_path / 'nowhere'}\n    preload: true\n"
    )
    with ServeProcess("--config", str(file), "--port", "0") as server:
        assert "(model tiny, text only: eyes failed)" in server.wait_until_ready()
        assert server.terminate() == 0
