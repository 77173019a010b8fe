"""The settings of how a model is run and sampled: `params` of an entry, and of its variants. Pure data, frozen."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from enum import StrEnum
from functools import partial
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue
from pydantic.json_schema import WithJsonSchema

from periscope.config.quantities import BYTES
from periscope.config.section import NAME, TIB, Section, setting
from periscope.core import KV_BITS, KV_GROUP_SIZES, REASONING_PARSERS, TOOL_PARSERS, GenerationParams, Pooling


class DType(StrEnum):
    """Type of the weights in memory."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


_DTYPE_SHORT = {"f32": DType.FLOAT32, "f16": DType.FLOAT16, "bf16": DType.BFLOAT16}
_DTYPE_WORDS = (*DType, *_DTYPE_SHORT, "auto")


def _dtype(value: object) -> object:
    if value == "auto":
        return None
    if isinstance(value, str) and value in {*DType, *_DTYPE_SHORT}:
        return _DTYPE_SHORT.get(value) or DType(value)
    raise ValueError(f"should be one of {', '.join(_DTYPE_WORDS)}")


def _pooling(value: object) -> object:
    if isinstance(value, str) and value in set(Pooling):
        return Pooling(value)
    raise ValueError(f"should be one of {', '.join(Pooling)}")


def _one_of(names: Sequence[str], value: str | None) -> str | None:
    if value is None or value in names:
        return value
    near = get_close_matches(value, names, n=1, cutoff=0.4)
    raise ValueError(f"should be one of {', '.join(names)}" + (f" (did you mean {near[0]}?)" if near else ""))


def _one_of_sizes(sizes: Sequence[int], value: int | None) -> int | None:
    if value is None or value in sizes:
        return value
    raise ValueError(f"should be one of {', '.join(map(str, sizes))}")


_kv_bits, _kv_group_size = partial(_one_of_sizes, KV_BITS), partial(_one_of_sizes, KV_GROUP_SIZES)
_tool_parser, _reasoning_parser = partial(_one_of, TOOL_PARSERS), partial(_one_of, REASONING_PARSERS)


def is_template(text: str) -> bool:
    """Pure: whether a `chat_template` is the template itself, and not the name of a file that holds it."""
    return "{{" in text or "{%" in text


class SamplingParams(Section):
    """The sampling of requests that do not set their own."""

    temperature: float | None = setting(
        None,
        "0 is greedy. If unset, this and the next four are what the model's generation_config.json says.",
        "factor",
        ge=0,
        le=2,
    )
    top_p: float | None = setting(None, "1 switches it off.", "probability", ge=0, le=1)
    top_k: int | None = setting(None, "0 switches it off.", "tokens", ge=0, le=10_000_000)
    min_p: float | None = setting(None, "0 switches it off.", "probability", ge=0, le=1)
    repetition_penalty: float | None = setting(
        None, "1 switches it off. It counts prompt and completion.", "factor", ge=0.01, le=10
    )
    frequency_penalty: float | None = setting(
        None, "0 switches it off. It counts the completion only.", "logits", ge=-2, le=2
    )
    presence_penalty: float | None = setting(
        None, "0 switches it off. It counts the completion only.", "logits", ge=-2, le=2
    )
    max_tokens: int | None = setting(
        None, "Longest completion. If unset, what the context leaves.", "tokens", ge=1, le=16_777_216
    )
    thinking_budget: int | None = setting(
        None,
        "Longest thinking before the answer. If unset, it has no bound but max_tokens.",
        "tokens",
        ge=0,
        le=16_777_216,
    )
    chat_template_kwargs: dict[str, JsonValue] = setting(
        {}, "Variables for the chat template, e.g. {enable_thinking: false}."
    )

    @property
    def generation(self) -> GenerationParams:
        """The default sampling as the other rooms take it."""
        return GenerationParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            thinking_budget=self.thinking_budget,
        )

    @property
    def template_kwargs(self) -> dict[str, JsonValue]:
        """The variables for the chat template; without thinking, they say so under the names that templates know."""
        off: dict[str, JsonValue] = {"enable_thinking": False, "thinking": False} if self.thinking_budget == 0 else {}
        return off | self.chat_template_kwargs


class ModelParams(SamplingParams):
    """How one model is run, and the sampling of requests that do not set their own."""

    dtype: Annotated[DType | None, BeforeValidator(_dtype), WithJsonSchema({"enum": [*_DTYPE_WORDS, None]})] = setting(
        None, "Type of the weights in memory: float32, float16 or bfloat16. If unset or auto, as in the files."
    )
    mem: int | None = setting(
        None, "Memory for KV caches. If unset, what the budget leaves.", "MB", ge=16, le=1_048_576
    )
    prompt_cache: Annotated[int, Field(ge=0, le=64 * TIB), BYTES] | None = setting(
        None,
        "KV caches of earlier prompts; the least recently used are dropped first. 0 is off. "
        "If unset, a quarter of what KV caches may take.",
        "bytes",
    )
    kv_bits: Annotated[int | None, AfterValidator(_kv_bits), WithJsonSchema({"enum": [*KV_BITS, None]})] = setting(
        None,
        "KV caches are stored in so many bits: 8, or 4, which changes answers more. "
        "Two to four times as many tokens fit; each takes longer. If unset, as the model computes them.",
    )
    kv_group_size: Annotated[
        int | None, AfterValidator(_kv_group_size), WithJsonSchema({"enum": [*KV_GROUP_SIZES, None]})
    ] = setting(
        None, "With kv_bits: numbers that share a scale: 32, 64 or 128. If unset, 64, or 32 where heads demand it."
    )
    max_num_seqs: int = setting(
        16, "Requests that are decoded together. More wait in the queue.", "sequences", ge=1, le=512
    )
    prefill_chunk_size: int = setting(
        512,
        "Prompt tokens of one forward pass. While other requests decode, it is computed a few layers at a time.",
        "tokens",
        ge=16,
        le=65_536,
    )
    stream_interval_ms: int = setting(
        20,
        "Tokens that follow each other faster are sent together, about so often; the first one at once. 0 sends each "
        "by itself, which costs a fast model speed.",
        "milliseconds",
        ge=0,
        le=1000,
    )
    context_length: int | None = setting(
        None,
        "Prompt and completion together. If unset, what the model was trained for.",
        "tokens",
        ge=16,
        le=16_777_216,
    )
    max_image_tiles: int | None = setting(
        None,
        "Captioners and native models that cut images into tiles: at most so many. If unset, what suits a captioner.",
        "tiles",
        ge=1,
        le=64,
    )
    thinking_end_message: str = setting(
        "", "A sentence that is written into thinking which is ended, before its end marker.", max_length=1000
    )
    chat_template: str | None = setting(
        None,
        "Jinja template of chats, as a file relative to this one or as the text itself. If unset, the model's own.",
        min_length=1,
        max_length=1_000_000,
    )
    tool_parser: Annotated[str | None, AfterValidator(_tool_parser)] = setting(
        None, f"How the model writes its calls. If unset, as its files tell: {', '.join(TOOL_PARSERS)}."
    )
    reasoning_parser: Annotated[str | None, AfterValidator(_reasoning_parser)] = setting(
        None, f"How the model marks its reasoning. If unset, as its files tell: {', '.join(REASONING_PARSERS)}."
    )
    draft_model: str | None = setting(
        None,
        "Small model for speculative decoding: an entry's name, a Hugging Face repository or a directory.",
        min_length=1,
        max_length=500,
    )
    num_draft_tokens: int = setting(
        4, "Tokens that are drafted, then verified in one forward pass.", "tokens", ge=1, le=16
    )
    prompt_lookup: bool = setting(
        False,
        "Draft what prompt or answer have said before, as in edits of code, while that pays. Not beside draft_model.",
    )
    pooling: Annotated[Pooling | None, BeforeValidator(_pooling), WithJsonSchema({"enum": [*Pooling, None]})] = setting(
        None,
        "Embedding models: how the tokens' states become one vector: cls, mean or last. If unset, as the files say.",
    )
    matryoshka: bool | None = setting(
        None,
        "Embedding models: clients may ask for fewer dimensions. If unset, as the files say or the family is known.",
    )


class VariantConfig(Section):
    """A further name for a model, with params of its own."""

    name: str = Field(pattern=NAME, max_length=200, description="Its name for clients, e.g. qwen:high.")
    params: SamplingParams = setting(SamplingParams(), "Sampling and thinking, over the params of the model.")

    @property
    def template_kwargs(self) -> dict[str, JsonValue]:
        """The variables for the chat template. A budget is one for thinking, also where the model has none."""
        on: dict[str, JsonValue] = {"enable_thinking": True, "thinking": True} if self.params.thinking_budget else {}
        return on | self.params.template_kwargs
