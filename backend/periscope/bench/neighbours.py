"""`bench neighbours`: how a long prompt delays a stream and a short prompt, and captions the stream. Event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from periscope.bench.contenders import user_wire
from periscope.bench.environment import Environment, MeasuredModel, environment, measured_model
from periscope.bench.gaps import (
    NeighbourFigure,
    NeighbourSample,
    TimedRequest,
    afterwards,
    gaps_in,
    is_steady,
    neighbour_figures_of,
    neighbour_sample_of,
)
from periscope.bench.http import Answer, captions, chat, client_of
from periscope.bench.model_files import model_files, shown_name
from periscope.bench.pictures import picture_url
from periscope.bench.random_model import Shape
from periscope.bench.server import MODEL_NAME, models_yaml, serving
from periscope.bench.words import words
from periscope.engine import EngineConfig
from periscope.engine.loading.loader import context_length_of, read_model_config
from periscope.errors import InvalidRequest, PeriscopeError

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.bench.waiting import Tell
    from periscope.remote import OpenAIClient

#: Sizes of the running stream's prompt and of the short request.
_RUNNING_WORDS = 30
_SHORT_WORDS = 50
_SHORT_TOKENS = 2
#: New pictures that are captioned beside the running stream.
_NUM_PICTURES = 4
#: Tokens of the running stream between the end of the long row and the captions: until then its slot is computed along
#: and its state copied out, which is not what captions cost.
_SETTLING_TOKENS = 64
#: Longest prompt of the warm-up round: enough for every code path to run once.
_WARM_UP_WORDS = 600
#: Part of a model's context that is left for its chat template.
_TEMPLATE_TOKENS = 64
#: Context of a model with random weights beyond the long prompt, so that the running stream outlasts its prefill.
_RUNNING_TOKENS = 32768
#: Answers after which a model is given up whose answers are too short to measure.
_MAX_ANSWERS = 100


@dataclass(frozen=True, slots=True)
class NeighbourSettings:
    """What `bench neighbours` measures.

    Attributes:
        model: folder or hub id; None = random weights.
        prompt_tokens: length of the long prompt in words, most of which are one token.
        long_tokens: tokens that the long row decodes beside the running one.
        short_after_s: delay between sending the long and the short prompt.
    """

    model: str | None = None
    rounds: int = 3
    prompt_tokens: int = 6000
    long_tokens: int = 16
    short_after_s: float = 0.3


@dataclass(frozen=True, slots=True)
class NeighbourReport:
    """The results of `bench neighbours`."""

    settings: NeighbourSettings
    environment: Environment
    model: MeasuredModel
    figures: tuple[NeighbourFigure, ...]
    samples: tuple[NeighbourSample, ...]


async def bench_neighbours(settings: NeighbourSettings, tell: Tell) -> NeighbourReport:
    """Measure on a server of its own. Round 0 warms up and is not reported.

    Raises:
        InvalidRequest: the model's context is too small for the long prompt.
        PeriscopeError: the model cannot be used, or the server did not start.
    """
    samples: list[NeighbourSample] = []
    shape = Shape(context_length=settings.prompt_tokens + _RUNNING_TOKENS)
    async with model_files(settings.model, shape) as path:
        context_length = context_length_of(read_model_config(path), None)
        _check_fits(settings, context_length)
        models = models_yaml(path, EngineConfig(stream_interval_ms=0), has_captioner=True)  # each token has its time
        async with serving(models) as server, client_of(server.url) as client:
            for number in range(settings.rounds + 1):
                tell(f"round {number} of {settings.rounds}" if number else "warming up")
                samples.append(await _round(client, settings, number, context_length))
        model = measured_model(path, shown_name(settings.model))
    counted = samples[1:]
    return NeighbourReport(settings, environment(), model, neighbour_figures_of(counted), tuple(counted))


def _check_fits(settings: NeighbourSettings, context_length: int) -> None:
    room = context_length - settings.long_tokens - _TEMPLATE_TOKENS
    if settings.prompt_tokens > room:
        raise InvalidRequest(
            f"--prompt-tokens {settings.prompt_tokens} does not fit: the model's context is {context_length} tokens, "
            f"and the chat template and the answer need some of them. Give {max(room, 1)} at most.",
            param="prompt_tokens",
        )


async def _round(
    client: OpenAIClient, settings: NeighbourSettings, number: int, context_length: int
) -> NeighbourSample:
    num_words = settings.prompt_tokens if number else min(settings.prompt_tokens, _WARM_UP_WORDS)
    alone, _ = await _ask(client, words(num_words, "alone", number), 1)
    async with _RunningStream(client, number, context_length) as stream:
        await stream.until(lambda: is_steady(gaps_in(stream.answers)))

        async def ask_short() -> tuple[TimedRequest, Answer]:
            await asyncio.sleep(settings.short_after_s)
            return await _ask(client, words(_SHORT_WORDS, "short", number), _SHORT_TOKENS)

        (long, answer), (short, _) = await asyncio.gather(
            _ask(client, words(num_words, "long", number), settings.long_tokens), ask_short()
        )
        await stream.until(lambda: stream.newest_s > long.times_s[-1])
        num_tokens = stream.num_tokens + _SETTLING_TOKENS
        await stream.until(lambda: stream.num_tokens >= num_tokens)
        captioning = await _captioning(client, number)
        await stream.until(lambda: stream.newest_s > afterwards(*captioning)[1])
    return neighbour_sample_of(
        stream.answers,
        long=long,
        short=short,
        alone=alone,
        captioning=captioning,
        number=number,
        num_prompt_tokens=answer.num_prompt_tokens,
    )


async def _captioning(client: OpenAIClient, number: int) -> tuple[float, float]:
    """Have new pictures described at once: when they were sent, and when the last caption was there."""
    urls = [picture_url("neighbours", number, index) for index in range(_NUM_PICTURES if number else 1)]
    began_s = time.perf_counter()
    await captions(client, urls, MODEL_NAME)
    return began_s, time.perf_counter()


async def _ask(client: OpenAIClient, text: str, max_tokens: int) -> tuple[TimedRequest, Answer]:
    asked_s = time.perf_counter()
    answer = await chat(client, [user_wire(text)], max_tokens)
    return TimedRequest(asked_s, tuple(asked_s + time_s for time_s in answer.row.times_s)), answer


class _RunningStream:
    """Owns a stream that runs inside the context: when the model ends an answer, the next is requested at once.

    Attributes:
        answers: arrival times of the tokens, by `time.perf_counter`; one list per answer.
    """

    def __init__(self, client: OpenAIClient, number: int, max_tokens: int) -> None:
        self.answers: list[list[float]] = []
        self._client = client
        self._number = number
        self._max_tokens = max_tokens
        self._news = asyncio.Event()

    @property
    def num_tokens(self) -> int:
        """Tokens that have arrived."""
        return sum(map(len, self.answers))

    @property
    def newest_s(self) -> float:
        """Arrival time of the newest token; 0 before the first."""
        return max((times_s[-1] for times_s in self.answers if times_s), default=0.0)

    async def until(self, is_enough: Callable[[], bool]) -> None:
        """Wait for the token after which `is_enough` is true.

        Raises:
            PeriscopeError: the server failed, or the model's answers are too short to measure.
        """
        while not is_enough():
            if self._running.done():
                await self._running
            self._news.clear()
            await self._news.wait()

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(lambda _: self._news.set())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])

    async def _run(self) -> None:
        while len(self.answers) < _MAX_ANSWERS:
            text = words(_RUNNING_WORDS, "running", self._number, len(self.answers))
            self.answers.append([])
            await chat(self._client, [user_wire(text)], self._max_tokens, arrived=self._arrived)
        raise PeriscopeError(
            f"The model ended {_MAX_ANSWERS} answers before anything was measured: they are too short."
        )

    def _arrived(self, time_s: float) -> None:
        self.answers[-1].append(time_s)
        self._news.set()
