"""The clients that `periscope connect` knows, as data: what each has to be told, and which route it calls. Pure.

Sources: Claude Code's gateway documentation, Codex's `model-provider-info`, opencode's provider page, Open WebUI's and
Xcode's settings, `llm`'s "Other models", and the packages langchain-openai and litellm.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

#: Clients want a key where the server wants none, and send whatever they were given.
NO_KEY = "not-needed"
#: Stands for a key that is not printed.
KEY_PLACE = "YOUR-API-KEY"


@dataclass(frozen=True, slots=True)
class Connection:
    """What a client is told of the server.

    Attributes:
        url: without `/v1`.
        context_length: in tokens; None = not known yet.
        takes_images: the model takes pictures, itself or through a captioner.
    """

    url: str
    model: str
    has_key: bool
    context_length: int | None
    takes_images: bool

    @property
    def base_url(self) -> str:
        """The address as OpenAI's SDKs take it, with `/v1`."""
        return f"{self.url}/v1"

    @property
    def key(self) -> str:
        """What to give where a key is asked for."""
        return KEY_PLACE if self.has_key else NO_KEY


@dataclass(frozen=True, slots=True)
class Client:
    """A program that can use the server.

    Attributes:
        name: as it is typed.
        route: what it calls; it works only with a server that has it.
        api: the name of that API.
        settings: the text to copy, with the place for it in its comments.
        own_prompt_tokens: what its prompt and tools take before anything is asked; 0 = little.
    """

    name: str
    title: str
    route: str
    api: str
    settings: Callable[[Connection], str]
    own_prompt_tokens: int = 0

    def warning(self, to: Connection) -> str | None:
        """Pure: that the model holds too little for it; None if it does not, or is not known."""
        if to.context_length is None or to.context_length >= 2 * self.own_prompt_tokens:
            return None
        return (
            f"{to.model} holds {to.context_length:,} tokens, but the prompt and tools of {self.title} alone take some "
            f"{self.own_prompt_tokens:,}. Name a model that holds {2 * self.own_prompt_tokens:,} or more by --model."
        )


def _claude_code(to: Connection) -> str:
    variables = {
        "ANTHROPIC_BASE_URL": to.url,
        "ANTHROPIC_AUTH_TOKEN": to.key,
        "ANTHROPIC_API_KEY": "",  # a value here would win over the token
        "ANTHROPIC_DEFAULT_OPUS_MODEL": to.model,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": to.model,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": to.model,
        "CLAUDE_CODE_SUBAGENT_MODEL": to.model,
        "CLAUDE_CODE_ATTRIBUTION_HEADER": "0",  # a line for Anthropic alone, which this server leaves out
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_1M_CONTEXT": "1",  # else it takes the model of the Opus tier to hold a million tokens
        "API_TIMEOUT_MS": "3000000",
    }
    if to.context_length is not None:
        variables["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(to.context_length)
        variables["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(_claude_code_output_tokens(to.context_length))
    lines = [f"export {name}={shlex.quote(value) if value else ''}" for name, value in variables.items()]
    return "\n".join(["# In the shell in which you start Claude Code:", *lines, "claude"])


def _claude_code_output_tokens(context_length: int) -> int:
    """The longest answer: an eighth of the context, and 32,000 tokens, Claude Code's own limit, at most.

    It shortens the conversation as soon as the context less this (20,000 at most) and 13,000 tokens is used up. With
    its own limit that would be at once in a context of 40,960, because its prompt alone takes some 20,000 tokens.
    Source: version 2.1.197.
    """
    return min(32_000, context_length // 8)


def _codex(to: Connection) -> str:
    provider = "model_providers.periscope"
    settings = {
        "model_provider": "periscope",
        "model": to.model,
        f"{provider}.name": "Periscope",
        f"{provider}.base_url": to.base_url,
        f"{provider}.wire_api": "responses",
    }
    if to.has_key:
        settings[f"{provider}.env_key"] = "PERISCOPE_API_KEY"
    flags = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    if to.context_length is not None:
        flags.append(f"model_context_window={to.context_length}")
    lines = ["# For one run; the same keys in ~/.codex/config.toml make it the default:"]
    if to.has_key:
        lines.append(f"export PERISCOPE_API_KEY={to.key}")
    return "\n".join([*lines, " \\\n".join(["codex", *(f"  -c {shlex.quote(flag)}" for flag in flags)])])


def _opencode(to: Connection) -> str:
    model: dict[str, object] = {"name": f"{to.model} (Periscope)"}
    if to.takes_images:  # opencode takes pictures out of a request unless the entry says that they are welcome
        model["attachment"] = True
        model["modalities"] = {"input": ["text", "image", "pdf"], "output": ["text"]}
    if to.context_length is not None:
        model["limit"] = {"context": to.context_length, "output": to.context_length // 4}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Periscope",
        "options": {"baseURL": to.base_url, "apiKey": to.key},
        "models": {to.model: model},
    }
    entry = {
        "$schema": "https://opencode.ai/config.json",
        "provider": {"periscope": provider},
        "model": f"periscope/{to.model}",
    }
    return f"// Into ~/.config/opencode/opencode.json:\n{json.dumps(entry, indent=2, ensure_ascii=False)}"


def _open_webui(to: Connection) -> str:
    scheme, port = urlsplit(to.url).scheme, urlsplit(to.url).port
    return (
        "Admin Panel > Settings > Connections > OpenAI API > + :\n"
        f"  URL  {to.base_url}\n"
        f"  Key  {to.key}\n"
        "Open WebUI in Docker reaches this machine under another name, which the server has to know:\n"
        f"  URL  {scheme}://host.docker.internal:{port}/v1\n"
        "  models.yaml  server: {host: 0.0.0.0, api_key: ..., allowed_hosts: [host.docker.internal]}"
    )


def _xcode(to: Connection) -> str:
    where = "Xcode > Settings > Intelligence > Add a Model Provider"
    if to.has_key or to.url.startswith("https:"):  # the other form has no fields for them
        fields = {"URL": to.url, "API Key": to.key, "API Key Header": "x-api-key"}
        return "\n  ".join([f"{where} > Internet Hosted:", *(f"{name:<14}  {value}" for name, value in fields.items())])
    return f"{where} > Locally Hosted:\n  Port         {urlsplit(to.url).port}\n  Description  Periscope"


def _llm(to: Connection) -> str:
    entry = {"model_id": f"periscope-{to.model}", "model_name": to.model, "api_base": to.base_url}
    lines = [f"{key}: {json.dumps(value)}" for key, value in entry.items()]
    lines += ["vision: true"] if to.takes_images else []
    lines += ["supports_schema: true", "supports_tools: true"]
    lines += ["api_key_name: periscope"] if to.has_key else []
    setting_key = "\n# and once: llm keys set periscope" if to.has_key else ""
    return (
        '# Into extra-openai-models.yaml in the folder that `dirname "$(llm logs path)"` prints:\n- '
        + "\n  ".join(lines)
        + setting_key
        + f"\n# then: llm -m periscope-{to.model} 'Hello'"
    )


def _langchain(to: Connection) -> str:
    return (
        "# pip install langchain-openai\n"
        "from langchain_openai import ChatOpenAI\n\n"
        f"model = ChatOpenAI(\n    model={json.dumps(to.model)},\n    base_url={json.dumps(to.base_url)},\n"
        f"    api_key={json.dumps(to.key)},\n)\n"
        'print(model.invoke("Hello").content)'
    )


def _litellm(to: Connection) -> str:
    vision = "\n    model_info: {supports_vision: true}" if to.takes_images else ""
    return (
        "# Into the proxy's config.yaml:\n"
        "model_list:\n"
        f"  - model_name: {json.dumps(to.model)}\n"
        "    litellm_params:\n"
        f"      model: {json.dumps(f'openai/{to.model}')}\n"
        f"      api_base: {json.dumps(to.base_url)}\n"
        f"      api_key: {json.dumps(to.key)}"
        f"{vision}\n"
        "# then, with a key of your own for its clients: LITELLM_MASTER_KEY=sk-... litellm --config config.yaml"
    )


def _mcp(to: Connection) -> str:
    url, header = f"{to.url}/mcp", f"Authorization: Bearer {to.key}"
    headers = {"headers": dict([header.split(": ")])} if to.has_key else {}
    flags = ["--header", header] if to.has_key else []
    vs_code = {"name": "periscope", "type": "http", "url": url, **headers}
    remote = {"command": "npx", "args": ["-y", "mcp-remote", url, *flags]}
    return "\n".join(
        [
            "# Claude Code:",
            shlex.join(["claude", "mcp", "add", "--transport", "http", "periscope", url, *flags]),
            "# VS Code:",
            shlex.join(["code", "--add-mcp", json.dumps(vs_code)]),
            "# Codex:",
            shlex.join(
                ["codex", "mcp", "add", "periscope", "--url", url]
                + (["--bearer-token-env-var", "PERISCOPE_API_KEY"] if to.has_key else [])
            ),
            "# Cursor and others, in ~/.cursor/mcp.json or their own mcp.json:",
            json.dumps({"mcpServers": {"periscope": {"url": url, **headers}}}),
            "# Claude Desktop, in claude_desktop_config.json:",
            json.dumps({"mcpServers": {"periscope": remote}}),
        ]
    )


_CHAT = ("/v1/chat/completions", "OpenAI's chat completions")
CLIENTS: tuple[Client, ...] = (
    Client("claude-code", "Claude Code", "/v1/messages", "Anthropic's Messages API", _claude_code, 20_000),
    Client("codex", "Codex", "/v1/responses", "OpenAI's Responses API", _codex, 20_000),
    Client("opencode", "opencode", *_CHAT, _opencode),
    Client("open-webui", "Open WebUI", *_CHAT, _open_webui),
    Client("xcode", "Xcode", *_CHAT, _xcode),
    Client("llm", "llm", *_CHAT, _llm),
    Client("langchain", "LangChain", *_CHAT, _langchain),
    Client("litellm", "LiteLLM", *_CHAT, _litellm),
    Client("mcp", "Agents with MCP", "/mcp", "MCP, for tools that see", _mcp),
)


def find_client(name: str) -> Client | None:
    """The client of this name, however it is spelled: `claude`, `Open WebUI`, `openwebui`."""
    asked = _letters(name)
    return next(
        (each for each in CLIENTS if asked and asked in (_letters(each.name), _letters(each.name)[: len(asked)])), None
    )


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())
