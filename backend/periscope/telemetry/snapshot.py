"""StatusCollector: the gauges, which are read from the server's status when somebody asks. It keeps nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from periscope.captions.cache import CacheStats
from periscope.core import ModelState
from periscope.status import ModelStatus, ServerStatus

#: The values of a family's labels, in their order.
LabelsT = TypeVar("LabelsT", bound=tuple[str, ...])


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of the server at one moment."""

    status: ServerStatus
    captions: CacheStats


class StatusCollector(Collector):
    """Owns nothing; `read` gives the state on the event loop, on which expositions are made, too."""

    def __init__(self, read: Callable[[], Snapshot]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        """All families of one scrape, of one and the same moment."""
        now = self._read()
        yield from _server(now.status)
        yield from _models(now.status.models)
        yield from _work(now.status)
        yield from _captions(now.captions)


def _gauge(name: str, told: str, value: float | None) -> Iterator[Metric]:
    if value is not None:
        yield GaugeMetricFamily(f"periscope_{name}", told, value=value)


def _by(name: str, told: str, labels: tuple[str, ...], values: Mapping[LabelsT, float]) -> Metric:
    family = GaugeMetricFamily(f"periscope_{name}", told, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _server(status: ServerStatus) -> Iterator[Metric]:
    yield InfoMetricFamily("periscope_server", "The server.", value={"version": status.identity.version})
    memory, host = status.memory, status.host
    yield from _gauge("uptime_seconds", "Since the start.", status.uptime_s)
    yield from _gauge("problems", "Sentences under `problems` in the status.", len(status.problems))
    yield _by("server_state", "1 for the state that the server is in.", ("state",), {(status.state,): 1})
    yield from _gauge("memory_budget_bytes", "What all models may take together.", memory.budget_bytes)
    yield from _gauge("memory_held_bytes", "What the memory ledger counts for all models.", memory.held_bytes)
    yield from _gauge("memory_active_bytes", "Taken by MLX in this process.", memory.active_bytes)
    yield from _gauge("memory_cache_bytes", "Kept ready by MLX.", memory.cache_bytes)
    yield from _gauge("memory_peak_bytes", "The most that MLX had taken.", memory.peak_bytes)
    yield from _gauge("process_footprint_bytes", "What the system counts against this process.", host.footprint_bytes)
    for name, told, state in (
        ("host_memory_pressure", "1 for the level of memory pressure of the machine.", host.pressure),
        ("host_thermal_state", "1 for the thermal state of the machine.", host.thermal),
    ):
        if state is not None:
            yield _by(name, told, ("state",), {(state,): 1})


def _models(models: Iterable[ModelStatus]) -> Iterator[Metric]:
    models = tuple(models)
    states = {
        (model.name, model.kind.value, state.value): int(model.state is state)
        for model in models
        for state in ModelState
    }
    yield _by("model_state", "1 for the state that the model is in.", ("model", "kind", "state"), states)

    def gauge(name: str, told: str, value: Callable[[ModelStatus], float | None]) -> Metric:
        values = {(model.name,): number for model in models if (number := value(model)) is not None}
        return _by(name, told, ("model",), values)

    yield gauge("model_held_bytes", "What the memory ledger counts for the model.", lambda model: model.held_bytes)
    yield gauge("model_weights_bytes", "Of the loaded weights.", lambda model: model.weights_bytes)
    yield gauge("model_prompt_cache_bytes", "Of kept KV caches.", lambda model: model.prompt_cache_bytes)
    yield gauge("model_prompt_disk_bytes", "Of KV caches on disk, while loaded.", lambda model: model.prompt_disk_bytes)
    yield gauge("model_running_requests", "Requests that hold the model.", lambda model: model.num_running)
    yield gauge("model_waiting_requests", "Requests that wait for the model.", lambda model: model.num_waiting)
    yield gauge("model_max_running_requests", "Requests that may hold it at once.", lambda model: model.max_running)
    preemptions = CounterMetricFamily(
        "periscope_model_preemptions", "Rows that gave up their memory and were computed again.", labels=("model",)
    )
    written = CounterMetricFamily(
        "periscope_model_prompt_disk_written_bytes", "Of KV caches written to disk since the load.", labels=("model",)
    )
    for model in models:
        preemptions.add_metric((model.name,), model.num_preemptions)
        written.add_metric((model.name,), model.prompt_disk_written_bytes)
    yield preemptions
    yield written
    drafted = CounterMetricFamily(
        "periscope_model_drafted_tokens",
        "Tokens that were drafted and verified, by whether the answer has them.",
        labels=("model", "outcome"),
    )
    for model in models:
        drafted.add_metric((model.name, "accepted"), model.num_accepted_tokens)
        drafted.add_metric((model.name, "rejected"), model.num_rejected_tokens)
    yield drafted


def _work(status: ServerStatus) -> Iterator[Metric]:
    requests = Counter((request.model, request.status) for request in status.requests)
    yield _by("requests", "Requests that wait or run, by what they do.", ("model", "status"), requests)
    yield from _gauge("output_tokens_per_second", "Of all answers, over the last seconds.", status.tokens_per_s)
    downloads = Counter((download.state,) for download in status.downloads)
    yield _by("downloads", "Downloads of models that are listed.", ("state",), downloads)
    speed = sum(download.bytes_per_s or 0.0 for download in status.downloads if download.state == "downloading")
    yield from _gauge("download_bytes_per_second", "Of the download under way.", speed)


def _captions(stats: CacheStats) -> Iterator[Metric]:
    lookups = CounterMetricFamily(
        "periscope_caption_cache_lookups", "Captions and texts of images that were asked for.", labels=("result",)
    )
    lookups.add_metric(("hit",), stats.num_hits)
    lookups.add_metric(("miss",), stats.num_misses)
    yield lookups
    yield from _gauge("caption_cache_entries", "Captions and texts that are kept.", stats.num_entries)
    yield from _gauge("caption_cache_bytes", "What they take.", stats.num_bytes)
