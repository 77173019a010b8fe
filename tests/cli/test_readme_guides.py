"""The README's guides for clients are what `periscope connect` prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from periscope.cli.clients import CLIENTS, Client, Connection
from periscope.config import load
from periscope.core import VisionMode, require_model

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
MODELS = load(ROOT / "models.yaml", {}, {}, cwd=ROOT, home=ROOT).models
MODEL = require_model(MODELS, "qwen3-30b")
GUIDED = Connection(
    "http://127.0.0.1:7374",
    MODEL.name,
    has_key=False,
    context_length=MODEL.params.context_length,
    takes_images=MODEL.capabilities.vision_mode is not VisionMode.DISABLED,
)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_guide_has_the_settings_that_the_command_prints(client: Client) -> None:
    """Whoever changes one changes the other; the figures are those of the model in models.yaml."""
    guide = re.search(rf"^### {re.escape(client.title)}\n\n```\w+\n(.*?)\n```\n", README, re.DOTALL | re.MULTILINE)
    assert guide is not None
    assert guide[1] == client.settings(GUIDED)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_model_that_is_shown_holds_what_the_client_needs(client: Client) -> None:
    """Nobody is shown settings against which the command itself warns."""
    assert GUIDED.context_length is not None
    assert client.warning(GUIDED) is None
