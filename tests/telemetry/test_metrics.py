"""What happens in the server stands in the exposition, under bounded labels, in both formats."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from periscope.captions.cache import CacheStats
from periscope.core import (
    Operation,
    PhaseSpan,
    RequestPhase,
    RequestTrace,
    Usage,
)
from periscope.events import ImagesDescribed, ModelStateChanged, RequestEnded
from periscope.telemetry.metrics import Metrics
from periscope.telemetry.snapshot import Snapshot
from tests.api.fake_control import SNAPSHOT

DASHBOARD = Path(__file__).resolve().parents[2] / "docs/grafana.json"
GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "periscope",
    "gen_ai_request_model": "org/text",
}
INPUT, OUTPUT = {"gen_ai_token_type": "input"}, {"gen_ai_token_type": "output"}
_NAME = re.compile(r"\b(?:periscope|gen_ai)_[a-z_]+\b(?=[\s{\[)]|$)")


def new_metrics(clock: Iterator[float] = iter(())) -> Metrics:
    names = {"small": "org/text", "org/text": "org/text"}
    return Metrics(lambda: Snapshot(SNAPSHOT, CacheStats(2, 1, 1, 600, 1024)), names.get, clock=lambda: next(clock))


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    _, text = metrics.exposition("")
    families = plain_text(text.decode())
    return {(each.name, tuple(sorted(each.labels.items()))): each.value for one in families for each in one.samples}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, tuple(sorted(labels.items()))))


def trace_of(*phases: tuple[RequestPhase, float], usage: Usage | None, error: str | None = None) -> RequestTrace:
    """A request whose phases took so many seconds, from 100 s on."""
    spans, now = [], 100.0
    for phase, duration_s in phases:
        spans.append(PhaseSpan(phase, now, now + duration_s))
        now += duration_s
    return RequestTrace("org/text", Operation.CHAT, num_images=2, phases=tuple(spans), usage=usage, error=error)


ANSWERED = trace_of(
    (RequestPhase.STARTING, 0.5),
    (RequestPhase.CAPTIONING, 1.0),
    (RequestPhase.QUEUED, 0.25),
    (RequestPhase.LOADING, 2.0),
    (RequestPhase.PREFILL, 0.25),
    (RequestPhase.DECODE, 2.0),
    usage=Usage(num_prompt_tokens=50, num_completion_tokens=5, num_cached_tokens=20),
)


def test_an_answered_request_is_measured() -> None:
    """Duration, first token and time per token under OpenTelemetry's names, and what it waited for under ours."""
    metrics = new_metrics()
    metrics.take(RequestEnded("r", "finished", ANSWERED))
    assert value(metrics, "gen_ai_server_request_duration_seconds_sum", **GEN_AI, error_type="") == 6.0
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_sum", **GEN_AI) == 4.0
    assert value(metrics, "gen_ai_server_time_per_output_token_seconds_sum", **GEN_AI) == 0.5
    assert value(metrics, "gen_ai_client_token_usage_sum", **GEN_AI, **INPUT) == 50
    assert value(metrics, "gen_ai_client_token_usage_sum", **GEN_AI, **OUTPUT) == 5
    assert value(metrics, "periscope_request_queue_seconds_sum", model="org/text") == 2.25
    assert value(metrics, "periscope_request_captioning_seconds_sum", model="org/text") == 1.0
    assert value(metrics, "periscope_prompt_cached_tokens_total", model="org/text") == 20
    assert value(metrics, "periscope_prompt_cache_requests_total", model="org/text", result="hit") == 1
    assert value(metrics, "periscope_request_images_total", model="org/text") == 2


def test_a_failed_request_has_its_error_and_no_times_of_tokens() -> None:
    """The conventions measure tokens of successful answers alone."""
    metrics = new_metrics()
    failed = trace_of((RequestPhase.STARTING, 1.0), (RequestPhase.DECODE, 1.0), usage=None, error="EngineClosed")
    metrics.take(RequestEnded("r", "failed", failed))
    assert value(metrics, "gen_ai_server_request_duration_seconds_count", **GEN_AI, error_type="EngineClosed") == 1
    assert value(metrics, "gen_ai_server_time_to_first_token_seconds_count", **GEN_AI) is None


def test_rounds_and_choices_share_the_time_per_token() -> None:
    """Each round's and each choice's first token is not a gap; choices are written side by side."""
    decode = (RequestPhase.DECODE, 1.0)
    rounds = trace_of(decode, (RequestPhase.PREFILL, 5.0), decode, usage=Usage(1, 6))
    assert rounds.time_per_output_token_s == pytest.approx(2.0 / 4)
    one = trace_of(decode, usage=Usage(1, 1))
    assert one.time_per_output_token_s is None
    choices = RequestTrace("org/text", num_choices=2, phases=rounds.phases[:1], usage=Usage(1, 12))
    assert choices.time_per_output_token_s == pytest.approx(1.0 / 5)


def test_captioners_and_readers_are_told_apart() -> None:
    """Time for each image, failures, and the tokens of captions."""
    metrics = new_metrics()
    metrics.take(ImagesDescribed("eyes", is_reader=False, elapsed_ms=(1500, 500), num_failed=1, num_tokens=40))
    metrics.take(ImagesDescribed("rapidocr", is_reader=True, elapsed_ms=(250,), num_failed=0, num_tokens=0))
    assert value(metrics, "periscope_caption_seconds_sum", captioner="eyes") == 2.0
    assert value(metrics, "periscope_caption_seconds_count", captioner="eyes") == 2
    assert value(metrics, "periscope_caption_failures_total", captioner="eyes") == 1
    assert value(metrics, "periscope_caption_tokens_total", captioner="eyes") == 40
    assert value(metrics, "periscope_reading_seconds_sum", reader="rapidocr") == 0.25
    assert value(metrics, "periscope_caption_seconds_count", captioner="rapidocr") is None


def test_loads_failed_loads_and_deaths_are_told_apart() -> None:
    """A model that fails while it is loaded, and one whose worker or process dies."""
    metrics = new_metrics(iter((10.0, 13.0, 20.0, 21.0)))
    steps = ["unloaded", "loading", "ready", "failed", "loading", "failed", "unloaded"]
    for old, new in pairwise(steps):
        metrics.take(ModelStateChanged("org/text", old, new))
    assert value(metrics, "periscope_model_load_seconds_sum", model="org/text") == 3.0
    assert value(metrics, "periscope_model_load_failures_total", model="org/text") == 1
    assert value(metrics, "periscope_model_worker_deaths_total", model="org/text") == 1


def test_names_that_clients_invent_make_one_series() -> None:
    """An alias counts for its model; whoever asks for a thousand other models does not fill the memory."""
    metrics = new_metrics()
    for model in ("small", "org/text", *(f"no-{at}" for at in range(1000))):
        metrics.answered(route="/v1/chat/completions", status=404, error="model_not_found", model=model)
    told = {
        labels["model"]: count
        for (name, pairs), count in samples(metrics).items()
        if name == "periscope_http_requests_total" and (labels := dict(pairs))
    }
    assert told == {"org/text": 2, "unknown": 1000}


def test_gauges_are_those_of_the_status() -> None:
    """Read when somebody asks."""
    metrics = new_metrics()
    assert value(metrics, "periscope_memory_held_bytes") == 40
    assert value(metrics, "periscope_model_state", model="org/text", kind="text", state="ready") == 1
    assert value(metrics, "periscope_model_state", model="org/text", kind="text", state="failed") == 0
    assert value(metrics, "periscope_requests", model="org/text", status="queued") == 1
    assert value(metrics, "periscope_caption_cache_lookups_total", result="hit") == 2
    assert value(metrics, "periscope_downloads", state="downloading") == 1


def test_the_format_is_the_one_that_is_asked_for() -> None:
    """OpenMetrics by `Accept`, with its end mark and its strict grammar; else Prometheus' text."""
    metrics = new_metrics()
    metrics.take(RequestEnded("r", "finished", ANSWERED))
    content_type, text = metrics.exposition("application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith(b"# EOF\n")
    assert list(open_metrics(text.decode()))  # type: ignore[no-untyped-call]
    content_type, _ = metrics.exposition("*/*")
    assert content_type.startswith("text/plain; version=0.0.4")


def test_the_dashboard_asks_for_what_there_is() -> None:
    """Every metric in a query of docs/grafana.json is one of the exposition; a misspelt one would be an empty panel."""
    metrics = new_metrics()
    _, text = metrics.exposition("")
    families = {family.name: family.type for family in plain_text(text.decode())}
    suffixes = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",)}
    known = {name + suffix for name, kind in families.items() for suffix in suffixes.get(kind, ("",))}
    queries = [target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel["targets"]]
    asked = {name for query in queries for name in _NAME.findall(query)} - {*GEN_AI, "gen_ai_token_type"}
    assert len(asked) > 20
    assert asked - known == set()


def test_embeddings_have_tokens_that_they_read_alone() -> None:
    """Nothing is written, and no prompt cache is asked: neither stands there as 0 or as a miss."""
    metrics = new_metrics()
    metrics.take(RequestEnded("r", "finished", replace(ANSWERED, operation=Operation.EMBEDDINGS, usage=Usage(7))))
    labels = GEN_AI | {"gen_ai_operation_name": "embeddings"}
    assert value(metrics, "gen_ai_client_token_usage_sum", **labels, **INPUT) == 7
    assert value(metrics, "gen_ai_client_token_usage_count", **labels, **OUTPUT) is None
    assert value(metrics, "periscope_prompt_cache_requests_total", model="org/text", result="miss") is None
