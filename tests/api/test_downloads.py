"""The routes of downloads."""

from __future__ import annotations

import pytest

from periscope.core import DownloadCommand
from periscope.errors import DownloadConflict, DownloadNotFound, HubError, InvalidRequest, ServerBusy
from tests.api.driving import FakeBackend, client_of, error_of, in_loop
from tests.api.fake_control import DOWNLOAD, FakeControl
from tests.api.test_status_wire import DOWNLOAD_WIRE


@in_loop
async def test_downloads_are_begun_listed_and_steered() -> None:
    """Each answer is the row that the snapshot has."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        body = {"model": "org/Text-4bit", "revision": "v1", "only": True}
        assert (await client.post("/api/downloads", json=body)).json() == {"downloads": [DOWNLOAD_WIRE]}
        assert (await client.post("/api/downloads", json={"model": "text"})).status_code == 200
        assert (await client.get("/api/downloads")).json() == {"downloads": [DOWNLOAD_WIRE]}
        assert (await client.get(f"/api/downloads/{DOWNLOAD.id}")).json() == DOWNLOAD_WIRE
        for command in DownloadCommand:
            assert (await client.post(f"/api/downloads/{DOWNLOAD.id}/{command}")).json() == DOWNLOAD_WIRE
    assert control.commands == [
        ("start_download", "org/Text-4bit", "v1", True),
        ("start_download", "text", None, False),
        ("download", "dl-1"),
        *(("steer_download", "dl-1", command) for command in DownloadCommand),
    ]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model"),
        ({"model": ""}, "model"),
        ({"model": 3}, "model"),
        ({"model": "x" * 201}, "model"),
        ({"model": "m", "revision": ""}, "revision"),
        ({"model": "m", "only": "yes"}, "only"),
        ({"model": "m", "force": True}, "force"),
    ],
)
@in_loop
async def test_a_bad_command_is_a_400_that_names_the_field(body: dict[str, object], param: str) -> None:
    """And nothing is begun."""
    control = FakeControl()
    async with client_of(FakeBackend(), control) as client:
        refused = await client.post("/api/downloads", json=body)
    assert (refused.status_code, error_of(refused)["param"]) == (400, param)
    assert control.commands == []


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (DownloadNotFound("none", param="id"), 404, "download_not_found"),
        (DownloadConflict("done"), 409, "download_conflict"),
        (InvalidRequest("embedded", param="model"), 400, "invalid_value"),
        (ServerBusy("too many"), 503, "server_busy"),
        (HubError("gated"), 502, "hub_error"),
    ],
)
@in_loop
async def test_what_cannot_be_done_has_its_status(error: Exception, status: int, code: str) -> None:
    """A client can tell a wrong id from a download that has ended."""
    async with client_of(FakeBackend(), FakeControl(error)) as client:
        refused = await client.post("/api/downloads/dl-1/pause")
    assert (refused.status_code, error_of(refused)["code"]) == (status, code)
