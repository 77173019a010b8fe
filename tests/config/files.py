"""Configuration texts and a loader for them, shared by the tests of this folder."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from periscope.config import Config, ModelConfig, load
from periscope.errors import ConfigError

#: The shape that the seeds describe, as their users write it.
SEEDS = """\
idle_unload_secs: 3600  # 1 hour

models:
  - name: ministral-3-3b
    hf_id: mistralai/Ministral-3-3B-Reasoning-2512
    params:
      dtype: f16
      temperature: 0.3
      top_p: 0.9
      top_k: 40
      frequency_penalty: 0.0
      presence_penalty: 0.0
      mem: 8192  # MB
      max_num_seqs: 128
      prefill_chunk_size: 1024
    capabilities:
      vision_mode: proxy
      vision_proxy:
        hf_id: Qwen/Qwen2-VL-7B-Instruct
        prompt_template: "Describe this image in detail."
  - name: local-mistral
    local_path: ./models/mistral-7b-instruct
    params:
      dtype: bf16
    capabilities:
      vision_mode: disabled
"""

#: A text model, its captioner, and a second text model.
PAIR = """\
models:
  - name: words
    local_path: embedded:text
    aliases: [default, w]
    preload: true
    capabilities:
      vision_mode: proxy
      vision_proxy: {model: eyes}
  - name: eyes
    local_path: embedded:captioner
    preload: true
  - name: other
    hf_id: owner/other
"""

ONE = "models: [{name: one, hf_id: owner/one}]\n"


def load_text(
    text: str,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    folder: Path | None = None,
) -> Config:
    """The configuration that a models.yaml with this text gives; nothing of this machine's environment takes part."""
    with tempfile.TemporaryDirectory() as temporary:
        cwd = folder or Path(temporary)
        path = cwd / "models.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, env or {}, flags, cwd=cwd, home=cwd / "home")


def problems_of(
    text: str, env: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
) -> tuple[str, ...]:
    """What is wrong with it, line by line; empty when nothing is."""
    try:
        load_text(text, env, flags)
    except ConfigError as error:
        return error.problems
    return ()


def model(config: Config, name: str) -> ModelConfig:
    """The model of this name."""
    return next(model for model in config.models if model.name == name)


def properties(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """The schema of one key such as `models[].params.dtype`."""
    definitions = schema["$defs"]
    for part in key.split("."):
        for _ in range(3):  # a section hides behind its list, its null and its reference
            schema = schema.get("items", schema)
            schema = next((option for option in schema.get("anyOf", ()) if "$ref" in option), schema)
            schema = definitions[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        schema = schema["properties"][part.removesuffix("[]")]
    return schema


def numbers(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """The numeric alternatives of a key's schema."""
    options = [schema, *(inner for option in schema.get("anyOf", ()) for inner in (option, *option.get("anyOf", ())))]
    return [option for option in options if option.get("type") in ("integer", "number")]
