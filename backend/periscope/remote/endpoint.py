"""Where another server is, and how it is asked: plain data, checked when it is made."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from periscope.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a server may take, in seconds; None = for ever.

    Attributes:
        connect_s: to accept a connection.
        silence_s: between two arrivals of bytes, and before the first one. Heartbeats count.
        total_s: for a whole request, from sending it to the end of the answer.
    """

    connect_s: float | None = 5.0
    silence_s: float | None = 60.0
    total_s: float | None = None


#: Of an answer that is not streamed.
MAX_ANSWER_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An OpenAI-compatible server.

    Attributes:
        base_url: as the OpenAI SDKs take it, such as `http://127.0.0.1:8000/v1`: paths are appended to it as it stands.
        api_key: sent as a bearer token; None = the server wants none.
        extra_body: fields of every chat completion request; a request's own fields win.
        ca_file: certificates, as PEM, of the authorities that may vouch for the server; None = those that are commonly
            trusted.
        pinned: the certificate, as PEM, that the server must show, whatever names stand in it; instead of `ca_file`.
        uds: Unix socket at which the server is; the base URL's host and port are not looked for then.
        max_answer_bytes: a longer answer is not read to its end, streamed or not.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    timeouts: Timeouts = Timeouts()
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    ca_file: Path | None = None
    pinned: Path | None = None
    uds: Path | None = None
    max_answer_bytes: int = MAX_ANSWER_BYTES

    def __post_init__(self) -> None:
        problem = _problem_of_url(self.base_url) or _problem_of_key(self.api_key)
        if problem is not None:
            raise ConfigError((problem,))

    def url_of(self, path: str) -> str:
        """Pure: the address of `path`, relative to the base URL; `../` leaves its last segment."""
        return str(httpx.URL(f"{self.base_url.rstrip('/')}/").join(path))


def pinned_context(certificate: Path) -> ssl.SSLContext:
    """TLS for a client that knows the server's own certificate, the first one of a PEM file. Reads the file.

    Raises:
        OSError, ValueError: the file cannot be read or holds no certificate; `ssl.SSLError` is an OSError.
    """
    text = certificate.read_text(encoding="ascii")
    end = "-----END CERTIFICATE-----"
    leaf = text[text.index("-----BEGIN CERTIFICATE-----") : text.index(end) + len(end)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the certificate itself is trusted, whoever has issued it
    context.load_verify_locations(cadata=leaf)
    return context


def _problem_of_url(url: str) -> str | None:
    """Names the URL only where it cannot hold a password."""
    if "@" in url:
        return "The base URL of a server holds a user name or password. Give a key as the API key instead."
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host or not 0 < (parts.port or 80) < 2**16:
        return f"{url!r} is not the base URL of a server. Write it like http://127.0.0.1:8000/v1."
    if parts.query or parts.fragment:
        return "The base URL of a server holds a query or a fragment. Leave out what follows its path."
    return None


def _problem_of_key(key: str | None) -> str | None:
    """Never names the key."""
    if key is None or (key and key.isascii() and key.isprintable() and key == key.strip()):
        return None
    return "The API key for a server cannot be sent: use visible ASCII characters alone, and at least one."
