"""MCP servers in models.yaml: what is taken, what is refused, and what a server without its key becomes."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.config import describe, with_models_of
from periscope.conversations import HttpServer, StdioServer
from periscope.errors import ConfigError
from periscope.tool_servers import tool_servers_of
from tests.config.files import ONE, load_text, problems_of

TWO = (
    ONE
    + """
mcp_servers:
  - name: docs
    url: https://tools.example/mcp
    auth_token_env: PERISCOPE_DOCS
    headers: {X-Team: tools}
    headers_env: {X-Api-Key: DOCS_KEY}
    timeout_s: 2m
    allowed_tools: [find]
    require_approval: never
    approval_for: [drop]
  - name: files
    command: ./bin/files
    args: [--fast]
    env: {LEVEL: high}
    env_from: [HOME_KEY]
"""
)
ENV = {"PERISCOPE_DOCS": "secret", "DOCS_KEY": "key", "HOME_KEY": "inherited"}


def test_a_server_has_its_keys_from_the_environment_and_its_paths_from_the_file(tmp_path: Path) -> None:
    """Both kinds; no key is shown by `config show`."""
    config = load_text(TWO, ENV, folder=tmp_path)
    docs, files = tool_servers_of(config).values()
    assert isinstance(docs.server, HttpServer)
    sent = {"X-Team": "tools", "X-Api-Key": "key", "Authorization": "Bearer secret"}
    assert (docs.server.sent_headers, docs.server.timeout_s) == (sent, 120)
    assert (docs.allowed_tools, docs.approval, docs.approval_for) == (frozenset({"find"}), "never", frozenset({"drop"}))
    program, env = str(tmp_path / "bin/files"), {"LEVEL": "high", "HOME_KEY": "inherited"}
    assert files.server == StdioServer("files", program, ("--fast",), env)
    shown = {key: value for key, value, _ in describe(config)}
    assert shown["mcp_servers[0].headers"] == {"X-Team": "********"}
    assert shown["mcp_servers[1].env"] == {"LEVEL": "********"}
    assert not set(map(str, shown.values())) & set(ENV.values())


@pytest.mark.parametrize(
    ("text", "env", "problem"),
    [
        (TWO, {}, "the environment variable DOCS_KEY is not set"),
        (TWO.replace("_env: PERISCOPE_DOCS", "_file: ./token"), {"DOCS_KEY": "key"}, "token cannot be read"),
    ],
)
def test_a_server_without_its_key_hinders_no_start(text: str, env: dict[str, str], problem: str) -> None:
    """It cannot be used, and says why."""
    docs = tool_servers_of(load_text(text, env))["docs"]
    assert docs.server is None
    assert problem in (docs.problem or "")


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ("{name: a}", "mcp_servers[0] has neither url nor command; give one"),
        ("{name: a, url: 'http://h/mcp', command: b}", "mcp_servers[0] has url and command; give one"),
        ("{name: a b, command: c}", "mcp_servers[0].name should be made of letters, digits, _ and -"),
        ("{name: a, url: 'ftp://h'}", "mcp_servers[0].url should be a URL such as https://tools.example/mcp"),
        ("{name: a, command: b, headers: {A: b}}", "mcp_servers[0].headers is for a server at a url"),
        ("{name: a, url: 'http://h', args: [b]}", "mcp_servers[0].args is for a program"),
        ("{name: a, command: b, require_approval: maybe}", "should be 'request', 'always' or 'never', got 'maybe'"),
        ("{name: a, command: b, timeout_s: 0}", "mcp_servers[0].timeout_s should be greater"),
        ("{name: a, command: b}\n  - {name: a, command: c}", "mcp_servers[1].name is already taken in line"),
        ("{name: a, url: 'http://h', auth_token_env: A, auth_token_file: b}", "stands beside auth_token_env; give one"),
    ],
)
def test_what_cannot_be_used_is_an_error_with_the_fix(entry: str, problem: str) -> None:
    """At start, by its place in the file."""
    (told,) = problems_of(f"{ONE}mcp_servers:\n  - {entry}\n")
    assert problem in told


def test_a_reload_takes_other_servers() -> None:
    """None of them needs a restart."""
    running = load_text(ONE)
    config, needs_restart = with_models_of(running, load_text(TWO, ENV))
    assert [server.name for server in config.mcp_servers] == ["docs", "files"]
    assert not any("mcp" in key for key in needs_restart)


def test_there_are_no_servers_without_a_list() -> None:
    """And a list that is no list is an error."""
    assert tool_servers_of(load_text(ONE)) == {}
    with pytest.raises(ConfigError, match="mcp_servers should be a list"):
        load_text(ONE + "mcp_servers: {docs: 1}\n")
