"""Config -> the MCP servers that requests may have tools of, and what they may do with each. May read files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from periscope.config import Config, McpServerConfig
from periscope.conversations.server_pool import ServerTerms
from periscope.conversations.servers import HttpServer, McpServer, StdioServer
from periscope.conversations.session import connection_class
from periscope.errors import ConfigError


def tool_servers_of(config: Config) -> dict[str, ServerTerms]:
    """The servers by name, in the order of the file. One whose key is not there cannot be used, and says so.

    Raises:
        ConfigError: there are servers, and the MCP SDK is not installed.
    """
    if config.mcp_servers:
        connection_class()
    return {server.name: _terms_of(server, config.api_keys) for server in config.mcp_servers}


def _terms_of(server: McpServerConfig, values: Mapping[str, str]) -> ServerTerms:
    place, problem = None, None
    try:
        place = _place_of(server, values)
    except _Missing as missing:
        problem = str(missing)
    return ServerTerms(
        server.name,
        place,
        problem,
        allowed_tools=None if server.allowed_tools is None else frozenset(server.allowed_tools),
        approval=server.require_approval,
        approval_for=frozenset(server.approval_for),
    )


class _Missing(Exception):
    """A variable or a file that a server needs is not there; says which."""


def _place_of(server: McpServerConfig, values: Mapping[str, str]) -> McpServer:
    try:
        if server.command is not None:
            return StdioServer(
                server.name,
                server.command,
                server.args,
                {**{name: _value_of(name, values) for name in server.env_from}, **server.env},
                None if server.cwd is None else Path(server.cwd),
                timeout_s=server.timeout_s,
                connect_timeout_s=server.connect_timeout_s,
            )
        headers = {header: _value_of(name, values) for header, name in server.headers_env.items()}
        return HttpServer(
            server.name,
            server.url or "",
            auth_token=_token_of(server, values),
            headers={**server.headers, **headers},
            ca_file=None if server.ca_file is None else Path(server.ca_file),
            checks_certificate=server.check_certificate,
            timeout_s=server.timeout_s,
            connect_timeout_s=server.connect_timeout_s,
        )
    except ConfigError as error:
        raise _Missing(error.message) from None


def _token_of(server: McpServerConfig, values: Mapping[str, str]) -> str | None:
    if server.auth_token_env is not None:
        return _value_of(server.auth_token_env, values)
    if server.auth_token_file is None:
        return None
    try:
        token = Path(server.auth_token_file).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        raise _Missing(f"its auth_token_file {server.auth_token_file} cannot be read") from None
    if not token:
        raise _Missing(f"its auth_token_file {server.auth_token_file} is empty")
    return token


def _value_of(name: str, values: Mapping[str, str]) -> str:
    if name not in values:
        raise _Missing(f"the environment variable {name} is not set")
    return values[name]
