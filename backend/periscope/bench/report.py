"""Reports for people: a heading that says what was measured where, and tables. Writes to a console, nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from periscope.bench.http import OUR_SERVER
from periscope.bench.samples import BASELINE
from periscope.core.amounts import counted

if TYPE_CHECKING:
    from rich.console import Console

    from periscope.bench.captions import CaptionReport
    from periscope.bench.conversation import Turn
    from periscope.bench.fuzz import FuzzReport
    from periscope.bench.gaps import NeighbourFigure
    from periscope.bench.generation import GenerationReport
    from periscope.bench.neighbours import NeighbourReport
    from periscope.bench.peers import PeerFailure
    from periscope.bench.quick import QuickReport
    from periscope.bench.reader import ReaderReport
    from periscope.bench.samples import Figure, Spread
    from periscope.bench.start import StartFigure, StartReport

#: Least width of output that is not a terminal, so that tables fit into files.
_MIN_WIDTH = 132
#: metric -> (heading, factor from its unit to the shown one, digits)
_COLUMNS = {
    "decode_tokens_per_s": ("decode tok/s", 1, 1),
    "tokens_per_s": ("end to end tok/s", 1, 1),
    "ttft_s": ("first token ms", 1000, 0),
    "cpu_ms_per_token": ("CPU ms/tok", 1, 2),
    "host_us_per_step": ("host us/step", 1, 0),
    "joules_per_token": ("J/tok", 1, 3),
}
#: metric -> (description, unit as shown, factor to that unit, digits)
_NEIGHBOUR_LINES = {
    "step_s": ("running stream alone: ordinary step", "ms", 1000, 1),
    "longest_gap_steps": ("while the long prompt is prefilled: longest gap", "steps", 1, 1),
    "p99_gap_steps": ("while the long prompt is prefilled: 99 of 100 gaps are at most", "steps", 1, 1),
    "short_ttft_steps": ("short prompt behind the long one: first token", "steps", 1, 1),
    "long_ttft_s": ("long prompt: first token", "s", 1, 2),
    "long_alone_ttft_s": ("long prompt on an idle server: first token", "s", 1, 2),
    "joined_step_steps": ("while the long row decodes, too: step", "steps", 1, 1),
    "joined_longest_gap_steps": ("while the long row decodes, too: longest gap", "steps", 1, 1),
    "captioning_rate": ("while four pictures are captioned: tokens per second, of those afterwards", "", 1, 2),
}

#: metric -> (description, unit as shown, factor to that unit, digits)
_START_LINES = {
    "listening_s": ("listens: clients can connect", "s", 1, 2),
    "answering_s": ("answers a request that was sent then", "s", 1, 2),
    "ready_s": ("ready: both models are loaded", "s", 1, 2),
    "cpu_s": ("CPU time until it is ready", "s", 1, 2),
    "memory_bytes": ("resident memory of the idle server", "MiB", 1 / 2**20, 0),
}


def print_generation(report: GenerationReport, console: Console) -> None:
    """Print the results of `bench engine` or `bench serve`, without the raw samples."""
    _heading(console, [*report.environment.lines(), _model(report), *_method(report)])
    console.print(_figures_table(report.figures, report.peer_failures))
    _beneath(console, report)
    for figure in report.figures:
        if (figure.workload, figure.contender, figure.metric) == ("1", OUR_SERVER, "ttft_s"):
            above = _shown(figure.above, 1000, 0)
            console.print(f"first token over HTTP after the raw loop's, one request at a time: {above} ms")
    if report.turns:
        console.print(_turns_table(report.turns))


def print_quick(report: QuickReport, console: Console) -> None:
    """Print the results of `--quick`: one table for all models."""
    first = report.reports[0]
    models = [_model(one) for one in report.reports]
    _heading(console, [*first.environment.lines(), *models, *_method(first)])
    console.print(_quick_table(report.reports))
    for one in report.reports:
        _beneath(console, one)


def _beneath(console: Console, report: GenerationReport) -> None:
    """What stands beneath a table: memory, and what does not stand in it."""
    peaks = {
        figure.contender: figure.value.median / 2**20
        for figure in report.figures
        if figure.metric == "peak_bytes" and figure.value is not None
    }
    if peaks:  # of the last workload
        told = ", ".join(f"{contender} {peak:.1f}" for contender, peak in peaks.items())
        console.print(f"memory that MLX took for the last of them above its models, MiB: {told}", highlight=False)
    for failure in (*report.peer_failures, *report.peers_left_out):
        console.print(f"{failure.name} {failure.reason}", highlight=False, markup=False)
    for note in report.notes:
        console.print(note, highlight=False, markup=False)


def print_captions(report: CaptionReport, console: Console) -> None:
    """Print the results of `bench caption`, without the raw samples."""
    where = report.settings.url or "a server of its own, embedded captioner"
    _heading(
        console,
        [*report.environment.lines(), f"{where}; {counted(report.settings.rounds, 'round')}, median (low-high)"],
    )
    table = _table("pictures at once", "", "ms per caption")
    for figure in report.figures:
        kind = "seen before" if figure.is_cached else "new"
        table.add_row(str(figure.num_pictures), kind, _shown(figure.s_per_caption, 1000, 1))
    console.print(table)


def print_fuzz(report: FuzzReport, console: Console) -> None:
    """Print the results of `bench fuzz`, and the first failures."""
    where = report.settings.url or "a server of its own, embedded pair"
    _heading(console, [*report.environment.lines(), f"{where}; seed {report.settings.seed}"])
    table = _table("file", "answered", "refused (4xx)", "failed", "slowest s")
    for figure in report.figures:
        counts = (figure.num_answered, figure.num_refused, figure.num_failed)
        table.add_row(figure.format, *map(str, counts), f"{figure.slowest_s:.2f}")
    console.print(table)
    for failure in report.failures:
        status = failure.status or "no answer"
        console.print(f"file {failure.number} ({failure.format}): {status}: {failure.said}", markup=False)
    if known := [used for used in report.memory_bytes if used is not None]:
        shown = ", ".join(f"{used / 2**20:.0f}" for used in known)
        console.print(f"memory of the server after each tenth, MiB: {shown}", highlight=False)


def print_reader(report: ReaderReport, console: Console) -> None:
    """Print the results of `bench reader`, without the texts."""
    where = report.settings.url or "a server of its own, embedded pair, the reader that is installed"
    _heading(console, [*report.environment.lines(), f"{where}; median (low-high)"])
    table = _table("screenshots", "", "characters right", "lines right", "ms per picture")
    for figure in report.figures:
        lines = f"{figure.num_lines_right} of {figure.num_lines}"
        shares = (f"{100 * figure.ratio:.1f} %", lines, _shown(figure.reader_ms, 1, 0))
        table.add_row(str(figure.num_pictures), figure.kind, *shares)
    console.print(table)


def print_neighbours(report: NeighbourReport, console: Console) -> None:
    """Print the results of `bench neighbours`, without the raw samples."""
    settings = report.settings
    num_tokens = statistics.median(sample.num_prompt_tokens for sample in report.samples)
    method = (
        f"{counted(settings.rounds, 'round')}; a long prompt of {num_tokens:.0f} tokens beside a running stream, a "
        f"short one {settings.short_after_s} s later; median (low-high)"
    )
    _heading(console, [*report.environment.lines(), report.model.line(), method])
    console.print(_lines_table(report.figures, _NEIGHBOUR_LINES))


def print_starts(report: StartReport, console: Console) -> None:
    """Print the results of `bench start`, without the raw samples."""
    settings = report.settings
    method = (
        f"{counted(settings.rounds, 'start')} with the embedded pair, memory {settings.idle_s:.0f} s later; "
        "median (low-high)"
    )
    _heading(console, [*report.environment.lines(), method])
    console.print(_lines_table(report.figures, _START_LINES))


def _model(report: GenerationReport) -> str:
    return f"{report.model.line()}; {counted(max(sample.round for sample in report.samples), 'round')}"


def _method(report: GenerationReport) -> Iterator[str]:
    settings = report.settings
    yield (
        f"contenders in turn; prompts of {settings.prompt_words} words, "
        f"{settings.max_tokens} tokens each, greedy; median (low-high), x = of the raw loop in the same round"
    )
    yield "host: CPU time of all Python threads; + = above the raw loop; worker = only the thread that steps the model"


def _heading(console: Console, lines: Sequence[str]) -> None:
    if not console.is_terminal:
        console.width = max(console.width, _MIN_WIDTH)
    for line in lines:
        console.print(line, highlight=False)


def _figures_table(figures: Sequence[Figure], failures: Sequence[PeerFailure]) -> Table:
    shown = [metric for metric in _COLUMNS if any(f.metric == metric and f.value is not None for f in figures)]
    table = _table("at once", "", *(_COLUMNS[metric][0] for metric in shown))
    by_key = {(figure.workload, figure.contender, figure.metric): figure for figure in figures}
    last = ""
    for workload, contender in dict.fromkeys((figure.workload, figure.contender) for figure in figures):
        if last and workload != last:
            table.add_section()
        cells = [_cell(by_key[workload, contender, metric], by_key) for metric in shown]
        table.add_row("" if workload == last else workload, contender, *cells)
        last = workload
    if failures:
        table.add_section()
    for failure in failures:
        table.add_row("", failure.name, "failed")
    return table


def _quick_table(reports: Sequence[GenerationReport]) -> Table:
    """Medians only, and beside each how it compares with the raw loop."""
    figures = [figure for report in reports for figure in report.figures]
    shown = [metric for metric in _COLUMNS if any(f.metric == metric and f.value is not None for f in figures)]
    table = _table("model", "at once", "", *(_COLUMNS[metric][0] for metric in shown))
    for report in reports:
        by_key = {(figure.workload, figure.contender, figure.metric): figure for figure in report.figures}
        last = ""
        for workload, contender in dict.fromkeys((figure.workload, figure.contender) for figure in report.figures):
            named = ("", "") if workload == last else (report.model.name, workload)
            table.add_row(*named, contender, *(_quick_cell(by_key[workload, contender, metric]) for metric in shown))
            last = workload
        for failure in report.peer_failures:
            table.add_row("", "", failure.name, "failed")
        table.add_section()
    return table


def _quick_cell(figure: Figure) -> str:
    _, factor, digits = _COLUMNS[figure.metric]
    if figure.value is None:
        return "-"
    text = f"{figure.value.median * factor:.{digits}f}"
    if figure.contender == BASELINE or figure.ratio is None or figure.above is None:
        return text
    if figure.metric == "host_us_per_step":
        return f"{text} {figure.above.median:+.0f}"
    return f"{text} x {figure.ratio.median:.2f}"


def _cell(figure: Figure, by_key: Mapping[tuple[str, str, str], Figure]) -> str:
    """The value, and beneath it how it compares with the raw loop."""
    _, factor, digits = _COLUMNS[figure.metric]
    text = _shown(figure.value, factor, digits)
    if figure.contender == BASELINE or figure.ratio is None or figure.above is None:
        return text
    if figure.metric != "host_us_per_step":
        return f"{text}\nx {_shown(figure.ratio, 1, 2)}"
    worker = by_key[figure.workload, figure.contender, "worker_us_per_step"].above
    shown = "" if worker is None else f", worker {worker.median:+.0f}"
    return f"{text}\n{figure.above.median:+.0f}{shown}"


def _lines_table(
    figures: Sequence[NeighbourFigure | StartFigure], lines: Mapping[str, tuple[str, str, float, int]]
) -> Table:
    table = _table("", "median (low-high)")
    for figure in figures:
        what, unit, factor, digits = lines[figure.metric]
        shown = _shown(figure.value, factor, digits)
        table.add_row(what, shown if figure.value is None else f"{shown} {unit}")
    return table


def _turns_table(turns: Sequence[Turn]) -> Table:
    """One line per turn, with the medians over the rounds."""
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
