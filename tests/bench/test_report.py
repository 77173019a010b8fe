"""Tables, made from recorded samples."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console

from periscope.bench.environment import Environment, MeasuredModel, gpu_line
from periscope.bench.generation import GenerationReport, GenerationSettings
from periscope.bench.peers import PeerFailure
from periscope.bench.quick import QUICK_MODELS, QuickReport, bench_quick
from periscope.bench.report import print_generation, print_quick
from periscope.bench.samples import Sample, figures_of

RAW = Sample(
    workload="4",
    contender="raw",
    round=1,
    num_rows=4,
    num_tokens=400,
    decode_tokens_per_s=1000.0,
    tokens_per_s=800.0,
    ttft_s=0.05,
    cpu_ms_per_token=1.5,
    host_us_per_step=2000.0,
    worker_us_per_step=2000.0,
    peak_bytes=3 * 2**20,
)
HTTP = dataclasses.replace(
    RAW,
    contender="http",
    decode_tokens_per_s=900.0,
    tokens_per_s=840.0,
    ttft_s=0.075,
    cpu_ms_per_token=1.8,
    host_us_per_step=2750.0,
    worker_us_per_step=2125.0,
    peak_bytes=None,
)
#: A peer that is no Python program.
LLAMA = dataclasses.replace(HTTP, contender="llama-server", host_us_per_step=None, worker_us_per_step=None)
ENVIRONMENT = Environment("1", "3.11", "0.32", "0.32", "0.7", "Device(cpu, 0)", 2, None, False, None)


def report(*samples: Sample, model: str = "tiny") -> GenerationReport:
    return GenerationReport(
        settings=GenerationSettings(model=model),
        environment=ENVIRONMENT,
        model=MeasuredModel(model, {"hidden_size": 128}, "F32", None),
        figures=tuple(figures_of(samples)),
        samples=samples,
        turns=(),
        peer_failures=(PeerFailure("mlx_lm.server", "did not start: why"),),
        peers_left_out=(PeerFailure("vllm-mlx", "is left out: there is no command vllm-mlx on the PATH."),),
        notes=("Energy is not measured: powermetrics needs root (sudo).",),
    )


def shown(write: Callable[[Console], None]) -> list[str]:
    """Lines, with one space for any number of them and without the frame."""
    console = Console(record=True, file=io.StringIO(), width=180)
    write(console)
    return [re.sub(r"[ │┃]+", " ", line).strip() for line in console.export_text().splitlines()]


def test_the_table_has_the_host_time_above_the_raw_loop() -> None:
    """With the worker's part of it; a contender whose threads are not known has none."""
    lines = shown(lambda console: print_generation(report(RAW, HTTP, LLAMA), console))
    raw, http, ratios, llama = lines[lines.index(next(line for line in lines if line.startswith("4 raw"))) :][:4]
    assert raw.endswith("1.50 (1.50-1.50) 2000 (2000-2000)")
    assert http.startswith("http 900.0 (900.0-900.0) 840.0 (840.0-840.0) 75 (75-75)")
    assert http.endswith("2750 (2750-2750)")
    assert ratios.startswith("x 0.90 (0.90-0.90) x 1.05 (1.05-1.05) x 1.50 (1.50-1.50) x 1.20")
    assert ratios.endswith("+750, worker +125")
    assert llama.endswith("1.80 (1.80-1.80) -")


def test_energy_has_a_column_where_it_was_measured() -> None:
    """Joules per token; no column elsewhere."""
    metered = [dataclasses.replace(sample, joules_per_token=0.25) for sample in (RAW, HTTP)]
    assert any("J/tok" in line for line in shown(lambda console: print_generation(report(*metered), console)))
    assert not any("J/tok" in line for line in shown(lambda console: print_generation(report(RAW), console)))


def test_what_is_not_in_the_table_is_told_beneath_it() -> None:
    """Peers that failed or are not installed, what could not be measured, and MLX's memory."""
    lines = shown(lambda console: print_generation(report(RAW, HTTP), console))
    assert "mlx_lm.server did not start: why" in lines
    assert "vllm-mlx is left out: there is no command vllm-mlx on the PATH." in lines
    assert "Energy is not measured: powermetrics needs root (sudo)." in lines
    assert "memory that MLX took for the last of them above its models, MiB: raw 3.0" in lines


def test_a_quick_picture_is_one_table() -> None:
    """One line for each model, batch and contender: medians, and how they compare with the raw loop."""
    reports = QuickReport((report(RAW, HTTP), report(RAW, LLAMA, model="demo")))
    lines = shown(lambda console: print_quick(reports, console))
    assert sum("at once" in line for line in lines) == 1
    assert "tiny 4 raw 1000.0 800.0 50 1.50 2000" in lines
    assert "http 900.0 x 0.90 840.0 x 1.05 75 x 1.50 1.80 x 1.20 2750 +750" in lines
    assert "demo 4 raw 1000.0 800.0 50 1.50 2000" in lines
    assert "llama-server 900.0 x 0.90 840.0 x 1.05 75 x 1.50 1.80 x 1.20 -" in lines


@pytest.mark.parametrize(("model", "models"), [(None, QUICK_MODELS), ("demo", ("demo",))])
def test_a_quick_run_shares_its_time_among_the_models(model: str | None, models: tuple[str, ...]) -> None:
    """Each model gets its part of what is left; the model that is asked for gets all."""
    asked: list[GenerationSettings] = []

    async def bench(settings: GenerationSettings, _tell: object) -> GenerationReport:
        asked.append(settings)
        return report(RAW, model=str(settings.model))

    quick = asyncio.run(bench_quick(bench, GenerationSettings(model=model), lambda _: None, all_s=3600))
    assert tuple(one.model.name for one in quick.reports) == models
    assert [settings.model for settings in asked] == list(models)
    assert all(0 < (settings.max_s or 0) < 3600 for settings in asked)
    assert (asked[0].max_s or 0) < 3600 / len(models)


def test_a_gpu_is_told_with_its_memory() -> None:
    """As Metal tells it, and as a backend does that knows less."""
    metal: dict[str, str | int] = {
        "device_name": "Apple M4 Max",
        "architecture": "applegpu_g16s",
        "memory_size": 64 * 2**30,
        "max_recommended_working_set_size": 48 * 2**30,
    }
    assert gpu_line(metal) == "Apple M4 Max (applegpu_g16s), 64 GiB of memory, 48 GiB for MLX"
    assert gpu_line({}) == "GPU"
    on_a_mac = dataclasses.replace(ENVIRONMENT, gpu=gpu_line(metal))
    assert on_a_mac.lines()[-1] == gpu_line(metal)
    assert len(ENVIRONMENT.lines()) == 2
