"""Who may call: keys, hosts, origins, CORS."""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from periscope.api import AccessKeys
from periscope.api.access_keys import hash_of
from tests.api.driving import HELLO, FakeBackend, app_over, client_of, error_of, in_loop

KEYED: dict[str, Any] = {"api_key": "sëcret"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([], 401),
        ([("authorization", "Bearer sëcret")], 200),
        ([("authorization", "bearer  sëcret ")], 200),
        ([("x-api-key", "sëcret")], 200),
        ([("authorization", "Bearer wrong"), ("x-api-key", "sëcret")], 200),
        ([("authorization", "Bearer wrong")], 401),
        ([("authorization", "Bearer ")], 401),
        ([("authorization", "Basic sëcret")], 401),
        ([("authorization", "sëcret")], 401),
        ([("x-api-key", "")], 401),
        ([("x-api-key", "sëcre")], 401),
    ],
)
@in_loop
async def test_a_key_opens_by_either_header(headers: list[tuple[str, str]], status: int) -> None:
    """Bearer and x-api-key; everything else is a 401 that says how."""
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    async with client_of(FakeBackend(), **KEYED) as client:
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/nowhere")):
            response = await client.request(method, path, headers=encoded, json=HELLO)
            if status == 401:
                assert response.status_code == 401
                assert error_of(response)["code"] == "invalid_api_key"
                assert response.headers["www-authenticate"] == "Bearer"
            else:
                assert response.status_code != 401


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/health"])
@in_loop
async def test_probes_need_no_key(path: str) -> None:
    """The probes of launchd and of balancers carry none."""
    async with client_of(FakeBackend(), **KEYED) as client:
        assert (await client.get(path)).status_code == 200
        assert (await client.head(path)).status_code == 200


@pytest.mark.parametrize(
    ("host", "allowed", "status"),
    [
        ("localhost", (), 200),
        ("LocalHost.:7374", (), 200),
        ("127.0.0.1:7374", (), 200),
        ("127.1.2.3", (), 200),
        ("[::1]:7374", (), 200),
        ("host.docker.internal:7374", (), 200),
        ("", (), 403),
        ("evil.example", (), 403),
        ("localhost.evil.example", (), 403),
        ("127.0.0.1.evil.example", (), 403),
        ("localhost, evil.example", (), 403),
        ("evil.example@localhost", (), 403),
        ("localhost:80@evil.example", (), 403),
        ("[::1]evil.example", (), 403),
        ("192.168.1.5:7374", (), 403),
        ("[fe80::1]", (), 403),
        ("::1", (), 403),
        ("192.168.1.5:7374", ("192.168.1.5",), 200),
        ("mac.local:7374", ("Mac.local.",), 200),
        ("mac.local:7374", ("mac.local:7374",), 200),
        ("[fe80::1]:7374", ("fe80::1",), 200),
        ("other.local", ("mac.local",), 403),
        ("evil.example", ("*",), 200),
    ],
)
@in_loop
async def test_the_host_must_be_ours(host: str, allowed: tuple[str, ...], status: int) -> None:
    """A page that rebinds its name to 127.0.0.1 comes with its own name in Host."""
    async with client_of(FakeBackend(), allowed_hosts=allowed) as client:
        for path in ("/v1/models", "/health"):
            response = await client.get(path, headers={"host": host})
            assert response.status_code == status
            assert status == 200 or error_of(response)["code"] == "host_refused"


@pytest.mark.parametrize(
    ("origin", "origins", "status"),
    [
        ("http://localhost:7374", (), 200),
        ("http://localhost:3000", (), 403),
        ("https://evil.example", (), 403),
        ("null", (), 403),
        ("", (), 403),
        ("http://localhost:3000", ("http://localhost:3000/",), 200),
        ("http://localhost:3001", ("http://localhost:3000",), 403),
        ("http://localhost:3001", ("http://localhost:*",), 200),
        ("http://localhost:1.evil.example", ("http://localhost:*",), 403),
        ("http://localhost.evil.example:3000", ("http://localhost:*",), 403),
        ("https://any.example", ("*",), 200),
        ("null", ("*",), 200),
    ],
)
@in_loop
async def test_a_web_page_needs_leave(origin: str, origins: tuple[str, ...], status: int) -> None:
    """A foreign page can not even post blindly; what it may read is for CORS, which answers allowed origins only."""
    backend = FakeBackend()
    async with client_of(backend, cors_origins=origins) as client:
        response = await client.post("/v1/chat/completions", json=HELLO, headers={"origin": origin})
    assert response.status_code == status
    assert ("access-control-allow-origin" in response.headers) == bool(origins and status == 200)
    assert len(backend.requests) == (1 if status == 200 else 0)
    assert status == 200 or error_of(response)["code"] == "origin_refused"


@pytest.mark.parametrize(
    "origin", ["vscode-webview://1abc2", "app://obsidian.md", "tauri://localhost", "file://", "capacitor://localhost"]
)
@in_loop
async def test_a_desktop_app_is_let_in_and_can_read(origin: str) -> None:
    """No web page can have such an origin; its webview asks with a preflight like any browser, and may read."""
    ask = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-whatever"}
    async with client_of(FakeBackend()) as client:
        preflight = await client.options("/v1/chat/completions", headers=ask)
        answer = await client.post("/v1/chat/completions", json=HELLO, headers={"origin": origin})
    assert (preflight.status_code, answer.status_code) == (200, 200)
    for response in (preflight, answer):
        assert response.headers["access-control-allow-origin"] == origin
    assert "Origin" in answer.headers["vary"]


@in_loop
async def test_a_page_that_hides_its_origin_is_told_what_to_do() -> None:
    """`null` can not be let in by a setting, so the error does not ask for one."""
    async with client_of(FakeBackend()) as client:
        told = error_of(await client.get("/v1/models", headers={"origin": "null"}))
        other = error_of(await client.get("/v1/models", headers={"origin": "http://{}.example"}))
    assert "Serve the page over HTTP" in told["message"]
    assert 'origin "http://{}.example"' in other["message"]


@in_loop
async def test_two_origins_are_none() -> None:
    """No browser sends two; whoever does is not let in by the first."""
    async with client_of(FakeBackend()) as client:
        both = [("origin", "app://notes"), ("origin", "https://evil.example")]
        response = await client.get("/v1/models", headers=both)
    assert response.status_code == 403


@in_loop
async def test_cors_covers_preflights_and_refusals() -> None:
    """A configured page's preflight needs no key, and it can read why it was refused."""
    headers = {"origin": "http://app", "access-control-request-method": "POST"}
    asked = {"access-control-request-headers": "authorization, x-whatever"}
    async with client_of(FakeBackend(), cors_origins=("http://app",), **KEYED) as client:
        response = await client.options("/v1/chat/completions", headers=headers | asked)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == "http://app"
        response = await client.post("/v1/chat/completions", json=HELLO, headers={"origin": "http://app"})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "http://app"
    assert "access-control-allow-credentials" not in response.headers


@in_loop
async def test_without_cors_there_are_no_cors_headers() -> None:
    """Nothing invites a browser."""
    async with client_of(FakeBackend()) as client:
        response = await client.get("/v1/models")
        assert not [name for name in response.headers if name.startswith("access-control")]
        preflight = {"origin": "http://evil", "access-control-request-method": "POST"}
        assert (await client.options("/v1/chat/completions", headers=preflight)).status_code == 403


@in_loop
async def test_a_request_without_host_is_refused() -> None:
    """HTTP/1.0 clients may leave it out; ours do not."""
    transport = httpx.ASGITransport(app=app_over(FakeBackend()))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        request = client.build_request("GET", "/health")
        del request.headers["host"]
        response = await client.send(request)
    assert response.status_code == 403


@in_loop
async def test_each_client_has_a_key_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """The name of the key stands in the log, and the key in no line; with only the hashes known, the keys open."""
    caplog.set_level(logging.DEBUG)
    keys = AccessKeys("by-file")
    keys.replace("plain", {"laptop": hash_of("first"), "phone": hash_of("second")})
    async with client_of(FakeBackend(), keys=keys) as client:
        for key, name in (("first", "laptop"), ("second", "phone"), ("plain", "api_key"), ("by-file", "token")):
            caplog.clear()
            assert (await client.get("/v1/models", headers={"x-api-key": key})).status_code == 200
            assert f" key={name} " in caplog.text
            assert key not in caplog.text.replace("api_key", "")
        caplog.clear()
        for wrong in ("third", hash_of("first"), hash_of("first").removeprefix("sha256:")):
            assert (await client.get("/v1/models", headers={"x-api-key": wrong})).status_code == 401
            assert wrong not in caplog.text
    assert " key=- " in caplog.text


@in_loop
async def test_keys_are_replaced_while_the_server_runs() -> None:
    """A client whose key is taken away is out at once; with the last one gone nobody is asked any more."""
    keys = AccessKeys("by-file")
    keys.replace(None, {"laptop": hash_of("first"), "phone": hash_of("second")})

    async def status(key: str) -> int:
        return (await client.get("/v1/models", headers={"authorization": f"Bearer {key}"})).status_code

    async with client_of(FakeBackend(), keys=keys) as client:
        assert [await status(key) for key in ("first", "second", "by-file", "none")] == [200, 200, 200, 401]
        keys.replace(None, {"phone": hash_of("second"), "tablet": hash_of("third")})
        assert [await status(key) for key in ("first", "second", "third", "by-file")] == [401, 200, 200, 200]
        keys.replace(None, {})
        assert await status("none") == 200


@pytest.mark.parametrize(
    ("path", "shape"), [("/v1/models", {"error"}), ("/v1/messages", {"type", "error", "request_id"})]
)
@in_loop
async def test_a_wrong_key_is_told_in_the_dialect(path: str, shape: set[str]) -> None:
    """With the header that says how to come back."""
    async with client_of(FakeBackend(), **KEYED) as client:
        response = await client.get(path, headers={"x-api-key": "wrong"})
    assert response.status_code == 401
    assert set(response.json()) == shape
    assert response.headers["www-authenticate"] == "Bearer"
