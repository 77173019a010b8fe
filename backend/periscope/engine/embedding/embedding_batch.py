"""EmbeddingModel and its batch: texts of several requests share forward passes. Worker thread only.

A row is a request with any number of texts. A step is one forward pass over texts of about the same length, so that
between two steps a request can be removed, and text models get their turns.
"""

from __future__ import annotations

import bisect
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from transformers import AutoTokenizer

from periscope.core import FinishReason, Pooling
from periscope.engine.config import EngineConfig
from periscope.engine.embedding.networks import EmbeddingNetwork
from periscope.engine.embedding.projection import pooled, read_projections, unit_length
from periscope.engine.loading.embedding_files import BATCH_TOKENS, EmbeddingFiles
from periscope.engine.loading.loader import (
    LIBRARY_LOCK,
    LoadProgress,
    materialize,
    prepare_libraries,
    read_model_config,
    vocab_size_of,
)
from periscope.engine.worker.commands import EmbeddingPrompt
from periscope.engine.worker.contracts import KeepsNothing, Sampled
from periscope.errors import GenerationFailed, InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from periscope.engine.device.turn import DeviceTurn
    from periscope.engine.text.detokenizer import Detokenizer
    from periscope.engine.worker.commands import Submit

logger = logging.getLogger(__name__)

#: Tokens by which a text may be shorter than the longest of its forward pass. Padding costs as much as text; and in
#: ModernBERT padding further than half a window (64 tokens) from its text sees nothing, which is NaN in float16.
MAX_PADDING_TOKENS = 32
#: How long a forward pass should take: text that is generated meanwhile, and requests that come, wait for it.
PASS_S = 0.1
#: Tokens of the first forward pass, before it is known how long one takes.
FIRST_PASS_TOKENS = 256
#: Length of the text with which `check_health` checks that the model still works.
_NUM_HEALTH_CHECK_TOKENS = 4


@dataclass(frozen=True, slots=True)
class EmbeddingFacts:
    """What the event loop needs to know of an embedding model. Frozen, so that it can cross threads.

    Attributes:
        tokenizer: of transformers; used by one thread at a time.
        vocab_size: ids are below it.
        size: numbers in a vector.
    """

    tokenizer: Any
    vocab_size: int
    size: int
    pooling: Pooling
    files: EmbeddingFiles


@dataclass(slots=True)
class _Row:
    """One request: its texts, where their vectors go, and (length, index) of those that wait, by length."""

    texts: tuple[tuple[int, ...], ...]
    vectors: np.ndarray[Any, np.dtype[np.float32]]
    waiting: list[tuple[int, int]]


def next_texts(waiting: Mapping[int, list[tuple[int, int]]], num_tokens: int) -> list[tuple[int, int]]:
    """The texts of the next forward pass, which are taken out of `waiting`: the longest of the first row first.

    Args:
        waiting: row -> (length, index) of its texts, by length; rows in the order of their turns.
        num_tokens: of the forward pass, padding included, at most; unless its only text is longer.

    Returns:
        (row, index) of each; none is shorter by more than `MAX_PADDING_TOKENS` than the first.
    """
    longest = next((texts[-1][0] for texts in waiting.values() if texts), 0)
    room = max(num_tokens // max(longest, 1), 1)
    chosen: list[tuple[int, int]] = []
    for row, texts in waiting.items():
        end = bisect.bisect_left(texts, (longest + 1, 0))
        start = max(bisect.bisect_left(texts, (longest - MAX_PADDING_TOKENS, 0)), end - (room - len(chosen)))
        chosen += [(row, index) for _, index in reversed(texts[start:end])]
        del texts[start:end]
        if len(chosen) == room:
            break
    return chosen


class EmbeddingBatch(KeepsNothing):
    """Owns the requests of one embedding model. They take turns, so that a query need not wait for a whole library."""

    def __init__(self, model: EmbeddingModel, clock: Callable[[], float] = time.perf_counter) -> None:
        self._model = model
        self._clock = clock
        self._pass_tokens = FIRST_PASS_TOKENS
        self._num_rows = 0
        self._rows: dict[int, _Row] = {}

    def admit(self, submit: Submit) -> int:
        if not isinstance(submit.prompt, EmbeddingPrompt):
            raise InvalidRequest("An embedding model takes texts to embed.", param="messages")
        texts = submit.prompt.texts
        vectors = np.empty((len(texts), self._model.facts.size), np.float32)
        waiting = sorted((len(text), index) for index, text in enumerate(texts))
        self._num_rows += 1
        self._rows[self._num_rows] = _Row(texts, vectors, waiting)
        return self._num_rows

    def prepare(self) -> None:
        return

    def step(self) -> list[Sampled]:
        chosen = next_texts({number: row.waiting for number, row in self._rows.items()}, self._pass_tokens)
        if not chosen:
            return []
        leader = chosen[0][0]
        self._rows[leader] = self._rows.pop(leader)  # the other requests lead the next forward passes
        texts, began_at = [self._rows[row].texts[index] for row, index in chosen], self._clock()
        vectors = self._model.embed(texts)
        tokens_per_s = len(texts) * len(texts[0]) / max(self._clock() - began_at, 1e-6)  # the first text is the longest
        self._pass_tokens = int(min(PASS_S * tokens_per_s, BATCH_TOKENS))
        for (row, index), vector in zip(chosen, vectors, strict=True):
            self._rows[row].vectors[index] = vector
        return [self._finished(row) for row in dict.fromkeys(row for row, _ in chosen) if not self._rows[row].waiting]

    def _finished(self, number: int) -> Sampled:
        vectors = self._rows.pop(number).vectors
        if not np.isfinite(vectors).all():
            return Sampled(number, 0, error=GenerationFailed("The model's vectors hold numbers that are not finite."))
        return Sampled(number, 0, finish_reason=FinishReason.STOP, is_eos=True, vectors=vectors.tobytes())

    def remove(self, rows: Sequence[int]) -> None:
        for row in rows:
            self._rows.pop(row, None)

    def end_thinking(self, _row_id: int) -> None:
        return

    @property
    def has_work(self) -> bool:
        return bool(self._rows)

    @property
    def working_bytes(self) -> int:
        return 0  # one forward pass, which the model's reservation covers

    @property
    def prompt_cache_bytes(self) -> int:
        return 0

    @property
    def num_preemptions(self) -> int:
        return 0  # a forward pass is all that its rows take

    def clear_prompt_cache(self) -> None:
        return

    def close(self) -> None:
        self._rows.clear()


class EmbeddingModel:
    """Owns the weights of a loaded embedding model. A `LoadedModel`; worker thread only."""

    def __init__(
        self,
        network: EmbeddingNetwork,
        tokenizer: Any,
        files: EmbeddingFiles,
        *,
        pooling: Pooling | None,
        vocab_size: int,
    ) -> None:
        self._network = network
        self._projections = [*network.projections, *read_projections(files.dense)]
        self._pooling = pooling or files.pooling or network.own_pooling
        self._is_normalized = files.is_normalized
        size = self._sample_size()
        self._facts = EmbeddingFacts(tokenizer, vocab_size, size, self._pooling, files)

    @classmethod
    def load(cls, path: Path, config: EngineConfig, turn: DeviceTurn, progress: LoadProgress) -> EmbeddingModel:
        """Load weights and tokenizer from a folder, and see that they embed a text. Blocks.

        Raises:
            ModelLoadError: the architecture, or a step after it, is not computed here.
            Exception: whatever the libraries raise while they load.
        """
        prepare_libraries()
        model_config = read_model_config(path)
        files = EmbeddingFiles.read(path, model_config, context_length=config.context_length)
        with LIBRARY_LOCK:
            network = EmbeddingNetwork.load(path, model_config)
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        materialize(network.network, config.dtype, turn, progress)
        if config.pooling is None and files.pooling is None:
            logger.warning(
                "%s: its files do not say how its vectors are pooled; %s is taken. Set `params.pooling` if that is "
                "wrong.",
                path.name,
                network.own_pooling,
            )
        with turn.acquire():
            vocab_size = vocab_size_of(model_config) or len(tokenizer)
            return cls(network, tokenizer, files, pooling=config.pooling, vocab_size=vocab_size)

    def embed(self, texts: Sequence[Sequence[int]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Vectors of shape (texts, size), computed in one forward pass."""
        lengths = [len(text) for text in texts]
        padded = np.full((len(texts), max(lengths)), self._network.padding_id, np.int32)
        for row, text in enumerate(texts):
            padded[row, : len(text)] = text
        vectors = self._vectors(mx.array(padded), mx.array(lengths))
        mx.eval(vectors)
        return np.array(vectors)

    def _vectors(self, ids: mx.array, lengths: mx.array) -> mx.array:
        mask = mx.arange(ids.shape[1])[None] < lengths[:, None]
        vectors = pooled(self._network.states(ids, mask), mask, self._pooling)
        for project in self._projections:
            vectors = project(vectors)
        return unit_length(vectors) if self._is_normalized else vectors

    def _sample_size(self) -> int:
        sample = mx.zeros((1, _NUM_HEALTH_CHECK_TOKENS), mx.int32)
        vectors = self._vectors(sample, mx.array([_NUM_HEALTH_CHECK_TOKENS]))
        mx.eval(vectors)
        return int(vectors.shape[1])

    @property
    def facts(self) -> EmbeddingFacts:
        return self._facts

    @property
    def networks(self) -> Sequence[Any]:
        return [self._network.network]

    def new_batch(self) -> EmbeddingBatch:
        return EmbeddingBatch(self)

    def check_health(self) -> None:
        self._sample_size()

    def new_detokenizer(self, _after: Sequence[int] = ()) -> Detokenizer:
        return _NoText()


class _NoText:
    """The detokenizer of rows that have no text."""

    def feed(self, _token_id: int) -> str:
        return ""

    def finish(self) -> str:
        return ""
