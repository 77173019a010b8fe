"""Paths as clients mean them, and HEAD wherever there is GET."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.api.paths import PATHS, intended_path
from tests.api.driving import HELLO, FakeBackend, FakeTools, client_of, error_of, in_loop

SPELLINGS = {
    "/v1/models": [
        "/v1/models/",
        "/v1//models",
        "//v1/models",
        "/models",
        "/models/",
        "/v1/v1/models",
        "/v1/v1/v1/models/",
    ],
    "/v1/models/org/text": ["/v1/models/org/text/", "/models/org/text", "/v1//models//org/text"],
    "/v1/chat/completions": [
        "/chat/completions",
        "/v1/v1/chat/completions",
        "/v1/chat/completions/",
        "//chat//completions",
    ],
    "/v1/messages": ["/messages", "/v1/v1/messages", "/v1/messages/"],
    "/health": ["/health/", "//health"],
    "/mcp": ["/mcp/", "/v1/mcp", "/v1/mcp/"],
    "/": ["//", "///"],
    "/v1": ["/v1/", "/v1/v1"],
    "/v1/modelsx": [],
    "/modelsx": [],
    "/api/models/load": ["/api//models/load/"],
    "/v12/models": [],
    "/v1/v12/models": [],
}


@pytest.mark.parametrize("path", SPELLINGS)
def test_a_path_that_can_mean_one_thing_means_it(path: str) -> None:
    """Slashes too many, and `/v1` twice or not at all; a path that is right stays as it is."""
    assert {intended_path(spelling) for spelling in (path, *SPELLINGS[path])} == {path}


@settings(deadline=None)
@given(st.text("/v1modelschat", max_size=24))
def test_mending_a_path_is_done_once(path: str) -> None:
    """What was mended needs no mending, and is a path."""
    mended = intended_path(f"/{path}")
    assert intended_path(mended) == mended
    assert mended.startswith("/")


@pytest.mark.parametrize("path", SPELLINGS["/v1/models"])
@in_loop
async def test_every_spelling_of_models_is_the_list(path: str) -> None:
    """`GET /v1/models/` among them: it is what clients get who glue a base URL and a path together."""
    async with client_of(FakeBackend()) as client:
        response = await client.get(f"http://localhost:7374{path}")
    assert response.status_code == 200
    assert response.json()["object"] == "list"


@pytest.mark.parametrize("path", SPELLINGS["/v1/chat/completions"])
@in_loop
async def test_every_spelling_of_chat_is_answered(path: str) -> None:
    """With whatever base URL a person has typed."""
    async with client_of(FakeBackend()) as client:
        assert (await client.post(f"http://localhost:7374{path}", json=HELLO)).status_code == 200


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/openai/v1/chat/completions", "/v1/chat/completions"),
        ("/api/v2/models", "/v1/models"),
        ("/v1/model", "/v1/models"),
        ("/v1/completion", "/v1/completions"),
        ("/v1/health", "/health"),
        ("/v1", None),
        ("/favicon.ico", None),
        ("/api/statuses", "/api/status"),
    ],
)
@in_loop
async def test_a_path_that_is_not_there_names_the_one_that_was_meant(path: str, near: str | None) -> None:
    """Whoever reads the error knows what to change in the client."""
    async with client_of(FakeBackend()) as client:
        response = await client.get(path)
    assert response.status_code == 404
    way_on = "GET /v1/models is a good start." if near is None else f"Did you mean {near}?"
    assert error_of(response)["message"] == f"There is no {path} here. {way_on}"


@pytest.mark.parametrize(
    ("path", "told"),
    [
        *((f"/api/{name}", "Ollama's API is not served. Use GET /v1/models, ") for name in ("tags", "show", "version")),
        *((f"/api/{name}", "Ollama's API is not served. Use GET /v1/models, ") for name in ("ps", "tags/")),
        *((f"/api/{name}", "Ollama's API is not served. Use POST /v1/chat/com") for name in ("chat", "generate")),
        *(
            (f"/api/{name}", "Ollama's API is not served. What is served is POST /v1/chat")
            for name in ("embed", "pull")
        ),
        ("/api/blobs/sha256:0", "Ollama's API is not served. What is served is"),
    ],
)
@in_loop
async def test_a_path_of_another_api_says_that_it_is_not_served(path: str, told: str) -> None:
    """A client that is set to another server's API is not told of a path that only looks like its own."""
    async with client_of(FakeBackend()) as client:
        response = await client.post(path, content=b"{}")
    assert response.status_code == 404
    assert told in error_of(response)["message"]


@in_loop
async def test_every_path_that_errors_name_is_there() -> None:
    """The table of paths is no wish list."""
    async with client_of(FakeBackend(), mcp=FakeTools()) as client:
        for path in PATHS:
            assert (await client.post(path, content=b"{}")).status_code != 404


@in_loop
async def test_a_mended_path_opens_no_door() -> None:
    """The key is asked of the path that is meant, however it is spelled; the probes need none in any spelling."""
    async with client_of(FakeBackend(), api_key="secret") as client:
        for path in SPELLINGS["/v1/models"]:
            assert (await client.get(f"http://localhost:7374{path}")).status_code == 401
        for path in SPELLINGS["/health"]:
            assert (await client.get(f"http://localhost:7374{path}")).status_code == 200


@in_loop
async def test_head_is_answered_wherever_get_is() -> None:
    """With the status and the type that GET has, the endless event stream included."""
    async with client_of(FakeBackend()) as client:
        for path in ("/", "/v1/models/org/text", *PATHS):
            got, head = await client.get(path), await client.head(path)
            assert head.status_code == got.status_code
            assert head.headers["content-type"] == got.headers["content-type"]
            assert head.headers.get("allow") == got.headers.get("allow")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/moderations", "OpenAI's Moderations API is not served. POST /v1/chat/completions with a model"),
        (
            "/v1/images/generations",
            "OpenAI's Images API is not served. Pictures are read, by POST /v1/chat/completions",
        ),
        ("/v1/audio/transcriptions", "OpenAI's Audio API is not served. Sound is neither"),
        (
            "/v1/files/file-1/content",
            "OpenAI's Files API is not served. No files are stored: send each in a `file` part",
        ),
        ("/v1/batches", "OpenAI's Batch API is not served. Send the requests to POST /v1/chat/completions"),
        ("/v1/fine_tuning/jobs", "OpenAI's Fine-tuning API is not served. "),
        ("/v1/threads/t/runs", "OpenAI's Assistants API is not served. POST /v1/chat/completions does the same work"),
        (
            "/v1/messages/batches",
            "Anthropic's Message Batches API is not served. Send the requests to POST /v1/messages",
        ),
        ("/v1/complete", "Anthropic's old Completions API is not served. Use POST /v1/messages."),
        ("/v1/responses/compact", "OpenAI's compaction of conversations is not served. `truncation: auto` of POST"),
    ],
)
@in_loop
async def test_a_route_that_is_not_served_names_the_one_that_does_the_job(path: str, told: str) -> None:
    """Whoever wired a client to it learns what is there instead, in the dialect of the path."""
    async with client_of(FakeBackend()) as client:
        response = await client.post(path, content=b"{}")
    error = response.json()["error"]
    assert response.status_code == 404
    assert told in error["message"]
    assert error["type"] == ("not_found_error" if path.startswith("/v1/messages") else "invalid_request_error")
