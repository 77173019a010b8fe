"""`/api`: Periscope's own routes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from periscope.api.status_wire import encode_model, encode_status
from periscope.core import FilePart, ImagePart
from periscope.errors import (
    ConfigError,
    ImageInvalid,
    InvalidRequest,
    ModelNotFound,
    ModelPinned,
    ModelUnavailable,
    NotThinking,
    RequestNotFound,
    ServerStopping,
)
from tests.api.driving import FakeBackend, app_over, client_of, error_of, in_loop
from tests.api.exchange import Exchange
from tests.api.fake_control import ROW, SNAPSHOT, FakeControl
from tests.api.gates import Gate

LOAD, UNLOAD, PIN, SELECT = "/api/models/load", "/api/models/unload", "/api/models/pin", "/v1/models/select"
CANCEL = "/api/requests/chatcmpl-1/cancel"
WAITING = [LOAD, UNLOAD, SELECT]


def body_of(path: str) -> dict[str, str]:
    """What the command needs: commands to a model name it, and the others have no fields."""
    return {"model": "m"} if path in (*WAITING, PIN) else {}


@in_loop
async def test_captions_come_in_the_order_of_the_images() -> None:
    """Each picture gets its words, its size and who described it."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        reply = await client.post("/api/captions", json={"model": "m", "images": ["data:a", "data:b"]})
    same = {"error": None, "width": 4, "height": 3, "captioner": "eyes", "verbatim": None, "block": ""}
    assert reply.json() == {"captions": [{"text": f"image {n}", **same} for n in (1, 2)], "files": []}
    assert backend.captioned == ("m", (ImagePart("data:a", "images[0]"), ImagePart("data:b", "images[1]")))


@in_loop
async def test_the_text_in_images_is_read_alone() -> None:
    """With `describe: false` no captioner is asked."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        reply = await client.post("/api/captions", json={"images": ["data:a"], "describe": False})
    same = {"text": None, "error": None, "width": 4, "height": 3, "captioner": "", "block": ""}
    assert reply.json() == {"captions": [{"verbatim": "text 1", **same}], "files": []}
    assert (backend.captioned, backend.read_images) == (None, ("", (ImagePart("data:a", "images[0]"),)))


@in_loop
async def test_files_are_told_as_a_text_model_reads_them() -> None:
    """In the shape of OpenAI's file parts, beside images or alone; a picture among them is one."""
    backend = FakeBackend()
    sent = [
        {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"file_data": "data:image/png;base64,AA"},
    ]
    async with client_of(backend) as client:
        reply = await client.post("/api/captions", json={"model": "m", "files": sent})
    each = [{"block": f"[Document 1]\nfile {n}", "num_images": 2, "num_failed": 1} for n in (1, 2)]
    assert reply.json() == {"captions": [], "files": each}
    assert backend.captioned is None
    pdf = FilePart("files[0]", "a.pdf", url="data:application/pdf;base64,AA")
    assert backend.described == ("m", (pdf, ImagePart("data:image/png;base64,AA", "files[1]")))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "images"),
        ({"files": []}, "images"),
        ({"files": ["data:a"]}, "files[0]"),
        ({"files": [{"file_data": 5}]}, "files[0].file_data"),
        ({"files": [{"file_data": "data:a"}] * 33}, "files"),
        ({"images": []}, "images"),
        ({"images": "data:a"}, "images"),
        ({"images": [5]}, "images[0]"),
        ({"images": ["data:a"], "model": 5}, "model"),
        ({"images": ["data:a"], "question": "What colour?"}, "question"),
    ],
)
@in_loop
async def test_malformed_caption_requests_name_their_field(body: dict[str, Any], param: str) -> None:
    """A wrong field is a 400 that says which."""
    async with client_of(FakeBackend()) as client:
        reply = await client.post("/api/captions", json=body)
    assert (reply.status_code, error_of(reply)["param"]) == (400, param)


@pytest.mark.parametrize(
    ("error", "status"), [(ImageInvalid("broken", param="images[0]"), 400), (ModelUnavailable("no eyes"), 503)]
)
@in_loop
async def test_caption_errors_have_their_rows(error: Exception, status: int) -> None:
    """What the backend raises is told as everywhere."""
    async with client_of(FakeBackend(error)) as client:
        reply = await client.post("/api/captions", json={"images": ["data:a"]})
    assert reply.status_code == status
    assert error_of(reply)["message"]


@in_loop
async def test_leaving_cancels_the_captions() -> None:
    """No captioner works for a client that has gone."""
    gate = Gate()
    exchange = Exchange(app_over(FakeBackend(gate)), {"images": ["data:a"]}, path="/api/captions")
    await gate.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert not exchange.messages


@in_loop
async def test_the_status_is_one_snapshot() -> None:
    """All of it at once, and the requests alone."""
    async with client_of(FakeBackend()) as client:
        status = await client.get("/api/status")
        requests = await client.get("/api/requests")
    assert status.json() == encode_status(SNAPSHOT)
    assert requests.json() == {"requests": status.json()["requests"]}


@pytest.mark.parametrize(
    ("path", "body", "command"),
    [
        (LOAD, {}, ("load", "small", False)),
        (LOAD, {"wait": True}, ("load", "small", True)),
        (UNLOAD, {}, ("unload", "small", False)),
        (UNLOAD, {"wait": True}, ("unload", "small", True)),
        (SELECT, {}, ("select", "small", False)),
        (SELECT, {"wait": True}, ("select", "small", True)),
        (PIN, {}, ("pin", "small", True)),
        (PIN, {"pinned": False}, ("pin", "small", False)),
    ],
)
@in_loop
async def test_commands_reach_the_backend(path: str, body: dict[str, Any], command: tuple[Any, ...]) -> None:
    """The model as the client named it, with the defaults of what it left out; the answer is the model's row."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        reply = await client.post(path, json={"model": "small"} | body)
    assert (reply.status_code, reply.json()) == (200, encode_model(ROW))
    assert control.commands == [command]


@in_loop
async def test_a_request_is_cancelled_by_its_id() -> None:
    """The id is the one of the answer's chunks; no body is needed, and an empty object is none."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        assert (await client.post(CANCEL, json={})).status_code == 200
        control.commands.clear()
        reply = await client.post(CANCEL)
    assert (reply.status_code, reply.json()) == (200, {"id": "chatcmpl-1", "cancelled": True})
    assert control.commands == [("cancel", "chatcmpl-1")]


@in_loop
async def test_the_thinking_of_a_request_is_ended_by_its_id() -> None:
    """As it is cancelled; one that does not think is a conflict that says so."""
    control = FakeControl()
    path = "/api/requests/chatcmpl-1/answer_now"
    async with client_of(FakeBackend(), control) as client:
        reply = await client.post(path)
        assert (reply.status_code, reply.json()) == (202, {"id": "chatcmpl-1", "answering": True})
        assert control.commands == [("answer_now", "chatcmpl-1")]
    control = FakeControl(NotThinking("The request does not think now.", param="id"))
    async with client_of(FakeBackend(), control) as client:
        reply = await client.post(path)
        assert (reply.status_code, error_of(reply)["code"]) == (409, "not_thinking")


@pytest.mark.parametrize(
    ("path", "body", "param", "words"),
    [
        (LOAD, {}, "model", "is missing"),
        (LOAD, {"model": ""}, "model", "not empty"),
        (LOAD, {"model": None}, "model", "got null"),
        (LOAD, {"model": ["a"]}, "model", "got a list"),
        (LOAD, {"model": "m", "wait": "true"}, "wait", "true or false"),
        (LOAD, {"model": "m", "wait": 1}, "wait", "true or false"),
        (LOAD, {"model": "m", "pinned": True}, "pinned", "Known fields: model, wait."),
        (LOAD, {"model": "m", "x\n" * 100: 1}, "x?" * 30 + "x...", "Known fields"),
        (UNLOAD, {"model": "m", "force": True}, "force", "Known fields: model, wait."),
        (PIN, {"model": "m", "wait": True}, "wait", "Known fields: model, pinned."),
        (PIN, {"model": "m", "pinned": None}, "pinned", "true or false"),
        (SELECT, {"name": "m"}, "model", "is missing"),
        (SELECT, ["m"], None, "must be an object"),
        (CANCEL, {"reason": "late"}, "reason", "Known fields: none."),
        ("/api/server/reload", {"wait": True}, "wait", "Known fields: none."),
        ("/api/server/shutdown", [], None, "must be an object"),
        ("/api/downloads/1/pause", {"model": "m"}, "model", "Known fields: none."),
    ],
)
@in_loop
async def test_malformed_commands_name_their_field(path: str, body: Any, param: str | None, words: str) -> None:
    """A typo is a 400 and no command: nothing is guessed, ignored or done."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        reply = await client.post(path, json=body)
    error = error_of(reply)
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_value", param)
    assert words in error["message"]
    assert not control.commands


@pytest.mark.parametrize("path", [*WAITING, PIN])
@in_loop
async def test_a_body_that_is_no_json_is_refused(path: str) -> None:
    """An empty body is no command either."""
    async with client_of(FakeBackend()) as client:
        for content in (b"", b"model=small", b"{"):
            reply = await client.post(path, content=content)
            assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_json")


@pytest.mark.parametrize(
    ("path", "error", "status", "code"),
    [
        (LOAD, ModelNotFound("No such model.", param="model"), 404, "model_not_found"),
        (UNLOAD, ModelNotFound("No such model.", param="model"), 404, "model_not_found"),
        (PIN, ModelNotFound("No such model.", param="model"), 404, "model_not_found"),
        (SELECT, ModelNotFound("No such model.", param="model"), 404, "model_not_found"),
        (SELECT, InvalidRequest("That is a captioner.", param="model"), 400, "invalid_value"),
        (LOAD, ModelUnavailable("It never fits."), 503, "model_unavailable"),
        (LOAD, ServerStopping("Stopping."), 503, "server_stopping"),
        (UNLOAD, ModelPinned("It is pinned.", param="model"), 409, "model_pinned"),
        (CANCEL, RequestNotFound("No such request."), 404, "request_not_found"),
    ],
)
@in_loop
async def test_refused_commands_have_their_rows(path: str, error: Exception, status: int, code: str) -> None:
    """What the backend cannot do is the house's error object, with a status that says whose turn it is."""
    async with client_of(FakeBackend(), FakeControl(error)) as client:
        reply = await client.post(path, json=body_of(path))
    assert (reply.status_code, error_of(reply)["code"]) == (status, code)
    assert error_of(reply)["param"] == getattr(error, "param", None)
    assert ("retry-after" in reply.headers) == isinstance(error, ServerStopping)


@pytest.mark.parametrize("path", WAITING)
@in_loop
async def test_leaving_ends_the_wait_for_a_command(path: str) -> None:
    """Whoever waits for a load and leaves is waited for no more; the backend is told by a cancellation."""
    gate = Gate()
    control = FakeControl(gate)
    exchange = Exchange(app_over(FakeBackend(), control), {"model": "m", "wait": True}, path=path)
    await gate.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert control.saw == [asyncio.CancelledError]
    assert not exchange.messages


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/status"),
        ("GET", "/api/events"),
        ("GET", "/api/requests"),
        ("POST", CANCEL),
        ("POST", "/api/server/reload"),
        *[("POST", path) for path in (*WAITING, PIN)],
    ],
)
@in_loop
async def test_the_control_plane_is_guarded(method: str, path: str) -> None:
    """Without the key, under a foreign host or from a foreign page, nothing is told and nothing is done."""
    control = FakeControl()
    async with client_of(FakeBackend(), control, api_key="secret") as client:
        keyed = {"authorization": "Bearer secret"}
        for headers, status in (
            ({}, 401),
            (keyed | {"host": "evil.example"}, 403),
            (keyed | {"origin": "http://evil.example"}, 403),
        ):
            reply = await client.request(method, path, json=body_of(path), headers=headers)
            assert (reply.status_code, error_of(reply)["param"]) == (status, None)
        assert not control.commands
        assert (await client.request(method, path, json=body_of(path), headers=keyed)).status_code == 200


@in_loop
async def test_reload_tells_what_changed_or_every_problem_of_the_file() -> None:
    """A file that cannot be used is no fault of the server."""
    async with client_of(FakeBackend(), control := FakeControl()) as client:
        changed = (await client.post("/api/server/reload")).json()
        assert (changed["added"], changed["removed"], changed["needs_restart"]) == (["new"], [], ["server.port"])
        control.script = (ConfigError(("models.yaml:3: a", "models.yaml:4: b")),)
        refused = await client.post("/api/server/reload")
    assert (refused.status_code, error_of(refused)["code"]) == (400, "config_error")
    assert error_of(refused)["message"] == "models.yaml:3: a\nmodels.yaml:4: b"


@in_loop
async def test_a_client_may_ask_the_server_to_stop() -> None:
    """It is told at once; the stop comes when what runs is done."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        stopping = await client.post("/api/server/shutdown")
    assert (stopping.status_code, stopping.json(), control.commands) == (202, {"state": "stopping"}, [("shutdown",)])


@in_loop
async def test_the_token_is_as_good_as_the_key() -> None:
    """Programs of this user need no key; without a key nobody is asked for the token either."""
    async with client_of(FakeBackend(), api_key="secret", token="by-file") as client:  # noqa: S106 - a test's
        for headers, status in (({"x-api-key": "by-file"}, 200), ({"x-api-key": "secret"}, 200), ({}, 401)):
            assert (await client.get("/api/status", headers=headers)).status_code == status
    async with client_of(FakeBackend(), token="by-file") as client:  # noqa: S106 - a test's
        assert (await client.get("/api/status")).status_code == 200


@in_loop
async def test_select_hides_no_model() -> None:
    """A model may be called `select`; the command is a POST and the card a GET."""
    async with client_of(FakeBackend()) as client:
        assert error_of(await client.get(SELECT))["code"] == "model_not_found"
        wrong = await client.post("/v1/models/small", json={"model": "small"})
    assert (wrong.status_code, error_of(wrong)["code"]) == (405, "method_not_allowed")
