"""Contenders and workloads: every round gives each workload's prompts to each contender in turn. Event loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from periscope.bench.edits import edit_prompt
from periscope.bench.samples import Batch, Sample, sample_of
from periscope.bench.waiting import told
from periscope.bench.words import rng, words
from periscope.core import Message, Role, TextPart

if TYPE_CHECKING:
    from periscope.bench.waiting import Tell
    from periscope.core import JSONObject

#: Tokens of each answer in the warm-up round: enough for every code path to run once.
WARM_UP_TOKENS = 8


#: Ragged requests: parts of the words and of the tokens of the longest one.
_SHORTEST_PROMPT = 0.1
_SHORTEST_ANSWER = 0.2


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a batch.

    Attributes:
        max_tokens: the answer ends there, or at the model's end token.
        after_s: seconds after the beginning of the batch at which it is sent.
    """

    prompt: str
    max_tokens: int
    after_s: float = 0.0


class Contender(Protocol):
    """Something that answers chats, one batch at a time."""

    @property
    def name(self) -> str: ...

    async def run(self, asks: Sequence[Ask]) -> Batch | None:
        """Answer user messages as one batch, greedily.

        None = it has failed and takes no further part.
        """
        ...


@dataclass(frozen=True, slots=True)
class Workload:
    """`num_rows` requests; each prompt is `num_shared` shared words, then `num_words` of its own.

    Attributes:
        is_ragged: prompts are of different lengths, up to `num_words`, and answers end at different times.
        is_edit: prompts hold files of `num_words`, which answers repeat with a change; nothing is shared or ragged.
        mean_gap_s: mean time between two requests, whose arrivals are a Poisson process; 0: all are sent at once.
    """

    name: str
    num_rows: int
    num_words: int
    num_shared: int = 0
    is_ragged: bool = False
    mean_gap_s: float = 0.0
    is_edit: bool = False

    def asks(self, number: int, max_tokens: int) -> list[Ask]:
        """Pure: the requests of one round. Rounds share no prefix, so that no prompt cache helps."""
        if self.is_edit:
            return [Ask(edit_prompt(self.num_words, number, row), max_tokens) for row in range(self.num_rows)]
        shared = words(self.num_shared, self.name, number, "shared")
        chance = rng(self.name, number, "schedule")
        asks, after_s = [], 0.0
        for row in range(self.num_rows):
            num_words, num_tokens = self.num_words, max_tokens
            if self.is_ragged:
                num_words = max(1, round(num_words * chance.uniform(_SHORTEST_PROMPT, 1)))
                num_tokens = max(1, round(num_tokens * chance.uniform(_SHORTEST_ANSWER, 1)))
            own = words(num_words, self.name, number, row)
            asks.append(Ask(f"{shared} {own}".strip(), num_tokens, after_s))
            after_s += chance.expovariate(1 / self.mean_gap_s) if self.mean_gap_s else 0.0
        return asks


async def measure(
    contenders: Sequence[Contender],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    max_tokens: int,
    tell: Tell,
    max_s: float = math.inf,
    joules: Callable[[], float | None] = lambda: None,
) -> list[Sample]:
    """Measure all workloads. Round 0 warms up and is left out; in every round another contender goes first.

    Args:
        max_s: seconds after which no round begins any more, nor one that would probably take longer; the first does.
        joules: energy that the machine has taken so far; None = unknown.
    """
    samples: list[Sample] = []
    began = round_began = time.perf_counter()
    for number in range(rounds + 1):
        now = time.perf_counter()
        if number > 1 and 2 * now - round_began - began > max_s:
            tell(f"the time is up after {number - 1} of {rounds} rounds")
            break
        round_began = now
        tell(f"round {number} of {rounds}" if number else "warming up")
        for workload in workloads:
            asks = workload.asks(number, max_tokens if number else min(WARM_UP_TOKENS, max_tokens))
            first = number % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                before = joules()
                async with told(f"{contender.name} with {workload.name} at once in round {number}", tell):
                    batch = await contender.run(asks)
                if number and batch is not None:
                    spent = _spent(before, joules())
                    samples.append(
                        sample_of(batch, workload=workload.name, contender=contender.name, number=number, joules=spent)
                    )
    order = [contender.name for contender in contenders]
    names = [workload.name for workload in workloads]
    return sorted(samples, key=lambda sample: (names.index(sample.workload), order.index(sample.contender)))


def _spent(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def user_message(text: str) -> Message:
    """Pure: a user message for the engine."""
    return Message(Role.USER, (TextPart(text),))


def user_wire(text: str) -> JSONObject:
    """Pure: a user message in OpenAI's JSON."""
    return {"role": "user", "content": text}
