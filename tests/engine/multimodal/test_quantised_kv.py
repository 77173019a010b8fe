"""`kv_bits` with native vision: pictures' tokens are kept in fewer bits, and the promises of the batch hold."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from periscope.engine.batch.quantized_cache import QuantizedCache
from tests.engine.driving import Run, all_of, alone, load
from tests.engine.families.vision_checkpoints import write_vision_checkpoint
from tests.engine.families.vision_shapes import VISION_FAMILIES, VisionFamily
from tests.engine.multimodal.chats import asked, picture, tokenizer_of, user
from tests.engine.multimodal.test_families import REFUSED, SETTINGS


def with_wide_heads(family: VisionFamily) -> VisionFamily:
    """Heads of 32 numbers, the least that can be quantised: half as many, twice as wide."""
    config: dict[str, Any] = copy.deepcopy(dict(family.config))
    text = config.get("text_config") or config.get("llm_config") or config
    text |= {"head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 2}
    for rope in (text.get("rope_scaling", {}), text.get("rope_parameters", {})):
        if "mrope_section" in rope:  # numbers of a head for each dimension of positions
            rope["mrope_section"] = [2 * size for size in rope["mrope_section"]]
    return replace(family, config=config)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("name", [name for name in VISION_FAMILIES if name not in REFUSED])
def test_alone_at_once_and_from_a_warm_cache_the_tokens_are_the_same(name: str, bits: int, tmp_path: Path) -> None:
    """Rows with one picture, two and none; chunks end within pictures."""
    path = write_vision_checkpoint(tmp_path / name, with_wide_heads(VISION_FAMILIES[name]))
    config = replace(SETTINGS, kv_bits=bits)
    model = load(path, config)
    tokenizer = tokenizer_of(model)
    assert {cache.quantization.bits for cache in model._new_caches() if isinstance(cache, QuantizedCache)} == {bits}
    contents = (
        (picture(1), "what?"),
        ("a", picture(2), "b", picture(3, 40, 40)),
        ("no picture",),
        (picture(4, 90, 30),),
    )
    submits = [asked(tokenizer.render([user(*content)]), repetition_penalty=1.5) for content in contents]
    expected = alone(model, submits)
    batch = model.new_batch()
    assert all_of(batch, *submits) == expected
    warm = Run(batch)
    rows = warm.admit(*submits)
    warm.to_the_end()
    assert [warm.tokens[row] for row in rows] == expected
    if not model.wants_checkpoints:
        assert all(warm.last[row].num_cached_tokens > 20 for row in rows[:2])
