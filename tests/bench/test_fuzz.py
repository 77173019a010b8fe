"""`bench fuzz`: what counts as a failure, and that a server is told from one that fails."""

from __future__ import annotations

import asyncio
import json

from periscope.bench.fuzz import FuzzReport, FuzzSettings, bench_fuzz, fuzz_file
from periscope.bench.fuzz_files import SEED_FILES
from tests.e2e.conftest import RunningServer
from tests.remote.hostile import head, hostile

NO_MODELS = [head(content_type="application/json"), json.dumps({"data": []}).encode()]


def fuzzed(settings: FuzzSettings) -> FuzzReport:
    return asyncio.run(bench_fuzz(settings, lambda _: None))


def test_a_seed_gives_the_same_files_again() -> None:
    """So that a failure can be looked into; another seed gives others."""
    first = [fuzz_file(1, number)[1] for number in range(50)]
    assert first == [fuzz_file(1, number)[1] for number in range(50)]
    assert first != [fuzz_file(2, number)[1] for number in range(50)]


def test_the_server_survives_files_of_every_format(server: RunningServer) -> None:
    """Each file is answered or refused."""
    report = fuzzed(FuzzSettings(num_files=len(SEED_FILES), url=server.url))
    assert [figure.format for figure in report.figures] == [seed.name for seed in SEED_FILES]
    assert all(figure.num_answered + figure.num_refused == 1 for figure in report.figures)
    assert (report.num_failed, report.failures) == (0, ())


def test_server_errors_and_broken_answers_are_failures() -> None:
    """A 500 and a connection that breaks; a 400 is what a broken file deserves."""

    async def run() -> FuzzReport:
        refused, broken = [head("400 Bad Request"), b"{}"], [head("500 Internal Server Error"), b"boom"]
        async with hostile(NO_MODELS, refused, NO_MODELS, broken, NO_MODELS, [], NO_MODELS) as server:
            return await bench_fuzz(FuzzSettings(num_files=3, url=server.url), lambda _: None)

    report = asyncio.run(run())
    assert (report.num_failed, len(report.failures)) == (2, 2)
    assert {failure.status for failure in report.failures} == {500, None}
