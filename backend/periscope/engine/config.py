"""How one model is loaded and run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from periscope.core import JSONObject, Pooling


@dataclass(frozen=True, slots=True)
class StatesOnDisk:
    """KV states of earlier prompts are kept in files, too.

    Attributes:
        folder: of the files of all models; absolute.
        max_bytes: of all of them.
        write_after_s: states are written when the model has had no request for so long, and before it is freed.
    """

    folder: Path
    max_bytes: int
    write_after_s: float = 60.0


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How one model is loaded and run.

    Attributes:
        revision: of a hub id; None = the one on disk that `main` points to.
        dtype: `float32`, `float16` or `bfloat16`; None = as stored. Quantised weights stay quantised.
        max_num_seqs: rows that run at once.
        prefill_chunk_size: prompt tokens of one forward pass, at most.
        stream_interval_ms: tokens that follow each other faster reach their reader together; 0 = each by itself.
        context_length: tokens of prompt and completion together; None = what the model's config says.
        chat_template_kwargs: handed to the chat template (`enable_thinking`, ...).
        chat_template: in place of the model's own; Jinja.
        tool_parser, reasoning_parser: how its output is read, by a name of `core/parsers.py`; None = as its files tell.
        thinking_end_message: a sentence that is written before the end marker where thinking is ended; "" = none.
        kv_limit_bytes: KV caches of live rows and the prompt cache together; None = what the device has to spare.
        prompt_cache_bytes: KV states kept of earlier prompts, at most; 0 = none, None = a quarter of what KV caches may
            take at the time.
        states_on_disk: KV states that outlive the model's stay in memory; None = none do.
        kv_bits: 8 or 4, in which KV caches are stored; None = in the type that the model computes in.
        kv_group_size: numbers of a head that share a scale then; None = as large as the heads allow, at most 64.
        max_image_tiles: tiles that an image is cut into at most, where the processor cuts; None = as the files say.
        checks_memory: refuse a request before prefill that cannot fit in memory.
        draft_model: folder or hub id of a small model with the same tokenizer that drafts tokens; None = no drafting.
        draft_revision: of the draft model, like `revision`.
        has_vision: load the vision encoder, too, so that prompts may hold images.
        num_draft_tokens: drafted at a time, then checked together.
        prompt_lookup: draft what a row has said before or what stands in its prompt, where that pays.
        pooling: of an embedding model; None = as its files say.
        matryoshka: whether its vectors may be cut to fewer dimensions; None = as its files or its family say.
        name: what the log and errors call the model; None = its hub id, or its folder's name.
    """

    revision: str | None = None
    dtype: str | None = None
    max_num_seqs: int = 16
    prefill_chunk_size: int = 512
    stream_interval_ms: int = 20
    context_length: int | None = None
    chat_template_kwargs: JSONObject = field(default_factory=dict)
    chat_template: str | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    thinking_end_message: str = ""
    kv_limit_bytes: int | None = None
    prompt_cache_bytes: int | None = None
    states_on_disk: StatesOnDisk | None = None
    kv_bits: int | None = None
    kv_group_size: int | None = None
    max_image_tiles: int | None = None
    checks_memory: bool = True
    draft_model: str | None = None
    draft_revision: str | None = None
    num_draft_tokens: int = 4
    prompt_lookup: bool = False
    has_vision: bool = False
    pooling: Pooling | None = None
    matryoshka: bool | None = None
    name: str | None = None

    def name_of(self, model: str) -> str:
        """What a model of this folder or hub id is called. Looks whether there is such a folder."""
        path = Path(model).expanduser()
        return self.name or (path.name if path.is_dir() else model)
