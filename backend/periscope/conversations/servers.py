"""Where MCP servers are and how they are asked: plain data, checked when it is made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from periscope.errors import ConfigError

#: It stands before the names of tools that collide.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
DEFAULT_TIMEOUT_S: Final = 60.0
DEFAULT_CONNECT_TIMEOUT_S: Final = 30.0
_MAX_TIMEOUT_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class HttpServer:
    """An MCP server that is reached by streamable HTTP.

    Attributes:
        name: 1 to 32 letters, digits, `_` and `-`; unique within a session.
        url: of its endpoint, such as `https://tools.example/mcp`.
        auth_token: sent as a bearer token; None = the server wants none.
        headers: sent with every request.
        ca_file: certificates, as PEM, of the authorities that may vouch for the server; None = those that are commonly
            trusted.
        checks_certificate: False takes any certificate, for a server of one's own on a trusted network only.
        timeout_s: seconds that one call may take.
        connect_timeout_s: seconds that one attempt to connect, or one listing of tools, may take. A program that is
            installed by its first start may need more.

    Raises:
        ConfigError: a value cannot be used.
    """

    name: str
    url: str
    auth_token: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    ca_file: Path | None = None
    checks_certificate: bool = True
    timeout_s: float = DEFAULT_TIMEOUT_S
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S

    def __post_init__(self) -> None:
        _check(self.name, timeout_s=self.timeout_s, connect_timeout_s=self.connect_timeout_s)
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError((f"The `url` of MCP server {self.name} must begin with http:// or https:// and a host.",))
        if "@" in parts.netloc:
            raise ConfigError((f"The `url` of MCP server {self.name} holds a password. Give it as `auth_token`.",))

    @property
    def place(self) -> str:
        """Where it is, for the log."""
        return self.url.partition("?")[0]

    @property
    def sent_headers(self) -> dict[str, str]:
        """All headers of ours, the token included."""
        token = {} if self.auth_token is None else {"Authorization": f"Bearer {self.auth_token}"}
        return {**self.headers, **token}


@dataclass(frozen=True, slots=True)
class StdioServer:
    """An MCP server that is a program, which the session starts and ends.

    Attributes:
        name: as of `HttpServer`.
        command, args: the program and its arguments; no shell reads them.
        env: variables beside PATH, HOME and the like, which alone are inherited.
        cwd: the folder it runs in; None = that of this process.
        timeout_s, connect_timeout_s: as of `HttpServer`.

    Raises:
        ConfigError: a value cannot be used.
    """

    name: str
    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: Path | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    connect_timeout_s: float = DEFAULT_CONNECT_TIMEOUT_S

    def __post_init__(self) -> None:
        _check(self.name, timeout_s=self.timeout_s, connect_timeout_s=self.connect_timeout_s)
        if not self.command:
            raise ConfigError((f"The `command` of MCP server {self.name} is empty: name the program to start.",))
        if isinstance(self.args, str):  # a sequence of its characters otherwise
            raise ConfigError((f"The `args` of MCP server {self.name} are one text. Give a tuple with each of them.",))

    @property
    def place(self) -> str:
        """The program, for the log. Its arguments may be secrets."""
        return self.command


McpServer: TypeAlias = HttpServer | StdioServer


def _check(name: str, **timeouts: float) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigError((f"The name of an MCP server has 1 to 32 letters, digits, _ and -; got {name[:64]!r}.",))
    for field_name, value in timeouts.items():
        if not 0 < value <= _MAX_TIMEOUT_S:
            raise ConfigError(
                (f"`{field_name}` of MCP server {name} must be above 0 and at most {_MAX_TIMEOUT_S}, got {value}.",)
            )
