"""From models.yaml to the settings of a captioner: what is set wins, else what suits its family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from periscope.config import Config
from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT, QUESTION_FORM
from periscope.vision.settings import ProxySettings
from periscope.wiring import captioner_id, engine_config, family_of_captioner, proxy_settings
from tests.config.files import load_text, model

CAPTIONED = """\
models:
- name: words
  hf_id: o/words
  capabilities:
    vision_mode: proxy
    vision_proxy: {{model: eyes, {settings}}}
- name: eyes
  {source}
  params: {{{params}}}
{more}
"""


def configured(source: str, settings: str = "", params: str = "", more: str = "") -> Config:
    return load_text(CAPTIONED.format(source=source, settings=settings, params=params, more=more))


def asked(config: Config) -> ProxySettings:
    vision = model(config, "words").capabilities.vision_proxy
    assert vision is not None
    return proxy_settings(vision, None, family_of_captioner(model(config, "eyes")))


def tiles(config: Config) -> int | None:
    return engine_config(model(config, "eyes"), config).max_image_tiles


def test_a_captioner_is_asked_as_its_family_is() -> None:
    """Prompt, length, picture size and tiles follow the repository's family; most have the general ones."""
    pali = asked(configured("hf_id: mlx-community/paligemma2-3b-mix-448-8bit"))
    assert (pali.prompt, pali.question_form, pali.look_form) == ("caption en", *["answer en {question}"] * 2)
    assert (pali.max_tokens, pali.limits.max_side_px) == (128, 896)
    qwen = configured("hf_id: mlx-community/Qwen3-VL-2B-Instruct-4bit")
    general = asked(qwen)
    assert (general.prompt, general.question_form) == (DEFAULT_CAPTION_PROMPT, QUESTION_FORM)
    assert (general.max_tokens, general.limits.max_side_px, tiles(qwen)) == (256, 1024, None)
    assert tiles(configured("hf_id: mlx-community/InternVL3-2B-4bit")) == 4


def test_what_is_set_wins_over_the_family() -> None:
    """A prompt of one's own takes the general form for questions, because it is no task word."""
    config = configured(
        "hf_id: mlx-community/paligemma2-3b-mix-448-8bit",
        "prompt_template: Say., max_tokens: 9, max_side_px: 100",
        "max_image_tiles: 3",
    )
    settings = asked(config)
    assert (settings.prompt, settings.question_form) == ("Say.", QUESTION_FORM)
    assert (settings.max_tokens, settings.limits.max_side_px, tiles(config)) == (9, 100, 3)


def test_a_folder_is_known_by_its_architecture_and_a_server_by_its_model(tmp_path: Path) -> None:
    """Whatever a folder is called; another server cuts pictures as it likes, but is asked in the family's words."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "smolvlm", "vision_config": {}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert tiles(configured(f"local_path: {tmp_path}")) == 4
    remote = "remote: {base_url: 'http://127.0.0.1:1/v1', model: google/paligemma-3b-mix-224}"
    config = load_text(CAPTIONED.replace("  params: {{{params}}}\n", "").format(source=remote, settings="", more=""))
    assert asked(config).prompt == "caption en"


def test_a_captioner_that_also_reads_text_keeps_all_its_tiles() -> None:
    """Small print is what the tiles are for; a limit that is set holds all the same."""
    source, settings = "hf_id: mlx-community/InternVL3-2B-4bit", "reader: eyes"
    assert tiles(configured(source, settings)) is None
    assert tiles(configured(source, settings, "max_image_tiles: 6")) == 6


@pytest.mark.parametrize("params", ["max_image_tiles: 2", "dtype: float16"])
def test_captions_are_made_anew_when_the_captioner_is_run_otherwise(params: str) -> None:
    """The cache key holds the tiles; a captioner without a limit has the key that it always had."""
    source = "local_path: embedded:captioner"
    before, after = configured(source), configured(source, params=params)
    revisions = [captioner_id(model(config, "eyes"), config).revision for config in (before, after)]
    assert revisions[0].endswith(" auto")
    assert revisions[0] != revisions[1]
