"""The README's guides for clients are what `periscope connect` prints."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from periscope.cli.clients import CLIENTS, Client, Connection

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()
GUIDED = Connection("http://127.0.0.1:7374", "qwen3-4b", has_key=False, context_length=40_960, takes_images=True)


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_guide_has_the_settings_that_the_command_prints(client: Client) -> None:
    """Whoever changes one changes the other."""
    guide = re.search(rf"^### {re.escape(client.title)}\n\n```\w+\n(.*?)\n```\n", README, re.DOTALL | re.MULTILINE)
    assert guide is not None
    assert guide[1] == client.settings(GUIDED)
