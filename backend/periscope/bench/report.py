"""Reports as people read them: a heading that says what was measured where, and one table. Pure but for the console."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from periscope.bench.samples import BASELINE, METRICS

if TYPE_CHECKING:
    from rich.console import Console

    from periscope.bench.captions import CaptionReport
    from periscope.bench.conversation import Turn
    from periscope.bench.generation import GenerationReport
    from periscope.bench.samples import Figure, Spread

#: Of output that is no terminal.
_MIN_WIDTH = 132
#: metric -> (heading, factor from its unit to the shown one, digits)
_COLUMNS = {
    "decode_tokens_per_s": ("decode tok/s", 1, 1),
    "tokens_per_s": ("end to end tok/s", 1, 1),
    "ttft_s": ("first token ms", 1000, 0),
    "cpu_ms_per_token": ("CPU ms/tok", 1, 1),
}


def print_generation(report: GenerationReport, console: Console) -> None:
    """Everything but the raw samples."""
    _heading(console, [*report.environment.lines(), report.model.line(), *_method(report)])
    console.print(_figures_table(report.figures))
    if (above := report.http_above_raw_ttft_ms) is not None:
        console.print(f"first token over HTTP after the raw loop's, one request at a time: {_shown(above, 1, 0)} ms")
    if report.turns:
        console.print(_turns_table(report.turns))


def print_captions(report: CaptionReport, console: Console) -> None:
    """Everything but the raw samples."""
    where = report.settings.url or "a server of its own, embedded captioner"
    _heading(console, [*report.environment.lines(), f"{where}; {report.settings.rounds} rounds, median (low-high)"])
    table = _table("pictures at once", "", "ms per caption")
    for figure in report.figures:
        kind = "seen before" if figure.is_cached else "new"
        table.add_row(str(figure.num_pictures), kind, _shown(figure.s_per_caption, 1000, 1))
    console.print(table)


def _method(report: GenerationReport) -> Iterator[str]:
    settings = report.settings
    yield (
        f"{settings.rounds} rounds, contenders in turn; prompts of {settings.prompt_words} words, "
        f"{settings.max_tokens} tokens each, greedy; median (low-high), x = of the raw loop in the same round"
    )


def _heading(console: Console, lines: Sequence[str]) -> None:
    if not console.is_terminal:
        console.width = max(console.width, _MIN_WIDTH)
    for line in lines:
        console.print(line, highlight=False)


def _figures_table(figures: Sequence[Figure]) -> Table:
    shown = [metric for metric in METRICS if any(f.metric == metric and f.value is not None for f in figures)]
    table = _table("at once", "", *(_COLUMNS[metric][0] for metric in shown))
    by_key = {(figure.workload, figure.contender, figure.metric): figure for figure in figures}
    last = ""
    for workload, contender in dict.fromkeys((figure.workload, figure.contender) for figure in figures):
        if last and workload != last:
            table.add_section()
        cells = [_cell(by_key[workload, contender, metric]) for metric in shown]
        table.add_row("" if workload == last else workload, contender, *cells)
        last = workload
    return table


def _cell(figure: Figure) -> str:
    _, factor, digits = _COLUMNS[figure.metric]
    text = _shown(figure.value, factor, digits)
    return text if figure.contender == BASELINE or figure.ratio is None else f"{text}\nx {_shown(figure.ratio, 1, 2)}"


def _turns_table(turns: Sequence[Turn]) -> Table:
    """Medians of the rounds."""
    has_pictures = any(turn.caption_ms is not None for turn in turns)
    headings = ["conversation, turn", "first token ms", "prompt tokens", "cached", "computed"]
    table = _table(*headings, *(["captions ms"] if has_pictures else []))
    for number in sorted({turn.number for turn in turns}):
        same = [turn for turn in turns if turn.number == number]
        cells = [
            statistics.median(turn.ttft_s for turn in same) * 1000,
            statistics.median(turn.num_prompt_tokens for turn in same),
            statistics.median(turn.num_cached_tokens for turn in same),
            statistics.median(turn.num_prefilled_tokens for turn in same),
        ]
        if has_pictures:
            cells.append(statistics.median(turn.caption_ms or 0 for turn in same))
        table.add_row(str(number), *(f"{cell:.0f}" for cell in cells))
    return table


def _table(*headings: str) -> Table:
    table = Table()
    for heading in headings:
        table.add_column(heading, justify="left" if not heading else "right")
    return table


def _shown(spread: Spread | None, factor: float, digits: int) -> str:
    if spread is None:
        return "-"
    median, low, high = (f"{value * factor:.{digits}f}" for value in (spread.median, spread.low, spread.high))
    return f"{median} ({low}-{high})"
