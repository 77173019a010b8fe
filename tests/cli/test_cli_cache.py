"""`periscope cache`: what is on disk of earlier prompts, told and removed, with or without a server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from periscope.engine.batch.prompt_cache import PromptCache
from tests.cli.process import run_command
from tests.engine.batch.disk.states import CHAT, MB, state, tier

CONFIG = """\
prompt_cache: {path: prompts, max_bytes: 1MiB}
models: [{name: demo, local_path: "embedded:text"}]
"""


def told(config: Path, *arguments: str) -> dict[str, Any]:
    ended = run_command("cache", *arguments, "--config", str(config), "--json")
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, Any] = json.loads(ended.stdout)
    return answer


def test_what_is_on_disk_is_told_and_removed(tmp_path: Path) -> None:
    """By the configuration that the server has; a folder that does not exist holds nothing."""
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    assert told(config, "stats")["num_prompts"] == 0
    for key in ("one", "two"):
        cache = PromptCache(MB)
        cache.keep(CHAT, state(CHAT))
        tier(tmp_path / "prompts", cache, key=key).save(60)
    stats = told(config, "stats")
    assert (stats["num_prompts"], stats["num_models"], stats["num_unusable"]) == (2, 2, 0)
    assert stats["path"] == str(tmp_path / "prompts")
    assert stats["max_bytes"] == MB
    shown = run_command("cache", "stats", "--config", str(config)).stdout
    assert "2 of 2 models" in shown
    removed = told(config, "clear")
    assert (removed["removed"], removed["num_bytes"]) == (2, stats["num_bytes"])
    assert told(config, "stats")["num_bytes"] == 0
    assert "Removed 0 prompts" in run_command("cache", "clear", "--config", str(config)).stdout
