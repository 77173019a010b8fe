"""`periscope connect`: settings that the clients' own parsers read, for the model that the server has."""

from __future__ import annotations

import ast
import json
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.clients import CLIENTS, KEY_PLACE, NO_KEY, Connection, find_client
from tests.cli.process import ServeProcess, new_home, run_command

cli = CliRunner()
AWKWARD = Connection("http://127.0.0.1:7374", 'my "model"', has_key=False, context_length=4096, takes_images=True)
KEYED = Connection("http://127.0.0.1:7374", "m", has_key=True, context_length=None, takes_images=False)


def settings(name: str, to: Connection) -> str:
    client = find_client(name)
    assert client is not None
    return client.settings(to)


def test_codex_reads_its_settings_as_toml() -> None:
    """Quotes in a model's name stay inside their string, and the provider speaks the one API that Codex has."""
    words = shlex.split(settings("codex", AWKWARD).replace("\\\n", " "), comments=True)
    assert words[0] == "codex"
    told = tomllib.loads("\n".join(word for word in words[1:] if word != "-c"))
    assert (told["model"], told["model_provider"]) == ('my "model"', "periscope")
    assert told["model_providers"]["periscope"]["base_url"] == "http://127.0.0.1:7374/v1"
    assert told["model_providers"]["periscope"]["wire_api"] == "responses"
    assert told["model_context_window"] == 4096


def test_claude_code_gets_variables_that_a_shell_can_read() -> None:
    """The address without /v1, the model for all tiers, and no API key that would win over the token."""
    lines = [line for line in settings("claude-code", AWKWARD).splitlines() if line.startswith("export ")]
    told = dict(shlex.split(line)[1].split("=", 1) for line in lines)
    assert told["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:7374"
    assert told["ANTHROPIC_DEFAULT_HAIKU_MODEL"] == 'my "model"'
    assert (told["ANTHROPIC_API_KEY"], told["ANTHROPIC_AUTH_TOKEN"]) == ("", NO_KEY)


def test_claude_code_knows_how_much_the_model_holds() -> None:
    """Its own idea of an answer, 32,000 tokens, would leave nothing of a small context for the conversation."""
    told = settings("claude-code", AWKWARD)
    assert "CLAUDE_CODE_MAX_CONTEXT_TOKENS=4096" in told
    assert "CLAUDE_CODE_MAX_OUTPUT_TOKENS=512" in told
    assert "CLAUDE_CODE_DISABLE_1M_CONTEXT=1" in told
    assert "TOKENS" not in settings("claude-code", KEYED)


def test_agents_are_told_of_a_model_that_holds_too_little() -> None:
    """Their own prompts would not fit, and nothing that they ask would be answered."""
    for client in CLIENTS:
        warning = client.warning(AWKWARD)
        assert (warning is not None) == (client.name in {"claude-code", "codex"})
        assert warning is None or "holds 4,096 tokens" in warning
        assert client.warning(KEYED) is None
        assert client.warning(replace(AWKWARD, context_length=40_960)) is None


def test_opencode_is_told_that_pictures_are_welcome() -> None:
    """It takes them out of requests otherwise; a model without sight gets no such entry."""
    text = settings("opencode", AWKWARD)
    told = json.loads(text[text.index("{") :])
    assert told["provider"]["periscope"]["models"]['my "model"']["modalities"]["input"] == ["text", "image", "pdf"]
    assert "modalities" not in settings("opencode", KEYED)


def test_the_others_read_theirs() -> None:
    """YAML for llm and LiteLLM, Python for LangChain."""
    (entry,) = yaml.safe_load(settings("llm", AWKWARD))
    assert (entry["model_name"], entry["api_base"], entry["vision"]) == ('my "model"', AWKWARD.base_url, True)
    assert yaml.safe_load(settings("litellm", AWKWARD))["model_list"][0]["litellm_params"]["api_base"].endswith("/v1")
    assert ast.parse(settings("langchain", AWKWARD))


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_a_key_is_named_and_never_printed(client: object) -> None:
    """Where the server wants a key its place is marked; where it wants none, clients get something to send."""
    assert hasattr(client, "settings")
    assert KEY_PLACE in client.settings(KEYED) or "periscope" in client.settings(KEYED)
    assert KEY_PLACE not in client.settings(AWKWARD)


@pytest.mark.parametrize(
    ("typed", "name"), [("claude", "claude-code"), ("Open WebUI", "open-webui"), ("OPENCODE", "opencode"), ("", None)]
)
def test_a_client_is_found_however_it_is_spelled(typed: str, name: str | None) -> None:
    """Capitals, spaces and a shorter name."""
    found = find_client(typed)
    assert (None if found is None else found.name) == name


def test_settings_are_for_the_running_server(running: ServeProcess, short_config: Path) -> None:
    """Its address, the default model and what is known of it."""
    common = ["--url", running.url, "--config", str(short_config)]
    told = json.loads(cli.invoke(app, ["connect", "litellm", "--json", *common]).stdout)
    assert (told["model"], told["base_url"], told["needs_key"]) == ("tiny", f"{running.url}/v1", False)
    assert "supports_vision" not in told["settings"]  # its model is blind
    default = json.loads(cli.invoke(app, ["connect", "litellm", "--json", "--model", "default", *common]).stdout)
    assert default["model"] == "tiny"
    unknown = cli.invoke(app, ["connect", "litellm", "--model", "nope", *common])
    assert unknown.exit_code == 4
    assert "tiny" in unknown.stderr


def test_the_running_server_says_whether_it_wants_a_key(short_config: Path, tmp_path: Path) -> None:
    """What the caller's models.yaml has of keys does not matter: the server may run on another one."""
    keyed, home = tmp_path / "models.yaml", new_home()
    keyed.write_text(short_config.read_text().replace("port: 1", "port: 1, api_key: sesame"))
    with ServeProcess("--config", str(keyed), "--port", "0", home=home) as server:
        server.wait_until_ready()
        changes = {"PERISCOPE_HOME": home}
        told = run_command("connect", "litellm", "--json", "--config", str(short_config), changes=changes)
        assert json.loads(told.stdout)["needs_key"], told.stderr
        assert KEY_PLACE in json.loads(told.stdout)["settings"]
        assert server.terminate() == 0


def test_a_server_without_a_key_wants_none_whatever_the_file_says(running: ServeProcess, tmp_path: Path) -> None:
    """The key of the caller's file is that of another server."""
    keyed = tmp_path / "models.yaml"
    keyed.write_text("server: {port: 1, api_key: sesame}\nmodels:\n  - {name: m, hf_id: a/b}\n")
    ended = cli.invoke(app, ["connect", "litellm", "--json", "--url", running.url, "--config", str(keyed)])
    told = json.loads(ended.stdout)
    assert (told["needs_key"], NO_KEY in told["settings"]) == (False, True)


def test_a_client_of_an_api_that_is_not_served_is_told_so() -> None:
    """The list says which work, and settings that could not work are not printed."""
    rows = json.loads(cli.invoke(app, ["connect", "--json"]).stdout)["clients"]
    assert {row["client"] for row in rows} == {client.name for client in CLIENTS}
    for row in rows:
        if not row["is_served"]:
            ended = cli.invoke(app, ["connect", row["client"]])
            assert (ended.exit_code, ended.stdout) == (1, "")
            assert row["api"] in ended.stderr
    assert cli.invoke(app, ["connect", "nonsense"]).exit_code == 2
