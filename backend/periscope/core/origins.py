"""Who may call from inside a browser or a desktop app: Origin headers, and the patterns that let them in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21}
#: Schemes of pages that may come from anywhere in the world: those of today's browsers, those whose pages inherit or
#: hide where they come from, and those of peer-to-peer browsers. Any other scheme is one that a program on this machine
#: has defined for its own pages (VS Code, Obsidian, Tauri, Electron, browser extensions); no site can have it as its
#: origin. A page that was saved as a file is no exception: browsers send `null` for it, and only apps send `file://`.
#: `http://tauri.localhost`, Tauri's origin on Windows and Android, is not let in unasked: it is a web origin, and macOS
#: asks the name server for it.
WEB_SCHEMES = frozenset(_DEFAULT_PORTS) | {
    *("ftps", "data", "blob", "filesystem", "about", "javascript", "view-source"),
    *("ipfs", "ipns", "dweb", "dat", "hyper", "gemini", "gopher"),
}
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[0-9a-f:.]+\]|[^\s/:@\[\],?#\\]*)(?::([0-9]{1,5}))?")
_PATTERN = re.compile(r"([a-z][a-z0-9+.-]*)://(\[[^\]\s]*\]|[^\s/:\[\]]*)(?::([^\s/:]*))?(/\S*)?")
_WEB_HOST = re.compile(r"\*|(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
_MAX_PORT = 65_535
#: Top names that nobody can register: whatever ends so is on this machine or on the network around it.
_LOCAL_TOP_NAMES = frozenset({"localhost", "local", "lan", "home", "internal", "intranet", "private", "test"})
#: Second names under which countries let anybody register (`co.uk`), and hosts that give a name to whoever asks.
_PUBLIC_SECOND_NAMES = frozenset({"ac", "co", "com", "edu", "gob", "gov", "ne", "net", "or", "org"})
_SHARED_HOSTS = frozenset(
    {
        *("github.io", "gitlab.io", "vercel.app", "netlify.app", "pages.dev", "workers.dev", "web.app", "fly.dev"),
        *("firebaseapp.com", "herokuapp.com", "onrender.com", "azurewebsites.net", "cloudfront.net", "amazonaws.com"),
        *("hf.space", "glitch.me", "surge.sh", "ngrok.io", "ngrok.app", "ngrok-free.app", "trycloudflare.com"),
    }
)
_COUNTRY_LENGTH = 2


@dataclass(frozen=True, slots=True)
class _Origin:
    """What an Origin header says. A port that is the scheme's own is never written, and 0 where a scheme has none."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, header: str) -> Self | None:
        found = _ORIGIN.fullmatch(header.lower())
        if found is None or (found[1] in _DEFAULT_PORTS and not found[2]):
            return None
        return cls(found[1], found[2], int(found[3]) if found[3] else _DEFAULT_PORTS.get(found[1], 0))


@dataclass(frozen=True, slots=True)
class OriginPattern:
    """One entry of `server.cors_origins`.

    Attributes:
        host: itself, `*` for any, or `*.example.com` for every name that ends so.
        port: None = any.
    """

    scheme: str
    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """`http://localhost:3000`, `http://localhost:*`, `https://*.example.com`, `vscode-webview://*`, or `*`.

        Raises:
            ValueError: it could never match, or it lets in pages of strangers without saying so, as `*` does; the
                message tells which, and what to write instead.
        """
        if text == "*":
            return cls("*", "*", None)
        if text.lower() == "null":
            raise ValueError("is the origin of pages that hide theirs, which any site can do; name the origin or use *")
        found = _PATTERN.fullmatch(text.lower())
        if found is None:
            raise ValueError(_EXPECTED)
        scheme, host, port, path = found[1], found[2], found[3], found[4]
        if path not in (None, "/"):
            raise ValueError(f"has a path, which no origin has; write {text[: -len(path)]}")
        _check_host(scheme, host)
        return cls(scheme, host, _port(scheme, port))

    def matches(self, origin: _Origin) -> bool:
        """Pure: scheme, host and port are what the pattern says."""
        return (
            self.scheme in ("*", origin.scheme)
            and self._has_host(origin.host)
            and (self.port is None or self.port == origin.port)
        )

    def _has_host(self, host: str) -> bool:
        return self.host in ("*", host) or (self.host.startswith("*.") and host.endswith(self.host[1:]))


class AllowedOrigins:
    """Which origins may call and read: those of desktop apps, and those that a setting names."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(OriginPattern.parse(text) for text in patterns)
        self.are_all = any(pattern.scheme == "*" for pattern in self._patterns)

    def __contains__(self, header: str) -> bool:
        """Pure: the origin of this Origin header is let in."""
        if self.are_all:
            return True
        origin = _Origin.parse(header)
        if origin is None:
            return False
        return origin.scheme not in WEB_SCHEMES or any(pattern.matches(origin) for pattern in self._patterns)


_EXPECTED = "should be an origin such as http://localhost:3000, http://localhost:* or vscode-webview://*, or * for any"


def _check_host(scheme: str, host: str) -> None:
    if not host.isascii():
        raise ValueError("should name the host as browsers send it, in ASCII (xn--...)")
    if scheme in _DEFAULT_PORTS and not host:
        raise ValueError("names no host, so it matches nothing")
    if host != "*" and "*" in host.removeprefix("*."):
        raise ValueError("may have * for the whole host, before its first dot (*.example.com), or for the port only")
    if scheme in _DEFAULT_PORTS and not _WEB_HOST.fullmatch(host):
        raise ValueError(_EXPECTED)
    if scheme in WEB_SCHEMES and (strangers := _strangers(host)) is not None:
        raise ValueError(f"lets in {strangers}; name the host, as in https://*.example.com, or write * for any page")


def _strangers(host: str) -> str | None:
    """Pure: whose pages a pattern of this host lets in, if anybody can have a host that fits; None if not."""
    if host == "*":
        return "pages of every host"
    if not host.startswith("*."):
        return None
    *above, top = host.removeprefix("*.").split(".")
    name = ".".join((*above, top))
    if top.isdecimal():
        return "hosts by the end of their address"
    is_public = (
        (not above and top not in _LOCAL_TOP_NAMES)
        or name in _SHARED_HOSTS
        or (len(above) == 1 and len(top) == _COUNTRY_LENGTH and above[0] in _PUBLIC_SECOND_NAMES)
    )
    return f"every host under .{name}, where anybody can have one" if is_public else None


def _port(scheme: str, text: str | None) -> int | None:
    if text == "*":
        return None
    if text is None:
        return _DEFAULT_PORTS.get(scheme, 0)
    if not (text.isdecimal() and text.isascii() and 0 < int(text[:6]) <= _MAX_PORT):
        raise ValueError(f"should have a port from 1 to {_MAX_PORT}, or * for any")
    return int(text)
