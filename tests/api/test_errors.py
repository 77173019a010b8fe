"""The one table of errors, and that every refusal is an error object."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from periscope import errors as e
from periscope.api.errors import ROWS, UNEXPECTED, ErrorRow, row_of
from tests.api.driving import FakeBackend, client_of, error_of, in_loop, post_chat


def family(root: type[Exception]) -> Iterator[type[Exception]]:
    yield root
    for child in root.__subclasses__():
        yield from family(child)


@pytest.mark.parametrize("error", [c for c in family(e.PeriscopeError) if c.__module__.startswith("periscope.")])
def test_every_error_class_has_its_own_row(error: type[Exception]) -> None:
    """No class of the tree gets its status by accident."""
    assert error in ROWS


def test_client_faults_are_4xx_and_ours_are_5xx() -> None:
    """The branch of the tree decides who is to blame; no slow reader, command or configuration is a server's fault."""
    for error, row in ROWS.items():
        is_client_fault = issubclass(error, (e.RequestError, e.ReaderTooSlow, e.RequestCancelled, e.ConfigError))
        assert (400 <= row.status < 500) == is_client_fault, error
        assert row.type == ("invalid_request_error" if is_client_fault else "server_error")


def test_a_class_without_a_row_takes_its_nearest_ancestors() -> None:
    """A later subclass is answered sensibly before anybody remembers the table."""

    class OutOfPaper(e.ServerBusy):
        """Not in the table."""

    assert row_of(OutOfPaper("Wait.")) == ROWS[e.ServerBusy]
    assert row_of(KeyError("x")) == UNEXPECTED


RAISED: list[tuple[Exception, ErrorRow]] = [
    (
        e.ImageRejected("No images.", param="messages[0].content[1]"),
        ErrorRow(400, "invalid_request_error", "image_input_unsupported"),
    ),
    (
        e.ContextLengthExceeded(9, 8),
        ErrorRow(400, "invalid_request_error", "context_length_exceeded"),
    ),
    (e.ModelNotFound("No such model.", param="model"), ErrorRow(404, "invalid_request_error", "model_not_found")),
    (e.ServerBusy("Full.", retry_after_s=7), ErrorRow(503, "server_error", "server_busy")),
    (e.ReaderTooSlow("Too slow."), ErrorRow(408, "invalid_request_error", "reader_too_slow")),
    (e.GenerationFailed("It broke."), ErrorRow(500, "server_error", "generation_failed")),
    (e.RequestCancelled("Stopped."), ErrorRow(499, "invalid_request_error", "request_cancelled")),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("error", "row"), RAISED)
@in_loop
async def test_an_error_before_the_first_event_has_its_status(error: Exception, row: ErrorRow, stream: bool) -> None:
    """Streamed or not, what the backend refuses at once is a plain HTTP error."""
    body = {"stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    response = await post_chat(FakeBackend(error), body)
    assert response.status_code == row.status
    told = error_of(response)
    assert (told["type"], told["code"]) == (row.type, row.code)
    assert told["param"] == getattr(error, "param", None)
    assert told["message"] == str(error)
    assert response.headers.get("retry-after") == ("7" if isinstance(error, e.ServerBusy) else None)


@pytest.mark.parametrize("stream", [False, True])
@in_loop
async def test_an_unexpected_error_keeps_its_secrets(stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    """The client gets a 500 and the id of the log entry; the traceback stays in the log."""
    body = {"stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    response = await post_chat(FakeBackend(KeyError("/secret/path")), body)
    assert response.status_code == 500
    told = error_of(response)
    assert told["code"] == "internal_error"
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in told["message"]
    (logged,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert logged.exc_info


@in_loop
async def test_unknown_paths_and_methods_are_error_objects() -> None:
    """404 and 405 speak OpenAI too, and 405 says what the path takes."""
    async with client_of(FakeBackend()) as client:
        for path in ("/v1/nothing", "/docs", "/redoc"):
            response = await client.get(path)
            assert response.status_code == 404
            assert error_of(response)["code"] == "route_not_found"
        answers = {path: await client.put(path) for path in ("/v1/chat/completions", "/v1/responses/resp_1")}
    for response in answers.values():
        assert response.status_code == 405
        assert error_of(response)["code"] == "method_not_allowed"
    allowed = [response.headers["allow"] for response in answers.values()]
    assert allowed == ["POST", "GET, HEAD, DELETE"]


@in_loop
async def test_a_failing_probe_is_an_error_object() -> None:
    """Even a backend that cannot tell its health gets the client a readable 500."""
    backend = FakeBackend()
    backend.reading = RuntimeError("boom")
    async with client_of(backend) as client:
        response = await client.get("/health")
    assert response.status_code == 500
    assert error_of(response)["code"] == "internal_error"
