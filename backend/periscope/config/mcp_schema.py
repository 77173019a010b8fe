"""The settings of MCP servers, whose tools the server calls for clients of `/v1/responses`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from periscope.config.quantities import SECONDS
from periscope.config.section import DAY_S, ENV_NAME, MCP_NAME, MCP_URL, Section, setting

Variable = Annotated[str, Field(pattern=ENV_NAME, max_length=200)]
#: Keys that mean something for one of the two kinds of servers only.
OF_URL: Final = ("auth_token_env", "auth_token_file", "headers", "headers_env", "ca_file", "check_certificate")
OF_COMMAND: Final = ("args", "env", "env_from", "cwd")


class McpServerConfig(Section):
    """One MCP server: reached at a URL, or a program that is started when it is first needed."""

    name: str = Field(
        pattern=MCP_NAME, max_length=32, description="Requests name it as server_label. It must be unique."
    )
    url: str | None = setting(
        None, "Its endpoint, for streamable HTTP. Give this or command.", pattern=MCP_URL, max_length=2000
    )
    auth_token_env: Variable | None = setting(None, "Environment variable that holds the bearer token.")
    auth_token_file: str | None = setting(
        None, "File that holds the bearer token, relative to this one.", min_length=1, max_length=4096
    )
    headers: dict[str, str] = setting({}, "Headers of each request to it, e.g. {X-Team: tools}.")
    headers_env: dict[str, Variable] = setting(
        {}, "Headers whose values stand in environment variables, e.g. {X-Api-Key: DOCS_KEY}."
    )
    ca_file: str | None = setting(
        None,
        "PEM file of the authority that signed its TLS certificate. If unset, the public authorities.",
        min_length=1,
        max_length=4096,
    )
    check_certificate: bool = setting(
        True, "If false, any certificate is taken: for a server of your own on a trusted network only."
    )
    command: str | None = setting(
        None, "Program that is the server, for stdio. Give this or url.", min_length=1, max_length=4096
    )
    args: tuple[str, ...] = setting((), "Its arguments. No shell reads them.", strict=False)
    env: dict[str, str] = setting({}, "Variables for it, beside PATH, HOME and the like, which alone it inherits.")
    env_from: tuple[Variable, ...] = setting((), "Variables that it inherits, too, e.g. [GITHUB_TOKEN].", strict=False)
    cwd: str | None = setting(
        None, "Folder that it runs in, relative to this file. If unset, the server's.", min_length=1, max_length=4096
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=DAY_S), SECONDS] = setting(
        60.0, "Longest time for one call. Then the model is told that there was no answer.", "seconds"
    )
    connect_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        30.0, "Longest time for an attempt to connect, the start of a program included.", "seconds"
    )
    allowed_tools: tuple[str, ...] | None = setting(
        None, "Names of its tools that requests may have called. If unset, all.", strict=False
    )
    require_approval: Literal["request", "always", "never"] = setting(
        "request",
        "Calls that wait for the client's approval: request = as the request says, and all if it says nothing, as "
        "OpenAI does; always = all; never = those that a request asks for.",
    )
    approval_for: tuple[str, ...] = setting(
        (), "Names of tools whose calls wait for an approval whatever a request says.", strict=False
    )


def variables_of(server: McpServerConfig) -> tuple[str, ...]:
    """The environment variables that it names."""
    token = () if server.auth_token_env is None else (server.auth_token_env,)
    return (*token, *server.headers_env.values(), *server.env_from)


def named_variables(tree: Any) -> Iterator[str]:
    """The variables that all entries of a file name, which has not been checked yet; see `variables_of`."""
    entries = tree.get("mcp_servers") if isinstance(tree, dict) else None
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict):
            headers, inherited = entry.get("headers_env"), entry.get("env_from")
            values = [entry.get("auth_token_env"), *(headers.values() if isinstance(headers, Mapping) else ())]
            values += inherited if isinstance(inherited, list) else []
            yield from (value for value in values if isinstance(value, str))
