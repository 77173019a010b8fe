"""The MCP servers of a configuration: what is said of those that cannot be used."""

from __future__ import annotations

from periscope.conversations.server_pool import McpServers, ServerTerms
from periscope.conversations.servers import HttpServer
from tests.api.driving import in_loop


@in_loop
async def test_a_server_that_cannot_be_used_is_a_problem_for_as_long_as_it_is_configured_so() -> None:
    """A key that is not there is told before any request wants the server, and once it is there no more."""
    problems: dict[str, str | None] = {}
    keyless = {name: ServerTerms(name, None, "the environment variable KEY is not set") for name in ("a", "b")}
    servers = McpServers(keyless, problems.__setitem__)
    sentence = "The MCP server a cannot be reached: the environment variable KEY is not set."
    assert problems["MCP server a"] == sentence
    assert servers.statuses[0].problem == "the environment variable KEY is not set"

    servers.configure({"a": keyless["a"]})
    assert problems == {"MCP server a": sentence, "MCP server b": None}
    servers.configure({"a": ServerTerms("a", HttpServer("a", "http://127.0.0.1:1/mcp"))})
    assert problems["MCP server a"] is None
    await servers.close()
