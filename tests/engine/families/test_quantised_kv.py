"""`kv_bits` with every architecture: the promises of the batch hold, and memory is what the files told."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from periscope.engine.batch.quantized_cache import QuantizedCache
from periscope.engine.config import EngineConfig
from periscope.engine.loading.footprint import RESERVED_TOKENS, measure
from tests.engine.driving import all_of, alone, load
from tests.engine.families.checkpoints import write_checkpoint
from tests.engine.families.shapes import CONTEXT_LENGTH, FAMILIES, Family
from tests.engine.families.test_families import sixteen

#: Whose attention cannot read packed numbers: it has sinks, reads another layer's keys, or compresses them.
UNPACKED = frozenset({"gpt_oss", "gemma4", "deepseek_v3"})


def with_wide_heads(family: Family) -> Family:
    """Heads of 32 numbers, the least that can be quantised."""
    config: dict[str, Any] = copy.deepcopy(dict(family.config))
    text = config.get("text_config", config)
    if "kv_lora_rank" in text:
        text |= {"kv_lora_rank": 64, "qk_rope_head_dim": 32}
    elif text["model_type"] in {"granitemoehybrid", "phi3"}:  # it has no head_dim of its own
        text["hidden_size"] = 32 * text["num_attention_heads"]
        if scaling := text.get("rope_scaling"):  # which has a factor for each pair of numbers
            text["rope_scaling"] = {key: each * 2 if isinstance(each, list) else each for key, each in scaling.items()}
    else:
        text["head_dim"] = 32
    return replace(family, config=config)


@pytest.mark.parametrize("name", FAMILIES)
def test_alone_at_once_and_from_a_warm_cache_the_tokens_are_the_same(name: str, tmp_path: Path) -> None:
    """What caches tokens is quantised, windows and states are not, and it takes the bytes that were told before."""
    path = write_checkpoint(tmp_path / name, with_wide_heads(FAMILIES[name]))
    config = EngineConfig(prompt_cache_bytes=32 * 2**20, prefill_chunk_size=48, kv_bits=8)
    model = load(path, config)
    quantized = [cache for cache in model._new_caches() if isinstance(cache, QuantizedCache)]
    assert {cache.quantization.bits for cache in quantized} == {8}
    assert {cache.reads_packed for cache in quantized} == {name not in UNPACKED}
    told = measure(str(path), config).reserve_bytes
    assert told == model._budget.footprint.nbytes(min(RESERVED_TOKENS, CONTEXT_LENGTH))
    submits = sixteen()[::2]
    expected = alone(model, submits)
    batch = model.new_batch()
    assert all_of(batch, *submits) == expected
    assert all_of(batch, *submits) == expected
