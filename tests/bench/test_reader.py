"""`bench reader`: what counts as right, and the figures over a real server and a real reader."""

from __future__ import annotations

import asyncio

from periscope.bench.reader import ReaderReport, ReaderSettings, bench_reader, reader_figures_of, sample_of
from periscope.bench.screenshots import Screenshot, screenshot
from tests.e2e.conftest import RunningServer

SHOT = Screenshot("terminal", b"", "image/png", ("$ ls", "  a.txt   b.txt"))


def read(settings: ReaderSettings) -> ReaderReport:
    return asyncio.run(bench_reader(settings, lambda _: None))


def test_blanks_do_not_count_and_characters_do() -> None:
    """Indentation and gaps are estimates; a wrong character is an error of the line that it stands in."""
    right = sample_of(SHOT, "$ ls\n\na.txt b.txt", 5)
    assert (right.ratio, right.num_lines_right, right.num_lines, right.reader_ms) == (1.0, 2, 2, 5)
    wrong = sample_of(SHOT, "$ 1s\na.txt b.txt", 5)
    assert (round(wrong.ratio, 2), wrong.num_lines_right) == (0.94, 1)
    assert sample_of(SHOT, "", 5).ratio == 0.0


def test_a_figure_for_each_kind_and_for_all() -> None:
    """Texts that came from the cache have no time."""
    samples = [sample_of(SHOT, "$ ls", 0), sample_of(screenshot(1), "\n".join(screenshot(1).lines), 30)]
    terminal, code, total = reader_figures_of(samples)
    assert (terminal.kind, terminal.reader_ms, terminal.num_lines_right) == ("terminal", None, 1)
    assert (code.ratio, code.num_lines_right, code.reader_ms and code.reader_ms.median) == (1.0, 6, 30)
    assert (total.kind, total.num_pictures, total.num_lines_right) == ("all", 2, 7)


def test_screenshots_are_the_same_in_every_run() -> None:
    """Seven kinds in turn; another seed has other text."""
    assert len({screenshot(number).kind for number in range(7)}) == 7
    assert screenshot(3) == screenshot(3) != screenshot(3, seed=2)


def test_the_reader_of_a_running_server_is_measured(server: RunningServer) -> None:
    """A traceback on black: nearly all of it right, with the time that reading took."""
    report = read(ReaderSettings(num_pictures=1, url=server.url, seed=5))
    assert [figure.kind for figure in report.figures] == ["terminal", "all"]
    assert report.figures[-1].ratio > 0.9
    assert all(sample.reader_ms > 0 for sample in report.samples)
