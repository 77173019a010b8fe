"""Batches of a real (tiny) model in which tests replace parts, and prompts for them."""

from __future__ import annotations

import random
from typing import Any

import mlx.core as mx

from periscope.core import JSONObject, OutputFormat, ResponseFormat
from periscope.engine.batch.prompt_cache import PromptCache
from periscope.engine.batch.text_batch import BatchSettings, TextBatch
from periscope.engine.device.memory import DeviceMemory, KVBudget
from periscope.engine.structured.compiler import GrammarCompiler
from periscope.engine.structured.matcher import Grammar
from periscope.engine.text_model import TextModel

RANDOM = random.Random(5)


def prompt(length: int) -> list[int]:
    return [RANDOM.randrange(250) for _ in range(length)]


class Unreliable:
    """A model that raises when its input holds a given token, and otherwise calls the real one."""

    def __init__(self, inside: Any) -> None:
        self._inside = inside
        self.poison: int | None = None
        self.is_down = False
        self.num_calls = 0

    @property
    def layers(self) -> Any:
        return self._inside.layers

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        self.num_calls += 1
        if self.is_down:
            raise RuntimeError("[METAL] Command buffer execution failed")
        if self.poison is not None and bool((inputs == self.poison).any().item()):
            raise RuntimeError("[metal::malloc] out of memory")
        logits: mx.array = self._inside(inputs, cache=cache)
        return logits


def grammar_of(model: TextModel, schema: JSONObject) -> Grammar:
    """What makes a completion of this model JSON of the schema."""
    compiler = GrammarCompiler(
        model.tokenizer,
        vocab_size=model.vocab_size,
        eos_token_ids=model.tokenizer.eos_token_ids,
        output_format=OutputFormat(),
    )
    return compiler.json(ResponseFormat(schema), starts_in_reasoning=False)


def batch_over(model: TextModel, inside: Any = None, *, cache_bytes: int = 0, **changes: Any) -> TextBatch:
    """A batch like the model's own, with some parts replaced."""
    limit_bytes = changes.pop("limit_bytes", None)
    memory = changes.pop("memory", DeviceMemory())
    prompt_cache = changes.pop("prompt_cache", PromptCache(cache_bytes))
    settings = BatchSettings(
        eos_token_ids=frozenset({257}),
        vocab_size=258,
        can_batch_rows=True,
        can_share_chunks=True,
        forward_pass_bytes=changes.pop("forward_pass_bytes", 2**30),
        token_text=model._token_table.text,
        wants_checkpoints=False,
        max_rows=changes.pop("max_rows", 16),
        max_chunk_tokens=64,
        **changes,
    )
    budget = KVBudget(model._budget.footprint, limit_bytes, memory, cache_bytes)
    return TextBatch(inside or model._model, settings, prompt_cache, budget, new_caches=model._new_caches)
