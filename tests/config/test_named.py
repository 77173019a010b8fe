"""What a person means by MODEL, on the command line and in a download."""

from __future__ import annotations

import pytest

from periscope.config.named import find_named
from periscope.errors import ModelNotFound
from tests.config.files import load_text

MODELS = """models:
- {name: words, aliases: [w], hf_id: o/Words-4bit, revision: v1, preload: true}
- {name: o/same, hf_id: o/same}
"""


@pytest.mark.parametrize(
    ("text", "name", "has_entry"),
    [
        ("words", "words", True),
        ("w", "words", True),
        ("default", "words", True),
        ("o/Words-4bit", "o/Words-4bit", False),
        ("o/same", "o/same", True),
        ("o/other", "o/other", False),
    ],
)
def test_a_name_is_an_entry_and_a_hub_id_a_repository(text: str, name: str, has_entry: bool) -> None:
    """Names and aliases mean the entry with its captioner; a hub id means that repository alone, at its revision."""
    found = find_named(load_text(MODELS), text)
    assert (found.name, found.entry is not None) == (name, has_entry)
    assert found.revision == ("v1" if "ords" in found.name else None)


def test_an_empty_name_is_a_mistake() -> None:
    """A script's empty variable must not remove or fetch the default model."""
    with pytest.raises(ModelNotFound, match="no model"):
        find_named(load_text(MODELS), "")
