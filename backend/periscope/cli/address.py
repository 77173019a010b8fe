"""Where a server is found: its URL, or its Unix socket, and the certificate by which it is known."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.cli.listen import url_of

if TYPE_CHECKING:
    import httpx

    from periscope.config import ServerConfig
    from periscope.service import RunningServer

#: What stands before the path of a Unix socket, where others have a URL.
UNIX = "unix:"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is found.

    Attributes:
        url: `http://host:port`, `https://host:port` or `unix:/path`, without `/v1`.
        certificate: the one that it must show, whatever names stand in it; None = those that are commonly trusted.
    """

    url: str
    certificate: Path | None = None

    @property
    def uds(self) -> Path | None:
        """The Unix socket, if it is one."""
        return Path(self.url.removeprefix(UNIX)) if self.url.startswith(UNIX) else None

    @property
    def base_url(self) -> str:
        """What requests are sent to, without `/v1`; over a Unix socket the host is any that the server answers to."""
        return self.url if self.uds is None else "http://localhost"

    def get(self, path: str, timeout_s: float, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """One short answer. Blocks.

        Raises:
            httpx.HTTPError, httpx.InvalidURL, OSError, ValueError: nobody answers, or not as one who can be trusted.
        """
        import httpx

        from periscope.remote import pinned_context

        trust: ssl.SSLContext | bool = True
        if self.certificate is not None:
            trust = pinned_context(self.certificate)
        elif not self.url.startswith("https:"):
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # is not used; reading the authorities takes 0.2 s
        uds = None if self.uds is None else str(self.uds)
        transport = httpx.HTTPTransport(verify=trust, uds=uds, trust_env=False)
        with httpx.Client(transport=transport, timeout=timeout_s, trust_env=False) as client:
            return client.get(f"{self.base_url}{path}", headers=headers)


def address_of(server: ServerConfig, port: int | None = None) -> Address:
    """Pure: where a client on this machine reaches a server of these settings.

    Args:
        port: the one that it really has; None = the configured one.
    """
    if not server.tcp:
        return Address(f"{UNIX}{server.uds}")
    certificate = None if server.tls.cert is None else Path(server.tls.cert)
    scheme = "http" if certificate is None else "https"
    return Address(url_of(server.host, server.port if port is None else port, scheme), certificate)


def address_in(running: RunningServer) -> Address:
    """Pure: where the server is that wrote `server.json`."""
    return Address(running.url, None if running.certificate is None else Path(running.certificate))
