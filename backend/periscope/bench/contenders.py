"""Contenders and workloads: every round gives each workload's prompts to each contender in turn. Event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from periscope.bench.samples import Batch, Sample, sample_of
from periscope.bench.words import words
from periscope.core import Message, Role, TextPart

if TYPE_CHECKING:
    from periscope.core import JSONObject

Tell: TypeAlias = Callable[[str], None]

#: Tokens of each answer in the warm-up round: enough for every code path to run once.
WARM_UP_TOKENS = 8


class Contender(Protocol):
    """Something that answers chats, one batch at a time."""

    @property
    def name(self) -> str: ...

    async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch | None:
        """Answer user messages as one batch, greedily, each up to `max_tokens` or the model's end token.

        None = it has failed and takes no further part.
        """
        ...


@dataclass(frozen=True, slots=True)
class Workload:
    """`num_rows` requests sent together; each prompt is `num_shared` shared words, then `num_words` of its own."""

    name: str
    num_rows: int
    num_words: int
    num_shared: int = 0

    def prompts(self, number: int) -> list[str]:
        """Pure: the prompts of one round. Rounds share no prefix, so that no prompt cache helps."""
        own = [words(self.num_words, self.name, number, row) for row in range(self.num_rows)]
        shared = words(self.num_shared, self.name, number, "shared")
        return [f"{shared} {text}".strip() for text in own]


async def measure(
    contenders: Sequence[Contender], workloads: Sequence[Workload], *, rounds: int, max_tokens: int, tell: Tell
) -> list[Sample]:
    """Measure all workloads. Round 0 warms up and is left out; in every round another contender goes first."""
    samples: list[Sample] = []
    for number in range(rounds + 1):
        tell(f"round {number} of {rounds}" if number else "warming up")
        for workload in workloads:
            prompts = workload.prompts(number)
            first = number % len(contenders)
            for contender in (*contenders[first:], *contenders[:first]):
                batch = await contender.run(prompts, max_tokens if number else min(WARM_UP_TOKENS, max_tokens))
                if number and batch is not None:
                    samples.append(sample_of(batch, workload=workload.name, contender=contender.name, number=number))
    order = [contender.name for contender in contenders]
    names = [workload.name for workload in workloads]
    return sorted(samples, key=lambda sample: (names.index(sample.workload), order.index(sample.contender)))


def user_message(text: str) -> Message:
    """Pure: a user message for the engine."""
    return Message(Role.USER, (TextPart(text),))


def user_wire(text: str) -> JSONObject:
    """Pure: a user message in OpenAI's JSON."""
    return {"role": "user", "content": text}
