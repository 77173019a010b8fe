"""Thinking: where a row is in its reasoning, and which tokens end it once its budget is spent.

A row's tokens are shown to it one by one. When the budget is spent, it asks for the tokens of the model's own end
marker in place of what the model would say, and the model goes on from there with its answer.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from periscope.engine.text.thinking_format import ThinkingFormat

#: Tokens beyond the budget in which a character or an end marker that is under way may still be completed.
_GRACE_TOKENS: Final = 8
#: A budget leaves this part of `max_tokens` to the answer, and no more than so many tokens.
_ANSWER_PART, _MAX_ANSWER_TOKENS = 4, 1024


@dataclass(frozen=True, slots=True)
class ThinkingRules:
    """What ends the thinking of one completion. Crosses threads.

    Attributes:
        is_open: the prompt has opened it.
        is_once: a grammar allows it before the answer only; else the model may open it again.
        may_call: the answer may be a call.
    """

    format: ThinkingFormat
    is_open: bool = False
    is_once: bool = False
    may_call: bool = False

    @property
    def endings(self) -> Sequence[Sequence[int]]:
        """The tokens that end it, see `ThinkingFormat.endings`."""
        return self.format.endings_before_calls if self.may_call else self.format.endings

    def budget_within(self, budget: int, max_tokens: int) -> int:
        """Pure: the budget, cut so that the answer has room in `max_tokens` after the ending."""
        ending = max(map(len, self.endings))
        return max(0, min(budget, max_tokens - ending - min(max_tokens // _ANSWER_PART, _MAX_ANSWER_TOKENS)))


class _Phase(StrEnum):
    """Where a completion is. `ANSWERING` is also before and between blocks of thinking."""

    ANSWERING = "answering"
    THINKING = "thinking"
    CALLING = "calling"
    OVER = "over"  # nothing that follows is thinking


class Thinking:
    """Owns one row's place in its thinking. Used on the row's worker thread only.

    A block that the model opens itself has at least one token: whether a block opens is known one token late, because
    the token before is still being computed when the next one is asked for. So the tokens are the same whether rows are
    computed ahead, are preempted, or have drafts verified.

    Args:
        budget: tokens that all thinking may take; None = without bound.
        text_of: the bytes of a token.

    Attributes:
        num_seen: tokens of the completion that were shown.
    """

    def __init__(self, rules: ThinkingRules, budget: int | None, text_of: Callable[[int], bytes]) -> None:
        self.num_seen = 0
        self._rules = rules
        self._budget = budget
        self._text_of = text_of
        self._phase = _Phase.THINKING if rules.is_open else _Phase.ANSWERING
        self._num_thought = 0
        self._may_end = rules.is_open  # the block under way has a token, or the prompt has opened it
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._tail = ""  # may still become a marker
        self._ending: Sequence[int] = ()
        self._ends_at = 0  # the place of the first token of the ending in the completion
        self._num_endings = 0

    def see(self, token_id: int, at: int) -> None:
        """Show the token at this place of the completion, from 0. One that was shown before is ignored."""
        if at < self.num_seen:
            return
        self.num_seen = at + 1
        was_thinking = self._phase is _Phase.THINKING
        self._read(self._decoder.decode(self._text_of(token_id)))
        if was_thinking and self._phase is _Phase.THINKING:
            self._num_thought += 1
            self._may_end = True

    def end_soon(self) -> None:
        """End thinking at the next token, and whenever it is opened again."""
        self._budget = 0

    def depends_on(self, at: int) -> bool:
        """Whether what comes at this place depends on the token before it, which has not been shown yet."""
        if at <= self.num_seen or self._phase is not _Phase.THINKING or self._is_ending(at):
            return False
        return self._budget is not None and self._num_thought + 1 >= self._budget

    def forced(self, at: int, accepted: Callable[[Sequence[int]], int] = len) -> int | None:
        """The token that must come at this place; None = the model chooses.

        Args:
            accepted: how many of some tokens the row's grammar takes next.
        """
        if not self._is_ending(at) and self._is_due(at):
            self._ending, self._ends_at = self._next_ending(accepted), at
            self._num_endings += 1
            if not self._ending:
                self._phase = _Phase.OVER
        place = at - self._ends_at
        return self._ending[place] if 0 <= place < len(self._ending) else None

    def _next_ending(self, accepted: Callable[[Sequence[int]], int]) -> Sequence[int]:
        """The ending as far as the grammar takes it; empty if that is not as far as its marker."""
        endings = self._rules.endings
        ending = endings[min(self._num_endings, len(endings) - 1)]
        taken = ending[: accepted(ending)]
        text = b"".join(map(self._text_of, taken)).decode("utf-8", "replace")
        return taken if self._rules.format.end in text else ()

    def _is_ending(self, at: int) -> bool:
        """Whether a token of the ending comes at this place, or the ending has not been shown as a whole yet."""
        return bool(self._ending) and self.num_seen < self._ends_at + len(self._ending) and at >= self._ends_at

    def _is_due(self, at: int) -> bool:
        if self._phase is not _Phase.THINKING or self._budget is None or at > self.num_seen:
            return False
        if not self._may_end or self._num_thought < self._budget:
            return False
        is_whole = not self._decoder.getstate()[0] and not self._is_in_marker()
        return is_whole or self._num_thought >= self._budget + _GRACE_TOKENS

    def _is_in_marker(self) -> bool:
        """Whether the model is writing the end marker itself. One character is more likely to be text."""
        end, tail = self._rules.format.end, self._tail
        return any(tail.endswith(end[:length]) for length in range(2, len(end)))

    def _read(self, text: str) -> None:
        text = self._tail + text
        start = self._rules.format.start
        while self._phase is not _Phase.OVER:
            if self._phase is _Phase.ANSWERING and self._rules.is_once:
                text = text.lstrip()
                if not text.startswith(start) and not start.startswith(text):
                    self._phase = _Phase.OVER
            edges = self._edges()
            found = [(at, marker) for marker in edges if (at := text.find(marker)) >= 0]
            if not found:
                break
            at, marker = min(found)
            text = text[at + len(marker) :]
            self._phase, self._may_end = edges[marker], False
        self._tail = text[1 - self._rules.format.longest :]

    def _edges(self) -> dict[str, _Phase]:
        """The markers that lead out of this phase. Without tools nothing is a call."""
        known = self._rules.format
        match self._phase:
            case _Phase.THINKING:
                return {known.end: _Phase.OVER if self._rules.is_once else _Phase.ANSWERING}
            case _Phase.CALLING:
                return {known.call_end: _Phase.ANSWERING} if known.call_end else {}
            case _Phase.OVER:
                return {}
            case _Phase.ANSWERING:
                calls = {known.call_start: _Phase.CALLING} if known.call_start and self._rules.may_call else {}
                return {known.start: _Phase.THINKING} | calls
