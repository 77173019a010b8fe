"""`bench start`: how long a server with the embedded pair takes until it listens, answers and is ready. Event loop."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from periscope.bench.child import Child, child
from periscope.bench.environment import Environment, environment
from periscope.bench.samples import Spread, spread_of
from periscope.bench.server import DEMO_PAIR
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.bench.waiting import Tell
    from periscope.core import JSONObject

#: Both models are loaded at the start, as those of the models.yaml that comes with Periscope are.
_BOTH_LOADED: Final[JSONObject] = {
    "models": [each | {"preload": True} for each in DEMO_PAIR["models"]],
    "caption_cache": {"persist": False},
}
_LISTENS: Final = re.compile(r"listening on (http://\S+)")
_READY: Final = re.compile(r"ready on (http://\S+)/v1|stays up, but model|the models could not be loaded")
_TIMEOUT_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class StartSettings:
    """What to measure. `idle_s`: how long after the start the memory is read."""

    rounds: int = 5
    idle_s: float = 1.0


@dataclass(frozen=True, slots=True)
class StartSample:
    """One start, in seconds since the process was asked for.

    Attributes:
        listening_s: until clients can connect; from then on their requests wait for the answer.
        answering_s: until a request is answered that was sent as soon as it listened.
        ready_s: until both models are loaded.
        cpu_s: CPU time of the process until then; None = unknown.
        memory_bytes: resident memory of the idle process; None = unknown.
    """

    round: int
    listening_s: float
    answering_s: float
    ready_s: float
    cpu_s: float | None
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class StartFigure:
    """A field of `StartSample`, over all rounds."""

    metric: str
    value: Spread | None


@dataclass(frozen=True, slots=True)
class StartReport:
    """The results of `bench start`."""

    settings: StartSettings
    environment: Environment
    figures: tuple[StartFigure, ...]
    samples: tuple[StartSample, ...]


async def bench_start(settings: StartSettings, tell: Tell) -> StartReport:
    """Start and stop a server in every round. Round 0, which has files to write for the next ones, is not reported.

    Raises:
        PeriscopeError: a server did not start.
    """
    samples: list[StartSample] = []
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as home:
        (Path(home) / "models.yaml").write_text(json.dumps(_BOTH_LOADED))
        for number in range(settings.rounds + 1):
            tell(f"round {number} of {settings.rounds}" if number else "warming up")
            samples.append(await _start(number, home, settings))
    del samples[0]
    return StartReport(settings, environment(), start_figures_of(samples), tuple(samples))


def start_figures_of(samples: Sequence[StartSample]) -> tuple[StartFigure, ...]:
    """Pure: one figure per metric, in the order of the fields."""
    metrics = [field.name for field in fields(StartSample) if field.name != "round"]
    return tuple(StartFigure(name, spread_of(getattr(sample, name) for sample in samples)) for name in metrics)


async def _start(number: int, home: str, settings: StartSettings) -> StartSample:
    began = time.perf_counter()
    argv = (sys.executable, "-m", "periscope", "serve", "--port", "0", "--config", str(Path(home) / "models.yaml"))
    # Python takes an empty value for none: it keeps bytecode, as it does unless somebody asks for the opposite.
    async with child(argv, PERISCOPE_HOME=home, PYTHONDONTWRITEBYTECODE="") as server:
        async with asyncio.timeout(_TIMEOUT_S):
            url = await _line(server, _LISTENS)
            listening_s = time.perf_counter() - began
            async with asyncio.TaskGroup() as tasks:
                answering = tasks.create_task(_answered_at(url))
                await _line(server, _READY)
                ready_s, cpu_s = time.perf_counter() - began, server.cpu_s()
            answering_s = answering.result() - began
        server.drain()
        await asyncio.sleep(settings.idle_s)
        return StartSample(number, listening_s, answering_s, ready_s, cpu_s, server.memory_bytes())


async def _line(server: Child, pattern: re.Pattern[str]) -> str:
    """The URL in the first line of the log that matches.

    Raises:
        PeriscopeError: there is none, or it has no URL.
    """
    found = await server.find(pattern)
    if found is None or found[1] is None:
        raise PeriscopeError(f"The server to be measured did not start:\n{await server.last_lines()}")
    return found[1]


async def _answered_at(url: str) -> float:
    """When the server has answered a request that needs no model, by `time.perf_counter`."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(f"GET /livez HTTP/1.1\r\nhost: {place.netloc}\r\nconnection: close\r\n\r\n".encode())
        status = await reader.readline()
        answered = time.perf_counter()
        if b" 200 " not in status:
            raise PeriscopeError(f"The server to be measured answered /livez with {status.decode(errors='replace')!r}.")
        await reader.read()
        return answered
    finally:
        writer.close()
