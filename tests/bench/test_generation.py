"""Whole benchmarks on a tiny model: what they report, never how fast it was."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from periscope.bench.generation import GenerationReport, GenerationSettings, bench_engine, bench_serve
from periscope.bench.model_files import model_files
from periscope.bench.peers import PEERS
from periscope.bench.report import print_generation
from periscope.bench.samples import METRICS
from periscope.errors import ModelLoadError
from tests.bench.test_peers import DEAF

#: Metrics that have a value and a ratio for any batch on any machine.
_ALWAYS = ("decode_tokens_per_s", "tokens_per_s", "ttft_s", "cpu_ms_per_token")


def settings(model: Path) -> GenerationSettings:
    return GenerationSettings(model=str(model), rounds=1, max_tokens=4, prompt_words=20, num_rows=(1, 2), turns=3)


def shown_of(report: GenerationReport) -> str:
    console = Console(record=True, file=io.StringIO())
    print_generation(report, console)
    return console.export_text()


@pytest.fixture(scope="module")
def served(tiny_random_model: Path) -> GenerationReport:
    """One run of `bench serve`, with a peer that can answer and one that cannot."""
    asked = dataclasses.replace(settings(tiny_random_model), peers=(PEERS[0], DEAF))
    return asyncio.run(bench_serve(asked, lambda _: None))


def test_engine_and_raw_loop_do_the_same_work(tiny_random_model: Path) -> None:
    """Both generate the same number of tokens in every batch, and every figure has its ratio."""
    told: list[str] = []
    report = asyncio.run(bench_engine(settings(tiny_random_model), told.append))
    work = [(sample.workload, sample.contender, sample.num_tokens) for sample in report.samples]
    assert work == [("1", "raw", 4), ("1", "engine", 4), ("2", "raw", 8), ("2", "engine", 8)]
    assert len(report.figures) == len(work) * len(METRICS)
    told_always = [figure for figure in report.figures if figure.metric in _ALWAYS]
    assert all(figure.value and figure.ratio and figure.ratio.low > 0 for figure in told_always)
    assert told == ["warming up", "round 1 of 1"]
    assert report.turns == ()
    assert all((sample.peak_bytes or 0) > 0 for sample in report.samples)


def test_edits_are_measured_with_look_up_and_without(tiny_random_model: Path) -> None:
    """The same requests go to the raw loop, the engine and an engine that drafts, and each answers as a whole."""
    asked = dataclasses.replace(settings(tiny_random_model), max_tokens=8, has_edits=True)
    report = asyncio.run(bench_engine(asked, lambda _text: None))
    work = {(sample.workload, sample.contender): sample.num_tokens for sample in report.samples}
    names = ["1", "2", "1, edit", "2, edit"]
    assert list(work) == [(name, each) for name in names for each in ("raw", "engine", "engine, look-up")]
    assert [work["2, edit", each] for each in ("raw", "engine", "engine, look-up")] == [16] * 3


def test_ragged_batches_are_the_same_work_for_all(tiny_random_model: Path) -> None:
    """Answers that end at different times, and requests that arrive one by one, are measured for both contenders."""
    asked = dataclasses.replace(settings(tiny_random_model), max_tokens=8, is_ragged=True, mean_gap_s=0.002)
    report = asyncio.run(bench_engine(asked, lambda _: None))
    work = {(sample.workload, sample.contender): sample.num_tokens for sample in report.samples}
    assert [name for name, contender in work if contender == "raw"] == ["1", "2", "2, ragged", "2, arriving"]
    assert all(work[name, "engine"] == work[name, "raw"] for name, _ in work)
    assert 2 <= work["2, ragged", "raw"] < 16
    assert all(sample.ttft_s > 0 for sample in report.samples)


@pytest.mark.parametrize(("name", "vocab_size"), [("demo", 1536), ("tiny", 4096)])
def test_models_have_short_names(name: str, vocab_size: int) -> None:
    """The embedded text model and random weights are measured by name."""

    async def found() -> int:
        async with model_files(name) as folder:
            assert folder.is_absolute()
            return int(json.loads((folder / "config.json").read_text())["vocab_size"])

    assert asyncio.run(found()) == vocab_size


def test_a_relative_folder_is_the_same_for_a_server(tiny_random_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server to be measured runs elsewhere, so it is given the whole path."""
    monkeypatch.chdir(tiny_random_model.parent)

    async def found() -> Path:
        async with model_files(tiny_random_model.name) as folder:
            return folder

    assert asyncio.run(found()) == tiny_random_model.resolve()


def test_the_report_says_what_was_measured(served: GenerationReport) -> None:
    """The report has versions, device, model shape and dtype beside the figures."""
    assert served.environment.mlx
    assert served.environment.num_cpus >= 1
    assert (served.model.shape["num_hidden_layers"], served.model.dtype) == (2, "F32")


def test_http_does_the_same_work_too(served: GenerationReport) -> None:
    """Every workload, one with a shared prefix among them, has all contenders and their tokens."""
    work = {(sample.workload, sample.contender): sample.num_tokens for sample in served.samples}
    contenders = ("raw", "engine", "http", "mlx_lm.server")
    expected = {"1": 4, "2": 8, "4, shared prefix": 16}
    assert work == {(name, contender): tokens for name, tokens in expected.items() for contender in contenders}
    assert all(sample.cpu_ms_per_token is not None for sample in served.samples)
    assert "first token over HTTP after the raw loop's" in shown_of(served)


def test_a_peer_that_fails_does_not_end_the_run(served: GenerationReport) -> None:
    """A failed peer is in no figure, and both the report and its table say that it failed."""
    (failure,) = served.peer_failures
    assert failure.name == DEAF.name
    assert all(figure.contender != DEAF.name for figure in served.figures)
    shown = shown_of(served)
    assert re.search(r"deaf +│ +failed", shown)
    assert re.search(r"deaf failed at 1 at once: The server at \S+\s+answered with status 501", shown)


def test_a_conversation_reports_what_was_cached(served: GenerationReport) -> None:
    """A prompt is its cached and prefilled tokens, and later turns prefill little more than their own words."""
    assert [turn.number for turn in served.turns] == [1, 2, 3]
    assert all(turn.num_prompt_tokens == turn.num_cached_tokens + turn.num_prefilled_tokens for turn in served.turns)
    first, second, third = served.turns
    assert first.num_cached_tokens == 0
    assert first.num_prompt_tokens <= second.num_cached_tokens < third.num_cached_tokens
    assert third.num_prefilled_tokens < first.num_prompt_tokens + 8


def test_a_model_that_is_not_here_is_told() -> None:
    """A missing model is an error before anything is started."""
    with pytest.raises(ModelLoadError, match="no folder"):
        asyncio.run(bench_serve(GenerationSettings(model="./nowhere"), lambda _: None))
