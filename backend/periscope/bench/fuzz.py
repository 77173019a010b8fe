"""`bench fuzz`: thousands of broken pictures and documents, each in a chat of its own, to a server. Event loop.

A server passes if each is answered or refused with a 4xx, and its memory does not grow with their number.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.environment import Environment, environment
from periscope.bench.fuzz_files import SEED_FILES, SeedFile
from periscope.bench.http import client_of
from periscope.bench.mutations import mutated
from periscope.bench.server import DEMO_PAIR_UNREAD, serving
from periscope.core import JSONObject
from periscope.errors import PeriscopeError, RemoteError, RemoteRefused, RemoteUnreachable

if TYPE_CHECKING:
    from periscope.bench.waiting import Tell
    from periscope.remote import OpenAIClient

_CONCURRENCY = 4
#: Parts of a run after which progress is told and memory measured. The first one warms up.
_NUM_PARTS = 10
#: Broken files whose checksums are made right.
_REPAIRED_SHARE = 0.7
#: Longer than the server takes for any file by its own time limits.
_MAX_SILENCE_S = 180.0
_MAX_TOLD_FAILURES = 20
_MAX_MESSAGE_CHARS = 200


@dataclass(frozen=True, slots=True)
class FuzzSettings:
    """What `bench fuzz` sends.

    Attributes:
        num_files: of all formats together, in turn.
        seed: the same seed and number give the same file.
        url: a running server; None = start one with the embedded pair.
        model: None = the server's default.
    """

    num_files: int = 10_000
    seed: int = 1
    url: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class FuzzOutcome:
    """What came of one file. `status`: HTTP status; None = there was no whole answer, as `said` tells."""

    format: str
    number: int
    status: int | None
    said: str
    took_s: float

    @property
    def is_failure(self) -> bool:
        """Whether it is neither an answer nor a client's error."""
        return self.status is None or self.status >= 500


@dataclass(frozen=True, slots=True)
class FuzzFigure:
    """The files of one format: how many were answered, refused with a 4xx, and failed."""

    format: str
    num_answered: int
    num_refused: int
    num_failed: int
    slowest_s: float


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """The results of `bench fuzz`.

    Attributes:
        failures: the first ones.
        memory_bytes: resident memory of the server and its processes after each tenth of the files; None where it is
            not known.
    """

    settings: FuzzSettings
    environment: Environment
    figures: tuple[FuzzFigure, ...]
    failures: tuple[FuzzOutcome, ...]
    memory_bytes: tuple[int | None, ...]

    @property
    def num_failed(self) -> int:
        """Files that were answered with a 5xx or not at all."""
        return sum(figure.num_failed for figure in self.figures)


def fuzz_file(seed: int, number: int) -> tuple[SeedFile, bytes]:
    """Pure: the broken file of this number, and the good one it was made of."""
    chosen = SEED_FILES[number % len(SEED_FILES)]
    others = tuple(each.data() for each in SEED_FILES if each is not chosen)
    drawn = random.Random(f"{seed}/{number}")
    data = mutated(chosen.data(), others, drawn)
    return chosen, chosen.repaired(data) if drawn.random() < _REPAIRED_SHARE else data


async def bench_fuzz(settings: FuzzSettings, tell: Tell, *, api_key: str | None = None) -> FuzzReport:
    """Send all files. A server that has ended ends the run.

    Raises:
        PeriscopeError: the server did not start, or was not there from the beginning.
    """
    outcomes: list[FuzzOutcome] = []
    memory_bytes: list[int | None] = []
    async with _server(settings.url, api_key) as (client, read_memory):
        await client.list_models()
        for numbers in _parts(settings.num_files):
            outcomes += await _send(client, settings, numbers)
            memory_bytes.append(read_memory())
            num_failed = sum(outcome.is_failure for outcome in outcomes)
            tell(f"{len(outcomes)} of {settings.num_files} files, {num_failed} failed")
            if not await _is_alive(client):
                break
    failures = [outcome for outcome in outcomes if outcome.is_failure][:_MAX_TOLD_FAILURES]
    return FuzzReport(settings, environment(), fuzz_figures_of(outcomes), tuple(failures), tuple(memory_bytes))


def fuzz_figures_of(outcomes: Sequence[FuzzOutcome]) -> tuple[FuzzFigure, ...]:
    """Pure: one figure per format, in the order of the outcomes."""
    by_format: dict[str, list[FuzzOutcome]] = {}
    for outcome in outcomes:
        by_format.setdefault(outcome.format, []).append(outcome)
    return tuple(_figure(name, each) for name, each in by_format.items())


def _figure(name: str, outcomes: Sequence[FuzzOutcome]) -> FuzzFigure:
    num_failed = sum(outcome.is_failure for outcome in outcomes)
    num_refused = sum(not outcome.is_failure and outcome.status != 200 for outcome in outcomes)
    slowest_s = max(outcome.took_s for outcome in outcomes)
    return FuzzFigure(name, len(outcomes) - num_refused - num_failed, num_refused, num_failed, slowest_s)


def _parts(num_files: int) -> Iterator[range]:
    size = -(-num_files // _NUM_PARTS)
    for start in range(0, num_files, size):
        yield range(start, min(num_files, start + size))


async def _send(client: OpenAIClient, settings: FuzzSettings, numbers: Sequence[int]) -> list[FuzzOutcome]:
    turns = asyncio.Semaphore(_CONCURRENCY)

    async def send(number: int) -> FuzzOutcome:
        async with turns:
            return await _outcome(client, settings, number)

    return await asyncio.gather(*(send(number) for number in numbers))


async def _outcome(client: OpenAIClient, settings: FuzzSettings, number: int) -> FuzzOutcome:
    chosen, data = fuzz_file(settings.seed, number)
    started = time.perf_counter()
    status: int | None = 200
    said = ""
    try:
        await client.post("chat/completions", _chat(settings.model, chosen.part(data)))
    except RemoteError as error:
        status = error.status if isinstance(error, RemoteRefused) else None
        said = error.message[:_MAX_MESSAGE_CHARS]
    return FuzzOutcome(chosen.name, number, status, said, time.perf_counter() - started)


def _chat(model: str | None, part: JSONObject) -> JSONObject:
    message = {"role": "user", "content": [{"type": "text", "text": "?"}, part]}
    named = {} if model is None else {"model": model}
    return {**named, "messages": [message], "max_tokens": 1, "temperature": 0}


async def _is_alive(client: OpenAIClient) -> bool:
    try:
        await client.list_models()
    except RemoteUnreachable:
        return False
    except PeriscopeError:
        return True
    return True


@asynccontextmanager
async def _server(url: str | None, api_key: str | None) -> AsyncIterator[tuple[OpenAIClient, Callable[[], int | None]]]:
    if url is not None:
        async with client_of(url, api_key, max_silence_s=_MAX_SILENCE_S) as client:
            yield client, lambda: None
        return
    async with serving(DEMO_PAIR_UNREAD) as server, client_of(server.url, max_silence_s=_MAX_SILENCE_S) as client:
        yield client, server.memory_bytes
