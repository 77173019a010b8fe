"""TextModel: a loaded text model with its tokenizer, its measured sizes and its prompt cache. Worker thread only."""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from huggingface_hub.errors import StrictDataclassError
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache
from transformers import PreTrainedConfig

from periscope.engine.batch.chunk import can_be_grouped, forward_together
from periscope.engine.batch.disk.layout import shape_of
from periscope.engine.batch.disk.state_file import FORMAT
from periscope.engine.batch.disk.tier import DiskTier
from periscope.engine.batch.draft_model import DraftModel
from periscope.engine.batch.lookup_drafter import LookupDrafter
from periscope.engine.batch.prompt_cache import PromptCache
from periscope.engine.batch.quantized_cache import quantized_caches
from periscope.engine.batch.row_caches import batch_caches
from periscope.engine.batch.slot_caches import is_plain, values_of_tokens
from periscope.engine.batch.text_batch import BatchSettings, TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.device.memory import BLOCK_TOKENS, DeviceMemory, KVBudget, KVFootprint, flat, window_of
from periscope.engine.loading.fused_projections import fuse_projections
from periscope.engine.loading.generation_config import end_token_ids
from periscope.engine.loading.loader import (
    LIBRARY_LOCK,
    LoadProgress,
    find_on_disk,
    materialize,
    prepare_libraries,
    weights_bytes,
)
from periscope.engine.loading.weights_id import weights_id
from periscope.engine.text.detokenizer import Detokenizer, new_detokenizer
from periscope.engine.text.token_text import TokenTable
from periscope.errors import GenerationFailed, ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

    from periscope.core import JSONObject
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.speculation import Drafter
    from periscope.engine.device.turn import DeviceTurn
    from periscope.engine.multimodal.processor import ImageProcessor

logger = logging.getLogger(__name__)

#: Launching the kernels of a forward pass takes about as long as reading this many bytes from memory.
_FORWARD_PASS_OVERHEAD_BYTES = 32 * 2**20
#: How far, as a part of them, values may be from those of another order of floating point sums, in half precision and
#: quantised weights, too. A wrong mask or position moves them by about as much as they are.
_MAX_DEVIATION = 0.1
#: Length of the prompt with which `check_health` checks that the model still works.
_NUM_HEALTH_CHECK_TOKENS = 4


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What the event loop needs to know of a text model. Frozen, so that it can cross threads.

    Attributes:
        tokenizer: mlx-lm's wrapper.
        vocab_size: width of the logits; may be larger than the tokenizer's vocabulary.
        wants_checkpoints: its caches cannot be trimmed to any length.
        is_batched: running requests share forward passes; else every token of every request takes one of its own.
        images: preprocesses images; None = the model takes none.
    """

    tokenizer: Any
    vocab_size: int
    wants_checkpoints: bool
    is_batched: bool
    images: ImageProcessor | None = None


class TextModel:
    """Owns the weights and the prompt cache, which outlives batches: after a failure a new one is made.

    Attributes:
        vocab_size: width of the logits; may be larger than the tokenizer's vocabulary.
        wants_checkpoints: its caches cannot be trimmed to any length.
        is_batched: running requests share forward passes.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        config: EngineConfig,
        *,
        draft_model: Any = None,
        images: ImageProcessor | None = None,
        memory: DeviceMemory | None = None,
        prompt_cache: PromptCache | None = None,
        state_key: str | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._images = images
        self._model = model
        self._config = config
        self._new_caches: Callable[[], LayerCaches] = partial(make_prompt_cache, model)
        caches, self.vocab_size = _warm_up(model, self._new_caches())
        if config.kv_bits is not None:
            self._new_caches, caches = _quantized(model, caches, config.kv_bits, config.kv_group_size)
        self.wants_checkpoints = not all(_can_always_be_trimmed(cache) for cache in flat(caches))
        self.is_batched = _can_batch_rows(model, caches)
        self._can_share_chunks = self.is_batched and _can_share_chunks(model, self._new_caches, caches)
        self._budget = KVBudget(
            KVFootprint.measure(caches),
            config.kv_limit_bytes,
            memory or DeviceMemory(),
            config.prompt_cache_bytes,
        )
        self._prompt_cache = PromptCache(self._budget.kept_bytes(0)) if prompt_cache is None else prompt_cache
        self._disk = None
        if state_key is not None and config.states_on_disk is not None and config.prompt_cache_bytes != 0:
            self._disk = DiskTier(config.states_on_disk, state_key, self._prompt_cache, self._new_caches)
        self._token_table = TokenTable(tokenizer)
        self._draft_model = draft_model
        if draft_model is not None:
            self._check_can_draft(_warm_up(draft_model, make_prompt_cache(draft_model))[0])
        elif config.prompt_lookup and self.wants_checkpoints:
            raise ModelLoadError(
                "`prompt_lookup` needs a model whose caches can be trimmed to any length, which sliding windows and "
                "state-space layers cannot. Remove `prompt_lookup`."
            )

    @classmethod
    def load(
        cls,
        path: Path,
        config: EngineConfig,
        turn: DeviceTurn,
        progress: LoadProgress,
        memory: DeviceMemory | None = None,
    ) -> TextModel:
        """Read weights and tokenizer from a folder, and those of the draft model; blocks.

        Raises:
            ModelLoadError: the draft model is missing or does not fit this one; anything else is the library's error.
        """
        prepare_libraries()
        with LIBRARY_LOCK:
            model, tokenizer, images = (
                _read_with_vision(path, config) if config.has_vision else (*_read(path, config.chat_template), None)
            )
        tokenizer.eos_token_ids = tokenizer.eos_token_ids | end_token_ids(path, below=len(tokenizer))
        materialize(model, config.dtype, turn, progress)
        draft_model = None
        if config.draft_model is not None:
            draft_model = _load_draft(config.draft_model, config.draft_revision, tokenizer)
            materialize(draft_model, config.dtype, turn)
        with turn.acquire():
            if images is not None:
                model.check_vision()
            return cls(
                model,
                tokenizer,
                config,
                draft_model=draft_model,
                images=images,
                memory=memory,
                state_key=state_key(path, config, make_prompt_cache(model)),
            )

    def _check_can_draft(self, draft_caches: LayerCaches) -> None:
        if self.wants_checkpoints or not all(_can_always_be_trimmed(cache) for cache in flat(draft_caches)):
            raise ModelLoadError(
                "`draft_model` needs a model and a draft model whose caches can be trimmed to any length, which "
                "sliding windows and state-space layers cannot. Remove `draft_model`."
            )

    @property
    def facts(self) -> TextFacts:
        return TextFacts(self.tokenizer, self.vocab_size, self.wants_checkpoints, self.is_batched, self._images)

    @property
    def networks(self) -> Sequence[Any]:
        return [self._model] if self._draft_model is None else [self._model, self._draft_model]

    def new_batch(self, clock: Callable[[], float] = time.perf_counter) -> TextBatch:
        return TextBatch(
            self._model,
            self._batch_settings(),
            self._prompt_cache,
            self._budget,
            new_caches=self._new_caches,
            disk=self._disk,
            drafter=self._new_drafter(),
            clock=clock,
        )

    def _batch_settings(self) -> BatchSettings:
        return BatchSettings(
            eos_token_ids=frozenset(self.tokenizer.eos_token_ids),
            vocab_size=self.vocab_size,
            forward_pass_bytes=_FORWARD_PASS_OVERHEAD_BYTES + weights_bytes(self._model),
            can_batch_rows=self.is_batched,
            can_share_chunks=self._can_share_chunks,
            token_text=self._token_table.text,
            wants_checkpoints=self.wants_checkpoints,
            max_rows=self._config.max_num_seqs,
            max_chunk_tokens=self._config.prefill_chunk_size,
            checks_memory=self._config.checks_memory,
        )

    def _new_drafter(self) -> Drafter | None:
        if self._draft_model is not None:
            return DraftModel(self._draft_model, self._config.num_draft_tokens)
        return None if self.wants_checkpoints else LookupDrafter(is_always_on=self._config.prompt_lookup)

    def new_detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        return new_detokenizer(self.tokenizer, after)

    def check_health(self) -> None:
        """Check that the model still works: a forward pass over a few tokens, as in prefill, and one as in decoding.

        Raises:
            GenerationFailed: the logits are not numbers; anything else is what the model or the device raised.
        """
        for network in self.networks:
            caches = self._new_caches() if network is self._model else make_prompt_cache(network)
            for num_tokens in (_NUM_HEALTH_CHECK_TOKENS, 1):
                if bool(mx.isnan(network(mx.array([[0] * num_tokens]), cache=caches)).any().item()):
                    raise GenerationFailed("The model gives no numbers.")


def _read(path: Path, chat_template: str | None = None) -> tuple[Any, Any]:
    """A model with lazy weights and its tokenizer, from a folder.

    Args:
        chat_template: in place of the model's own.
    """
    extra: JSONObject = {} if chat_template is None else {"chat_template": chat_template}
    try:
        model, tokenizer = load(str(path), tokenizer_config=extra, lazy=True)
    except StrictDataclassError:
        # transformers 5 refuses a config.json with a field of another type than it expects (Llama 4's
        # `attn_temperature_tuning: 4`, transformers#44882), though the tokenizer does not use the field. Exit: when
        # AutoTokenizer accepts such a config.
        plain = PreTrainedConfig.from_pretrained(path)
        model, tokenizer = load(str(path), tokenizer_config=extra | {"config": plain}, lazy=True)
    fuse_projections(model)
    return model, tokenizer


def _read_with_vision(path: Path, config: EngineConfig) -> tuple[Any, Any, ImageProcessor]:
    """Read the model as `_read` does, with the vision encoder and the image processor."""
    if config.draft_model is not None:
        raise ModelLoadError(
            "`draft_model` cannot draft for a model that takes images itself. Remove it, or set `vision_mode: proxy`."
        )
    from periscope.engine.multimodal.load import (
        read_vision_language_model,  # importing mlx-vlm takes seconds; text-only use has no need
    )

    return read_vision_language_model(path, max_image_tiles=config.max_image_tiles, chat_template=config.chat_template)


def state_key(path: Path, config: EngineConfig, caches: LayerCaches) -> str | None:
    """What tells the states of this model from all others that could be on disk; None if none are kept there.

    States are found by their tokens, so that a template, which only makes other tokens, need not be part of it.

    Args:
        caches: the model's, empty.
    """
    if config.states_on_disk is None:
        return None
    try:
        weights = weights_id(path)
    except OSError as error:
        logger.warning("no states of prompts are kept on disk: %s", error)
        return None
    packages = ["mlx", "mlx-lm", *(["mlx-vlm"] if config.has_vision else [])]
    versions = [f"{name} {version(name)}" for name in packages]
    told = [
        FORMAT,
        weights,
        config.dtype,
        config.has_vision,
        config.max_image_tiles,
        versions,
        shape_of(caches),
        config.kv_bits,
        config.kv_group_size,
    ]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


def _load_draft(model: str, revision: str | None, tokenizer: Any) -> Any:
    """The draft model with lazy weights.

    Raises:
        ModelLoadError: it is not on this disk, or its vocabulary is not that of `tokenizer`.
    """
    path = find_on_disk(model, revision)
    with LIBRARY_LOCK:
        draft_model, draft_tokenizer = _read(path)
    if draft_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ModelLoadError(
            f"`draft_model` {path.name} has another vocabulary than the model it would draft for. Choose a smaller "
            "model of the same family."
        )
    return draft_model


def _warm_up(model: Any, caches: LayerCaches) -> tuple[LayerCaches, int]:
    """Run one token through the model. Returns its caches, to be measured, and the width of its logits.

    This also evaluates arrays that are not parameters (a rope's frequencies) and compiles the first kernels.
    """
    logits = model(mx.array([[0]]), cache=caches)
    mx.eval(logits, [cache.state for cache in caches])
    return caches, int(logits.shape[-1])


def _quantized(
    model: Any, caches: LayerCaches, bits: int, group_size: int | None
) -> tuple[Callable[[], LayerCaches], LayerCaches]:
    """What makes a row's caches with `kv_bits`, and such caches that hold a token.

    Some attention cannot read packed numbers (sinks, layers that share keys, compressed states): it is tried.

    Args:
        caches: the model's own, which hold a token.

    Raises:
        ModelLoadError: the model has no caches that can be quantised.
    """
    own_caches = partial(make_prompt_cache, model)
    new_caches = quantized_caches(own_caches, caches, bits, group_size, reads_packed=True)
    try:
        return new_caches, _warm_up(model, new_caches())[0]
    except Exception as error:  # noqa: BLE001 - the architecture's code may raise anything
        logger.info("Quantised KV caches are unpacked for each step, which takes longer: %s", error)
    new_caches = quantized_caches(own_caches, caches, bits, group_size, reads_packed=False)
    return new_caches, _warm_up(model, new_caches())[0]


def _can_batch_rows(model: Any, caches: LayerCaches) -> bool:
    """Whether two rows of different lengths can be computed in one forward pass. Tries it.

    mlx-lm has caches without `merge` (Llama 4's chunks), and models that use one position for all rows (gpt_bigcode,
    ropes that scale with the length), which fail only when they are called.
    """
    if not all(is_plain(cache) or hasattr(cache, "merge") for cache in flat(caches)):
        return False
    longer = copy.deepcopy(caches)
    model(mx.array([[0]]), cache=longer)
    try:
        rows = batch_caches([copy.deepcopy(caches), longer], BLOCK_TOKENS)
        mx.eval(model(mx.array([[0], [0]]), cache=rows.layers))
    except Exception as error:  # noqa: BLE001 - the architecture's code may raise anything
        logger.info("Rows of this model cannot be batched, each takes forward passes of its own: %s", error)
        return False
    return True


def _can_share_chunks(model: Any, new_caches: Callable[[], LayerCaches], caches: LayerCaches) -> bool:
    """Whether the tokens of several prompts can be computed in one forward pass. Compares it with one for each.

    Args:
        new_caches: makes the empty caches of a row.
        caches: hold one token.
    """
    if not can_be_grouped(caches):
        return False
    parts = [(new_caches(), [1, 2, 3]), (caches, [2, 1])]
    try:
        together = forward_together(model, [before for before, _ in parts], [tokens for _, tokens in parts])
        for (before, tokens), shared in zip(parts, together, strict=True):
            alone = copy.deepcopy(before)
            model(mx.array([tokens]), cache=alone)
            wanted, found = (values_of_tokens(each[-1]).astype(mx.float32) for each in (alone, shared))
            if not bool((mx.linalg.norm(wanted - found) <= _MAX_DEVIATION * mx.linalg.norm(wanted)).item()):
                raise ValueError("their keys and values differ from those of each alone")  # noqa: TRY301
    except Exception as error:  # noqa: BLE001 - the architecture's code may raise anything
        logger.info("Prompts of this model cannot share forward passes: %s", error)
        return False
    return True


def _can_always_be_trimmed(cache: Any) -> bool:
    """Whether a cache can be trimmed to any length, whatever it holds. A window can only until it is full."""
    return bool(cache.is_trimmable()) and window_of(cache) is None
