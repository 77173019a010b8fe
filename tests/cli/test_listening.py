"""A server on a Unix socket and behind TLS, and the clients that reach it there."""

from __future__ import annotations

import json
import os
import signal
import socket
import ssl
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import httpx2
import openai
import pytest

from periscope.cli.exits import CommandFailed, ExitCode
from periscope.cli.listen import PortHeld, listening_on_file, server_tls
from tests.cli.process import TIMEOUT_S, ServeProcess, new_home, run_command
from tests.remote.certificates import self_signed

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: a Unix socket's has about a hundred bytes at most."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def test_a_socket_is_for_its_owner_alone_and_goes_with_its_server(folder: Path) -> None:
    """Mode 0600, and no file is left; the umask of the process is as before."""
    path, umask = folder / "p.sock", os.umask(0o022)
    try:
        with listening_on_file(path):
            found = path.stat()
            assert stat.S_ISSOCK(found.st_mode)
            assert stat.S_IMODE(found.st_mode) == 0o600
        assert not path.exists()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(umask)


def test_a_socket_of_a_killed_server_is_replaced(folder: Path) -> None:
    """Nobody listens there; one on which somebody does is left alone, with 75."""
    path = folder / "p.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening_on_file(path), pytest.raises(PortHeld, match="A program listens on"), listening_on_file(path):
        pass


def test_a_file_that_took_the_place_of_the_socket_stays(folder: Path) -> None:
    """It is somebody else's when the server ends."""
    path = folder / "p.sock"
    with listening_on_file(path):
        path.unlink()
        path.write_text("mine")
    assert path.read_text() == "mine"


def test_what_is_no_socket_is_never_removed(folder: Path) -> None:
    """78, and the file is as it was; so for a folder, a link, a path that is too long, and one that is nowhere."""
    file = folder / "notes"
    file.write_text("mine")
    (folder / "link").symlink_to(file)
    for path, reason in (
        (file, "no Unix socket"),
        (folder, "no Unix socket"),
        (folder / "link", "no Unix socket"),
        (folder / ("x" * 100), "at most 103"),
        (folder / "none" / "p.sock", "No such file"),
    ):
        with pytest.raises(CommandFailed, match=reason) as failed, listening_on_file(path):
            pass
        assert failed.value.code is ExitCode.CONFIG
    assert file.read_text() == "mine"


def test_tls_files_that_do_not_fit_are_told_by_name(tmp_path: Path) -> None:
    """78 for a missing file, for no PEM, for somebody else's key; a key with a password asks no terminal."""
    self_signed(tmp_path, "IP:127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    other = tmp_path / "other"
    other.mkdir()
    self_signed(other, "IP:127.0.0.1")
    (tmp_path / "text.pem").write_text("nothing")
    assert server_tls(cert, key)
    for files, said in (
        ((tmp_path / "none.pem", key), r"server\.tls\.cert .*none\.pem: No such file"),
        ((cert, tmp_path / "none.pem"), r"server\.tls\.key .*none\.pem: No such file"),
        ((tmp_path / "text.pem", key), "are not a certificate and its key"),
        ((cert, other / "key.pem"), "KEY_VALUES_MISMATCH"),
    ):
        with pytest.raises(CommandFailed, match=said) as failed:
            server_tls(*files)
        assert failed.value.code is ExitCode.CONFIG


def test_a_server_on_a_unix_socket_alone(short_config: Path, folder: Path) -> None:
    """No port is opened; commands find it by server.json, and by `unix:` and its path; a second one ends with 0."""
    path, home = folder / "p.sock", new_home()
    arguments = ("--config", str(short_config), "--no-tcp", "--uds", str(path))
    with ServeProcess(*arguments, home=home) as server:
        assert server.url == f"unix:{path}"
        assert server.wait_until_ready() == f"Periscope is ready on unix:{path} (model tiny, text only)"
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=TIMEOUT_S) as client:
            assert client.post("/v1/chat/completions", json=CHAT).json()["usage"]["completion_tokens"] == 4
            assert client.get("/health", headers={"host": "evil.example"}).status_code == 403
        status = run_command("status", "--json", changes={"PERISCOPE_HOME": home})
        assert json.loads(status.stdout)["url"] == f"unix:{path}"
        asked = run_command("ask", "Hello!", "--url", f"unix:{path}", changes={"PERISCOPE_HOME": home})
        assert asked.returncode == 0, asked.stderr
        for other in (home, new_home()):
            second = run_command("serve", *arguments, changes={"PERISCOPE_HOME": other})
            assert (second.returncode, f"already runs at unix:{path}" in second.stderr) == (0, True), second.stderr
        connect = run_command("connect", "llm", "--config", str(short_config), changes={"PERISCOPE_HOME": home})
        assert "set server.tcp" in connect.stderr
        assert server.terminate() == 0
    assert not path.exists()


def test_a_server_behind_tls(short_config: Path, folder: Path) -> None:
    """Httpx and OpenAI's SDK trust the certificate's authority; commands know the certificate by server.json.

    The Unix socket beside it is plain; plain HTTP on the port gets no answer.
    """
    self_signed(folder, "IP:127.0.0.1")
    cert, path, home = folder / "cert.pem", folder / "p.sock", new_home()
    tls = ("--tls-cert", str(cert), "--tls-key", str(folder / "key.pem"))
    changes = {"PERISCOPE_HOME": home}
    with ServeProcess("--config", str(short_config), "--port", "0", *tls, "--uds", str(path), home=home) as server:
        assert server.url.startswith("https://127.0.0.1:")
        server.wait_until_ready()
        server.wait_for(rf"Try: curl --cacert {cert} {server.url}/v1/chat/completions")
        trust = ssl.create_default_context(cafile=str(cert))
        with httpx.Client(base_url=server.url, verify=trust, timeout=TIMEOUT_S) as client:
            assert client.get("/health").json()["status"] == "ready"
        with (
            httpx2.Client(verify=trust) as http,
            openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", http_client=http) as sdk,
        ):
            stream = sdk.chat.completions.create(model="tiny", messages=CHAT["messages"], max_tokens=4, stream=True)
            assert [chunk.choices[0].finish_reason for chunk in stream][-1] == "length"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/health").status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/health", timeout=TIMEOUT_S)  # its authority is nobody's
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(server.url.replace("https", "http"), timeout=TIMEOUT_S)
        stranger = run_command("ask", "Hello!", "--url", server.url)
        assert (stranger.returncode, "certificate that is not commonly trusted" in stranger.stderr) == (1, True)
        doctor = run_command("doctor", "--config", str(short_config), changes=changes)
        assert f"port: a Periscope answers at {server.url}, and http://" in doctor.stdout
        status = run_command("status", "--json", changes=changes)
        assert json.loads(status.stdout)["url"] == server.url
        asked = run_command("ask", "Hello!", "--url", server.url, changes=changes)
        assert asked.returncode == 0, asked.stderr
        _has_new_certificate(server, folder)
        connect = run_command("connect", "llm", "--json", changes=changes)
        assert json.loads(connect.stdout)["base_url"] == f"{server.url}/v1"
        assert server.terminate() == 0


def _has_new_certificate(server: ServeProcess, folder: Path) -> None:
    """SIGHUP takes a renewed certificate, and keeps the old one if the new files cannot be used."""
    old = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    key = (folder / "key.pem").read_bytes()
    self_signed(folder, "IP:127.0.0.1")
    renewed = (folder / "key.pem").read_bytes()
    (folder / "key.pem").write_bytes(key)
    server.signal(signal.SIGHUP)
    server.wait_for("the certificate stays as it was: .*KEY_VALUES_MISMATCH")
    assert httpx.get(f"{server.url}/livez", verify=old, timeout=TIMEOUT_S).status_code == 200
    (folder / "key.pem").write_bytes(renewed)
    server.signal(signal.SIGHUP)
    new = ssl.create_default_context(cafile=str(folder / "cert.pem"))
    for _ in range(2000):  # until it has read them
        with suppress(httpx.ConnectError):
            assert httpx.get(f"{server.url}/livez", verify=new, timeout=TIMEOUT_S).status_code == 200
            return
    pytest.fail("the new certificate was not taken")


def test_a_server_with_the_wrong_files_does_not_start(short_config: Path, tmp_path: Path) -> None:
    """78, at once; so with one of the two."""
    none = str(tmp_path / "none.pem")
    failed = run_command("serve", "--config", str(short_config), "--tls-cert", none, "--tls-key", none)
    assert (failed.returncode, "none.pem: No such file" in failed.stderr) == (78, True)
    failed = run_command("serve", "--config", str(short_config), "--tls-cert", none)
    assert (failed.returncode, "server.tls.cert needs key beside it" in failed.stderr) == (78, True)
