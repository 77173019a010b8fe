"""An http(s) address of a picture, taken apart once. Pure; what connects uses these parts and never the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

import httpx

from periscope.errors import ConfigError, ImageSourceRefused

MAX_URL_CHARS: Final = 4096
_PORTS: Final = {"http": 80, "https": 443}
#: The last label of a name is never a number: `127.1`, `0x7f000001` and `2130706433` are spellings of addresses.
_ENDS_IN_NUMBER: Final = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)$")
_NAME: Final = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ALLOWED: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]@]+)(?::([0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class PictureURL:
    """Where a picture is.

    Attributes:
        host: a name in lower-case ASCII without a final dot, or an IP address without brackets.
        port: the one that is meant, also where it is not written.
        target: path and query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, which nobody has to resolve."""
        return _is_address(self.host)

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def has_usual_port(self) -> bool:
        """Whether the port is one of the web's."""
        return self.port in _PORTS.values()

    def at(self, address: str) -> str:
        """The URL with an address in place of the host's name."""
        literal = f"[{address}]" if ":" in address else address
        return f"{self.scheme}://{literal}:{self.port}{self.target}"

    def joined(self, location: str, param: str) -> PictureURL:
        """Where a redirect leads.

        Raises:
            ImageSourceRefused: as `parse_picture_url`.
        """
        try:
            following = httpx.URL(f"{self.scheme}://{self.authority}{self.target}").join(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise _no_url(param) from error
        return parse_picture_url(str(following), param)


def parse_picture_url(text: str, param: str) -> PictureURL:
    """Pure: the parts of an http(s) URL.

    Raises:
        ImageSourceRefused: it is none, is too long, holds a user name or password, or spells an address as a number.
    """
    if len(text) > MAX_URL_CHARS:
        raise ImageSourceRefused(
            f"The image address in `{param}` has {len(text):,} characters; at most {MAX_URL_CHARS:,} are taken. "
            "Send the image as a data: URL.",
            param=param,
        )
    try:
        url = httpx.URL(text)
        host = url.raw_host.decode("ascii").strip("[]").removesuffix(".").lower()
        port = url.port if url.port is not None else _PORTS.get(url.scheme, 0)
    except (httpx.InvalidURL, ValueError) as error:
        raise _no_url(param) from error
    if url.userinfo or "@" in url.netloc.decode("ascii", "replace"):
        raise ImageSourceRefused(
            f"The image address in `{param}` holds a user name or password, which are never sent. Leave them out.",
            param=param,
        )
    if url.scheme not in _PORTS or not 0 < port < 2**16 or not _is_host(host):
        raise _no_url(param)
    return PictureURL(url.scheme, host, port, url.raw_path.decode("ascii"))


def allowed_host(entry: str) -> tuple[str, int | None]:
    """Pure: an entry of `allow_hosts`, as host and port; None = the web's ports.

    Raises:
        ConfigError: it is neither `host` nor `host:port`.
    """
    match = _ALLOWED.fullmatch(entry)
    try:
        url = parse_picture_url("" if match is None else f"http://{match[1]}:{match[2] or 80}/", "")
    except ImageSourceRefused as error:
        problem = f"{entry!r} should be a host such as nas.local, 192.168.1.5:8080 or [fd00::5]."
        raise ConfigError((f"server.remote_images.allow_hosts: {problem}",)) from error
    return url.host, None if match is None or match[2] is None else url.port


def _is_host(host: str) -> bool:
    if _is_address(host):
        return "%" not in host
    return len(host) <= 253 and _NAME.fullmatch(host) is not None and not _ENDS_IN_NUMBER.search(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _no_url(param: str) -> ImageSourceRefused:
    return ImageSourceRefused(
        f"The image address in `{param}` is no http: or https: URL with a host's name. "
        "Write it like https://example.com/picture.png, or send the image as a data: URL.",
        param=param,
    )
