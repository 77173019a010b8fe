"""What a worker asks of a model and its batch. Text models and captioners differ only behind this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from periscope.core import FinishReason, TokenLogprob
    from periscope.engine.text.detokenizer import Detokenizer
    from periscope.engine.worker.commands import Submit


@dataclass(frozen=True, slots=True)
class Sampled:
    """One row's result of one step. With a `finish_reason` or an `error` the batch has dropped the row by itself.

    Attributes:
        finish_reason: the row's last token is this.
        is_eos: `token_id` ends the sequence and is no text.
        num_cached_tokens: prompt tokens of this row that were not computed.
        error: the row has failed, and `token_id` means nothing. What a sampler, processor or picture of the row raised.
        is_model_failure: the error came out of the model itself: so could the next row's.
    """

    row: int
    token_id: int
    logprob: TokenLogprob | None = None
    finish_reason: FinishReason | None = None
    is_eos: bool = False
    num_cached_tokens: int = 0
    error: Exception | None = None
    is_model_failure: bool = False


class Batch(Protocol):
    """Rows in flight. After `step` raised, every row is lost and only `close` may be called."""

    def admit(self, submit: Submit) -> int:
        """Take a request in and return its row id. May raise for this request; the others are unharmed."""
        ...

    def prepare(self) -> None:
        """What the next step needs of the processor alone, done before the device is taken."""
        ...

    def step(self) -> Iterable[Sampled]:
        """One bounded piece of work on the device: a decode step of all rows, some prefill, one picture."""
        ...

    def remove(self, rows: Sequence[int]) -> None:
        """Mark rows, in any phase, to be dropped by the next step. Unknown ones are ignored; never raises."""
        ...

    @property
    def has_work(self) -> bool:
        """A further step has something to do, be it only to let go of removed rows."""
        ...

    @property
    def working_bytes(self) -> int:
        """What its rows take now, about."""
        ...

    @property
    def prompt_cache_bytes(self) -> int:
        """What is kept of earlier prompts."""
        ...

    def clear_prompt_cache(self) -> None:
        """Forget earlier prompts."""
        ...

    def close(self) -> None:
        """Let go of all rows and caches."""
        ...


FactsT_co = TypeVar("FactsT_co", covariant=True)


class LoadedModel(Protocol[FactsT_co]):
    """A model in memory, as its worker sees it. Nothing else keeps it: the worker frees it by letting go."""

    @property
    def facts(self) -> FactsT_co:
        """What other threads may know and keep: nothing that leads to its arrays."""
        ...

    @property
    def networks(self) -> Sequence[Any]:
        """The `nn.Module`s that hold its weights."""
        ...

    def new_batch(self) -> Batch:
        """An empty batch."""
        ...

    def new_detokenizer(self) -> Detokenizer:
        """A fresh detokenizer for one row."""
        ...

    def prove(self) -> None:
        """One small forward pass that has nothing to do with any request: the model works, or this raises."""
        ...
