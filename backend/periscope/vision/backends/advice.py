"""Advice on a remote captioner that does not work: one sentence with the problem, one with the fix.

Pure. The sentences never hold the API key or any part of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.errors import (
    ConnectionFault,
    RemoteAnswerBroken,
    RemoteError,
    RemoteRefused,
    RemoteTimedOut,
    RemoteUnreachable,
)

if TYPE_CHECKING:
    from periscope.vision.backends.remote_server import RemoteServer

#: How many models of a listing a message names; gateways list hundreds.
_MAX_LISTED = 10
#: Statuses with which servers refuse an image that their model cannot see. Triton answers every error with 400.
_BLIND_STATUSES = (400, 415, 422, 500, 501)


def advice_on(error: RemoteError, server: RemoteServer) -> str:
    """The problem and the fix."""
    match error:
        case RemoteUnreachable():
            return f"{error.message} {_connection_fix(error.fault, server)}"
        case RemoteTimedOut():
            return f"{error.message} Check whether it hangs or is overloaded, or raise `timeout_s` of the captioner."
        case RemoteRefused():
            return _refusal_advice(error, server)
        case RemoteAnswerBroken():
            return f"{error.message} {_url_fix(server)}"
        case _:
            return error.message


def no_such_model(server: RemoteServer, listed: Sequence[str]) -> str:
    """The advice for a server that works, but serves other models."""
    shown = ", ".join(listed[:_MAX_LISTED]) + (", ..." if len(listed) > _MAX_LISTED else "")
    serves = f"it serves {shown}" if listed else "it serves none"
    return (
        f"The server at {server.base_url} does not serve {server.model!r}; {serves}. "
        "Set `remote.model` (or --vlm-model) to the id of one that can see."
    )


def is_blind(error: RemoteError, server: RemoteServer) -> bool:
    """Whether the server says that its model takes no images."""
    if not isinstance(error, RemoteRefused) or error.status not in (*_BLIND_STATUSES, None):
        return False
    said = (error.said or "").lower()
    return any(words in said for words in server.dialect.blind_words)


def is_of_the_server(error: RemoteError, server: RemoteServer) -> bool:
    """Whether the error would meet every image, not only this one."""
    if isinstance(error, RemoteRefused):
        return error.status in (401, 403, 404) or is_blind(error, server)
    return isinstance(error, RemoteUnreachable)


def _connection_fix(fault: ConnectionFault, server: RemoteServer) -> str:
    match fault:
        case ConnectionFault.REFUSED:
            return f"Start {server.dialect.server} there, or correct `remote.base_url` (--vlm-base-url)."
        case ConnectionFault.NAME:
            return "The host's name cannot be resolved: correct `remote.base_url` (--vlm-base-url), or your DNS."
        case ConnectionFault.TLS:
            return (
                "TLS failed: write http:// if it speaks plain HTTP; if its certificate is your own, name that of its "
                "authority in `remote.ca_file`."
            )
        case ConnectionFault.OTHER:
            return "Check the network, and `remote.base_url` (--vlm-base-url)."


def _refusal_advice(error: RemoteRefused, server: RemoteServer) -> str:
    if is_blind(error, server):
        return (
            f"The model {server.model!r} of the server at {server.base_url} cannot see pictures: {error.said} "
            "Serve a vision-language model there, or name one that it serves in `remote.model`."
        )
    match error.status:
        case 401 | 403:
            return f"{error.message} {_key_fix(server)}"
        case 404 | 405:
            return f"{error.message} {_url_fix(server)}"
        case status if status is not None and 300 <= status < 400:
            return f"{error.message} Redirects are not followed: write the address it leads to in `remote.base_url`."
        case _:
            return error.message


def _key_fix(server: RemoteServer) -> str:
    if server.missing_key is not None:
        return f"The environment variable {server.missing_key} (`remote.api_key_env`) is not set: set it and restart."
    return "Name the environment variable that holds the server's key in `remote.api_key_env`, or correct the key."


def _url_fix(server: RemoteServer) -> str:
    example = server.dialect.example_url
    if not server.base_url.rstrip("/").endswith("/v1"):
        return f"`remote.base_url` should most likely end in /v1, as in {example}."
    return f"Is this the base URL of the OpenAI API of {server.dialect.server}, as in {example}?"
