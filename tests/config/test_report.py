"""`config show`: every setting with its value and source."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.config import Config, describe, with_models_of
from periscope.config.keys import settings
from tests.config.files import ONE, PAIR, SEEDS, load_text


@pytest.mark.parametrize("text", [ONE, PAIR, SEEDS])
@pytest.mark.parametrize("flags", [{}, {"model": "some/new"}, {"port": 1, "vision_model": "q/Eyes"}])
def test_every_value_has_its_source(text, flags):
    """Each setting is listed once, with its source."""
    config = load_text(text, {"PERISCOPE_SERVER__HOST": "localhost"}, flags)
    rows = describe(config)
    keys = [key for key, _, _ in rows]
    assert keys == list(dict.fromkeys(keys))
    assert set(keys) == set(config.sources)
    assert ("server.host", "localhost", "env PERISCOPE_SERVER__HOST") in rows
    assert all(source for _, _, source in rows)


def test_values_that_are_not_default_have_a_source_that_is_not():
    """A value differs from its default only if a source other than `default` has set it."""
    defaults = {key.replace("[]", "[0]"): field.default for key, field in settings()}
    for text, flags in [(SEEDS, {}), (PAIR, {"model": "some/new"}), (PAIR, {"vision_model": "q/Eyes"})]:
        for key, value, source in describe(load_text(text, {}, flags)):
            assert source != "default" or value == defaults.get(key, value), key


def test_the_api_key_is_redacted():
    """The list shows that there is a key, but not the key."""
    config = load_text(ONE, {"PERISCOPE_SERVER__API_KEY": "s3cret"})
    assert ("server.api_key", "********", "env PERISCOPE_SERVER__API_KEY") in describe(config)
    assert ("server.api_key", None, "default") in describe(load_text(ONE))


def test_a_running_server_takes_other_keys_but_stays_locked(tmp_path: Path) -> None:
    """They hold at once; only the last key of a server that others reach stays until a restart, and is named."""

    def loaded(server: str) -> Config:
        return load_text(f"{ONE}server: {{{server}}}", folder=tmp_path)

    def taken(running: str, read: str) -> tuple[str | None, set[str]]:
        config, needs_restart = with_models_of(loaded(running), loaded(read))
        return config.server.api_key, set(needs_restart)

    assert taken("host: 0.0.0.0, api_key: first", "host: 0.0.0.0, api_key: second") == ("second", set())
    assert taken("api_key: first", "") == (None, set())
    assert taken("host: 0.0.0.0, api_key: first", "") == ("first", {"server.host", "server.api_key"})
