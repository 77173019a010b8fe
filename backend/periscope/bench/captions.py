"""`bench caption`: seconds per caption, one and four at a time, for new pictures and for cached ones. Event loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.environment import Environment, environment
from periscope.bench.http import captions, client_of_server
from periscope.bench.pictures import picture_url
from periscope.bench.samples import Spread, spread_of

if TYPE_CHECKING:
    from periscope.bench.waiting import Tell

#: Numbers of pictures that are requested at the same time.
SIZES = (1, 4)


@dataclass(frozen=True, slots=True)
class CaptionSettings:
    """What `bench caption` measures.

    Attributes:
        url: a running server; None = start one with the embedded pair.
        model: None = the server's default.
    """

    url: str | None = None
    model: str | None = None
    rounds: int = 5


@dataclass(frozen=True, slots=True)
class CaptionSample:
    """One batch of pictures in one round. `s_per_caption`: time of the batch, divided by its pictures."""

    round: int
    num_pictures: int
    is_cached: bool
    s_per_caption: float


@dataclass(frozen=True, slots=True)
class CaptionFigure:
    """The spread over all rounds for one number of pictures, cached or not."""

    num_pictures: int
    is_cached: bool
    s_per_caption: Spread


@dataclass(frozen=True, slots=True)
class CaptionReport:
    """The results of `bench caption`."""

    settings: CaptionSettings
    environment: Environment
    figures: tuple[CaptionFigure, ...]
    samples: tuple[CaptionSample, ...]


async def bench_caption(settings: CaptionSettings, tell: Tell, *, api_key: str | None = None) -> CaptionReport:
    """Measure all cases in every round. Round 0 warms up and is not reported.

    Raises:
        PeriscopeError: the server did not start, or a caption failed.
    """
    samples: list[CaptionSample] = []
    # A running server may have cached the pictures of an earlier benchmark, so each run draws others.
    drawing = time.time_ns()
    async with client_of_server(settings.url, api_key) as client:
        for number in range(settings.rounds + 1):
            tell(f"round {number} of {settings.rounds}" if number else "warming up")
            for size in SIZES:
                urls = [picture_url(drawing, number, size, index) for index in range(size)]
                for is_cached in (False, True):
                    started = time.perf_counter()
                    await captions(client, urls, settings.model)
                    took_s = time.perf_counter() - started
                    samples.append(CaptionSample(number, size, is_cached, took_s / size))
    samples = [sample for sample in samples if sample.round]
    return CaptionReport(settings, environment(), caption_figures_of(samples), tuple(samples))


def caption_figures_of(samples: Sequence[CaptionSample]) -> tuple[CaptionFigure, ...]:
    """Pure: one figure per case, in the order of the samples."""
    cases: dict[tuple[int, bool], list[float]] = {}
    for sample in samples:
        cases.setdefault((sample.num_pictures, sample.is_cached), []).append(sample.s_per_caption)
    spreads = ((case, spread_of(values)) for case, values in cases.items())
    return tuple(CaptionFigure(*case, spread) for case, spread in spreads if spread is not None)
