"""`bench engine --quick` and `bench serve --quick`: a whole picture in about two minutes. Event loop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from periscope.bench.generation import GenerationReport, GenerationSettings

if TYPE_CHECKING:
    from periscope.bench.waiting import Tell

#: One that shows the host's share of a step, and a trained one, whose answers end at different times.
QUICK_MODELS = ("tiny", "demo")
#: Short enough for several rounds.
QUICK = GenerationSettings(
    max_tokens=48, prompt_words=60, is_ragged=True, mean_gap_s=0.02, turns=0, shares_prefix=False
)
_ALL_S = 120.0
#: Seconds of each model's share in which nothing is measured: starts, the round that warms up, and ends.
_STARTING_S = 10.0
_LEAST_S = 1.0

Bench: TypeAlias = Callable[[GenerationSettings, "Tell"], Coroutine[Any, Any, GenerationReport]]


@dataclass(frozen=True, slots=True)
class QuickReport:
    """One report for each model."""

    reports: tuple[GenerationReport, ...]


async def bench_quick(bench: Bench, settings: GenerationSettings, tell: Tell, *, all_s: float = _ALL_S) -> QuickReport:
    """Measure the model of the settings, or `QUICK_MODELS`, with as many rounds as fit; each has one at least.

    Args:
        bench: `bench_engine` or `bench_serve`.
        all_s: seconds for everything, about.

    Raises:
        PeriscopeError: see `bench_serve`.
    """
    began = time.perf_counter()
    models = QUICK_MODELS if settings.model is None else (settings.model,)
    reports: list[GenerationReport] = []
    for number, model in enumerate(models):
        tell(f"model {model}")
        left_s = all_s - (time.perf_counter() - began)
        max_s = max(left_s / (len(models) - number) - _STARTING_S, _LEAST_S)
        reports.append(await bench(dataclasses.replace(settings, model=model, max_s=max_s), tell))
    return QuickReport(tuple(reports))
