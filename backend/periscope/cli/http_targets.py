"""The targets of requests in the forms that HTTP has beside a path (RFC 9112, 3.2)."""

from __future__ import annotations

import re
from typing import Final

import h11

from periscope.api.auth import host_name

_ABSOLUTE: Final = re.compile(rb"https?://(?P<authority>[^/?#]+)(?P<rest>.*)", re.IGNORECASE)


class TargetRefused(h11.RemoteProtocolError):
    """A request asks for something that is no path of this server."""

    def __init__(self) -> None:
        super().__init__("Its target must be a path that begins with `/`, or a URL of this server.")


def path_of(target: bytes) -> bytes:
    """Pure: the path and query of a target; "/" if it has none, as in `OPTIONS *`."""
    if target.startswith(b"/"):
        return target
    absolute = _ABSOLUTE.fullmatch(target)
    return b"/" if absolute is None else b"/" + absolute["rest"].removeprefix(b"/")


def with_path(request: h11.Request) -> h11.Request:
    """Pure: the request as it would be with a path as its target; `OPTIONS *`, which asks about no path, stays.

    The host of a URL takes the place of the Host header. If they name different ones, the header has both, which no
    server is called, so that neither of them hides the other from the guard.

    Raises:
        TargetRefused: the target is neither a path nor a URL.
    """
    if request.target.startswith(b"/") or (request.method, request.target) == (b"OPTIONS", b"*"):
        return request
    absolute = _ABSOLUTE.fullmatch(request.target)
    if absolute is None:
        raise TargetRefused
    host = absolute["authority"]
    headers = []
    for name, value in request.headers:
        if name != b"host":
            headers.append((name, value))
        elif host_name(value.decode("latin-1")) != host_name(host.decode("latin-1")):
            host = value + b", " + host
    return h11.Request(
        method=request.method,
        target=path_of(request.target),
        headers=[(b"host", host), *headers],
        http_version=request.http_version,
    )
