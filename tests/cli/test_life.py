"""One server after the other in one home: found, not doubled, killed, started again."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import httpx

from tests.cli.process import TIMEOUT_S, ServeProcess, free_port, new_home, run_command

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


def test_a_server_after_crashes_is_found_is_not_doubled_and_its_death_blocks_nobody(
    short_config: Path, tmp_path: Path
) -> None:
    """The story of a bad day.

    After five fast crashes nothing is loaded, and status says so; a request loads all the same. A second server ends
    with 0 and names the first. After kill -9 the next one starts. SIGHUP gives it the models of a changed
    file, unless that is broken, and a stop by command leaves no trace of it.
    """
    home, port = new_home(), free_port()
    state = Path(home) / "state"
    state.mkdir(exist_ok=True)
    (state / "starts.json").write_text(json.dumps([time.time() - n for n in range(5, 0, -1)]))
    arguments = ("--config", str(short_config), "--port", port)
    with ServeProcess(*arguments, home=home) as first:
        first.wait_until_ready()
        found = json.loads((state / "server.json").read_text())
        assert (found["pid"], found["url"]) == (first.process.pid, first.url)
        with httpx.Client(base_url=found["url"], timeout=TIMEOUT_S) as client:
            status = client.get("/api/status").json()
            assert status["server"]["instance_id"] == found["instance_id"]
            assert status["server"]["state"] == "degraded"
            assert "ended 5 times in a row" in status["server"]["problems"][0]
            assert [model["state"] for model in status["models"]] == ["unloaded"]
            assert client.post("/v1/chat/completions", json=CHAT).json()["usage"]["completion_tokens"] == 24
        second = run_command("serve", *arguments, changes={"PERISCOPE_HOME": home})
        assert (second.returncode, second.stdout) == (0, "")
        assert f"already runs at {first.url} (pid {found['pid']}" in second.stderr
        elsewhere = run_command("serve", *arguments, changes={"PERISCOPE_HOME": new_home()})
        assert (elsewhere.returncode, "already runs" in elsewhere.stderr) == (0, True)
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
    (state / "starts.json").unlink()
    file = tmp_path / "models.yaml"
    file.write_text(short_config.read_text())
    with ServeProcess("--config", str(file), "--port", port, home=home) as third:
        assert third.wait_until_ready()
        assert json.loads((state / "server.json").read_text())["pid"] == third.process.pid
        assert len(json.loads((state / "starts.json").read_text())) == 1
        file.write_text(short_config.read_text() + "oops: 1\n")
        third.signal(signal.SIGHUP)
        third.wait_for("the running configuration stays: .*oops")
        file.write_text(short_config.read_text().replace("tiny", "renamed"))
        third.signal(signal.SIGHUP)
        third.wait_for("the configuration was read again: new renamed; removed tiny")
        with httpx.Client(base_url=third.url, timeout=TIMEOUT_S) as client:
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 404
            assert client.post("/v1/chat/completions", json=CHAT | {"model": "renamed"}).status_code == 200
            assert client.post("/api/server/shutdown").status_code == 202
        assert third.wait() == 0
    assert sorted(file.name for file in state.iterdir()) == ["imports.json", "server.lock", "token"]
