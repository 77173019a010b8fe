"""The interface between a worker and its model and batch, which text models and captioners implement."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from periscope.core import FinishReason, TokenLogprob
    from periscope.engine.text.detokenizer import Detokenizer
    from periscope.engine.worker.commands import Submit


#: How often an idle worker checks whether the main thread has ended without closing it.
IDLE_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class DiskUse:
    """Bytes on disk of the states of earlier prompts.

    Attributes:
        written_bytes: since the model was loaded.
    """

    num_bytes: int = 0
    written_bytes: int = 0


@dataclass(slots=True)
class Sampled:
    """One row's result of one step. The batch has already removed a row that has a `finish_reason` or an `error`.

    Not frozen, because one is made for each token, in a third of the time. It stays on its thread; nobody changes it.

    Attributes:
        finish_reason: set if this is the row's last token.
        is_eos: `token_id` is an end token of the model or the request, which is not part of the text.
        num_cached_tokens: prompt tokens of this row that came from the prompt cache.
        num_accepted, num_rejected: tokens that were drafted for this row so far, and were right, and were not.
        prompt_logprobs: of all tokens of the prompt, with the row's first token, if they are wanted.
        error: what this row's sampler, logits processor or image raised; `token_id` is meaningless then.
        is_model_failure: the model itself raised the error, so other rows may fail in the same way.
        vectors: the result of a row of texts to embed, whose only result it is; `token_id` is meaningless then.
    """

    row: int
    token_id: int
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    is_eos: bool = False
    num_cached_tokens: int = 0
    num_accepted: int = 0
    num_rejected: int = 0
    prompt_logprobs: tuple[TokenLogprob, ...] = ()
    error: Exception | None = None
    is_model_failure: bool = False
    vectors: bytes = b""


@dataclass(slots=True)
class DraftCounts:
    """Tokens that were drafted and verified. Counted by the batch that owns it."""

    num_accepted: int = 0
    num_rejected: int = 0


class Batch(Protocol):
    """The rows of one model, used on its worker thread only.

    After `step` has raised, all rows are lost and only `close` may be called.
    """

    def admit(self, submit: Submit) -> int:
        """Add a request and return its row id. An exception concerns this request only; other rows go on."""
        ...

    def prepare(self) -> None:
        """Do the CPU work of the next step, before the worker acquires the device."""
        ...

    def step(self) -> Iterable[Sampled]:
        """Do a bounded amount of work on the device: one decode step of all rows, some prefill, or one image."""
        ...

    def remove(self, rows: Sequence[int]) -> None:
        """Mark rows, in any phase, for removal by the next step. Unknown row ids are ignored. Never raises."""
        ...

    def end_thinking(self, row_id: int) -> None:
        """End the row's thinking at its next token. Unknown rows, and such that mark no thinking, are left alone."""
        ...

    @property
    def has_work(self) -> bool:
        """Whether another step has something to do, even if it is only to free removed rows."""
        ...

    @property
    def working_bytes(self) -> int:
        """About how much memory the rows take now, without the prompt cache."""
        ...

    @property
    def prompt_cache_bytes(self) -> int:
        """How much memory the prompt cache takes."""
        ...

    @property
    def disk_use(self) -> DiskUse:
        """What it keeps on disk."""
        ...

    @property
    def drafted(self) -> DraftCounts:
        """Tokens that were drafted for its rows, since this batch was made."""
        ...

    @property
    def num_preemptions(self) -> int:
        """Rows that gave up their memory and were computed again, since this batch was made."""
        ...

    def clear_prompt_cache(self) -> None:
        """Drop all entries of the prompt cache."""
        ...

    def rest(self) -> float:
        """Do a few milliseconds of work that nobody waits for. Called while there is no other.

        Returns:
            When to call it again, in seconds, if nothing comes in between.
        """
        ...

    def save(self, within_s: float) -> None:
        """Write what is to outlive the model to disk, for so long at most. No step comes after it. Never raises."""
        ...

    def close(self) -> None:
        """Drop all rows and caches."""
        ...


class KeepsNothing:
    """The part of a `Batch` about drafts and what outlives the model's stay in memory, for those with neither."""

    disk_use = DiskUse()
    drafted = DraftCounts()

    def rest(self) -> float:
        return IDLE_POLL_S

    def save(self, within_s: float) -> None:  # noqa: ARG002 - of the contract
        return


FactsT_co = TypeVar("FactsT_co", covariant=True)


class LoadedModel(Protocol[FactsT_co]):
    """A model in memory. Its worker holds the only reference, so that dropping it frees the model."""

    @property
    def facts(self) -> FactsT_co:
        """What other threads may know and keep. Holds no reference to an array of the model."""
        ...

    @property
    def networks(self) -> Sequence[Any]:
        """The `nn.Module`s that hold its weights."""
        ...

    def new_batch(self) -> Batch:
        """Return an empty batch."""
        ...

    def new_detokenizer(self, after: Sequence[int] = ()) -> Detokenizer:
        """Return a new detokenizer for one row.

        Args:
            after: the tokens whose text the row's text goes on with; none if it is a text of its own.
        """
        ...

    def check_health(self) -> None:
        """Run one small forward pass that is independent of all requests. Raises if the model does not work."""
        ...
