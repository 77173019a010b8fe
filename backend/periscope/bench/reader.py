"""`bench reader`: how much of the text in screenshots the reader gets right, and how long it takes. Event loop."""

from __future__ import annotations

import base64
import difflib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.environment import Environment, environment
from periscope.bench.http import client_of_server
from periscope.bench.samples import Spread, spread_of
from periscope.bench.screenshots import Screenshot, screenshot
from periscope.errors import PeriscopeError
from periscope.remote import caption

if TYPE_CHECKING:
    from periscope.bench.waiting import Tell
    from periscope.core import JSONObject
    from periscope.remote import OpenAIClient


@dataclass(frozen=True, slots=True)
class ReaderSettings:
    """What `bench reader` measures.

    Attributes:
        url: a running server; None = start one with the embedded pair and the reader that is installed.
        model: None = the server's default.
        seed: decides what stands in the screenshots. A server that has seen them gives no times.
    """

    num_pictures: int = 40
    url: str | None = None
    model: str | None = None
    seed: int = 1


@dataclass(frozen=True, slots=True)
class ReaderSample:
    """One screenshot.

    Attributes:
        ratio: of `difflib`, between the text drawn and the text read, blanks and blank lines left out.
        num_lines_right: lines that were read to the letter, but for blanks.
        reader_ms: time of the reader; 0 if the server had the text in its cache.
    """

    kind: str
    ratio: float
    num_lines: int
    num_lines_right: int
    reader_ms: int
    text: str


@dataclass(frozen=True, slots=True)
class ReaderFigure:
    """All screenshots of one kind. `ratio`: their mean. `reader_ms`: None if all texts were cached."""

    kind: str
    num_pictures: int
    ratio: float
    num_lines: int
    num_lines_right: int
    reader_ms: Spread | None


@dataclass(frozen=True, slots=True)
class ReaderReport:
    """The results of `bench reader`. The last figure is that of all kinds."""

    settings: ReaderSettings
    environment: Environment
    figures: tuple[ReaderFigure, ...]
    samples: tuple[ReaderSample, ...]


async def bench_reader(settings: ReaderSettings, tell: Tell, *, api_key: str | None = None) -> ReaderReport:
    """Have every screenshot read, one at a time. Before them the reader is warmed up with another.

    Raises:
        PeriscopeError: the server did not start, a picture was refused, or the server has no reader.
    """
    samples: list[ReaderSample] = []
    async with client_of_server(settings.url, api_key) as client:
        await _read(client, settings.model, screenshot(0, seed=time.time_ns()))
        for number in range(settings.num_pictures):
            samples.append(await _read(client, settings.model, screenshot(number, settings.seed)))
            tell(f"{number + 1} of {settings.num_pictures}: {samples[-1].kind}, {100 * samples[-1].ratio:.1f} % right")
    if not any(sample.text for sample in samples):
        raise PeriscopeError(
            "The server read no text at all. Set `vision_proxy.reader` for this model, or install one."
        )
    return ReaderReport(settings, environment(), reader_figures_of(samples), tuple(samples))


def reader_figures_of(samples: Sequence[ReaderSample]) -> tuple[ReaderFigure, ...]:
    """Pure: one figure per kind, in the order of the samples, then that of all."""
    kinds = dict.fromkeys(sample.kind for sample in samples)
    return (
        *(_figure(kind, [each for each in samples if each.kind == kind]) for kind in kinds),
        _figure("all", samples),
    )


def _figure(kind: str, samples: Sequence[ReaderSample]) -> ReaderFigure:
    return ReaderFigure(
        kind,
        len(samples),
        statistics.fmean(sample.ratio for sample in samples),
        sum(sample.num_lines for sample in samples),
        sum(sample.num_lines_right for sample in samples),
        spread_of([sample.reader_ms for sample in samples if sample.reader_ms]),
    )


async def _read(client: OpenAIClient, model: str | None, shot: Screenshot) -> ReaderSample:
    """The chat tells the time, and then the captions the text, which is in the cache by now."""
    url = f"data:{shot.media_type};base64,{base64.b64encode(shot.data).decode()}"
    answer = await client.chat(_chat(model, url))
    (captioned,) = await caption(client, model, (url,))
    reader_ms = 0 if answer.vision is None else answer.vision.reader_ms
    return sample_of(shot, captioned.verbatim or "", reader_ms)


def sample_of(shot: Screenshot, text: str, reader_ms: int) -> ReaderSample:
    """Pure: compares what was read with what was drawn."""
    drawn, read = ([" ".join(line.split()) for line in lines] for lines in (shot.lines, text.splitlines()))
    read = [line for line in read if line]
    ratio = difflib.SequenceMatcher(None, "\n".join(drawn), "\n".join(read), autojunk=False).ratio()
    unread = ["".join(line.split()) for line in read]
    num_right = sum("".join(line.split()) in unread for line in drawn)
    return ReaderSample(shot.kind, ratio, len(drawn), num_right, reader_ms, text)


def _chat(model: str | None, url: str) -> JSONObject:
    parts = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": url}}]
    named = {} if model is None else {"model": model}
    return {**named, "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
