"""Metrics: counters and histograms, filled by events, and their exposition in Prometheus' and OpenMetrics' formats.

Event loop only. Names follow OpenTelemetry's GenAI semantic conventions where they have one, in Prometheus' spelling
(`gen_ai.server.request.duration` in seconds is `gen_ai_server_request_duration_seconds`); the others begin with
`periscope_`. Labels hold configured names, routes and classes of errors, never text of a client.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder

from periscope.core import ModelState, RequestPhase
from periscope.events import ImagesDescribed, ModelStateChanged, RequestEnded
from periscope.telemetry.snapshot import Snapshot, StatusCollector

if TYPE_CHECKING:
    from periscope.core import RequestTrace
    from periscope.events import Event

#: The conventions' boundaries, with longer ones: a local model may work for minutes.
_DURATION_S = (
    *(0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92),
    *(163.84, 327.68, 655.36),
)
#: As above; a long prompt, or a load, takes longer than the conventions' ten seconds.
_FIRST_TOKEN_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0),
)
#: As above; small models write a token in less than the conventions' ten milliseconds.
_PER_TOKEN_S = (*(0.001, 0.0025, 0.005), *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5))
_TOKENS = tuple(4**power for power in range(14))
_WAIT_S = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_IMAGE_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_PROVIDER = "periscope"
SeriesT = TypeVar("SeriesT", Counter, Histogram)

#: The model of a request that named none of this server's.
UNKNOWN_MODEL = "unknown"


class Metrics:
    """Owns the registry, all that is counted, and the times at which loads began.

    Args:
        read: the state of the server now, for the gauges; called for each exposition.
        name_of: the configured name of the model that a client names, or None.
        clock: seconds.
    """

    def __init__(
        self,
        read: Callable[[], Snapshot],
        name_of: Callable[[str], str | None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name_of = name_of
        self._clock = clock
        self._load_began_at: dict[str, float] = {}
        self._series: dict[tuple[object, ...], Any] = {}
        registry = self._registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector(read))

        def counter(name: str, told: str, *labels: str) -> Counter:
            return Counter(f"periscope_{name}", told, labels, registry=registry)

        def histogram(name: str, told: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(name, told, labels, registry=registry, buckets=buckets)

        gen_ai = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self._http = counter("http_requests", "Answered HTTP requests.", "route", "status", "error", "model")
        self._duration = histogram(
            *("gen_ai_server_request_duration_seconds", "From arrival to the last token.", _DURATION_S),
            *(*gen_ai, "error_type"),
        )
        self._first_token = histogram(
            *("gen_ai_server_time_to_first_token_seconds", "From arrival to the first token.", _FIRST_TOKEN_S), *gen_ai
        )
        self._per_token = histogram(
            *("gen_ai_server_time_per_output_token_seconds", "Between two tokens after the first one.", _PER_TOKEN_S),
            *gen_ai,
        )
        self._tokens = histogram(
            *("gen_ai_client_token_usage", "Tokens of a request.", _TOKENS), *gen_ai, "gen_ai_token_type"
        )
        self._queue = histogram(
            *("periscope_request_queue_seconds", "Waiting for a place at the text model, loads included.", _WAIT_S),
            "model",
        )
        self._captioning = histogram(
            *("periscope_request_captioning_seconds", "Waiting for captions that had to be made.", _WAIT_S), "model"
        )
        self._images = counter("request_images", "Images in the requests.", "model")
        self._cached = counter("prompt_cached_tokens", "Prompt tokens that came from the prompt cache.", "model")
        self._lookups = counter("prompt_cache_requests", "Prompts, by whether the cache had a part.", "model", "result")
        self._caption = histogram(
            *("periscope_caption_seconds", "Work of a captioner on one new image.", _IMAGE_S), "captioner"
        )
        self._caption_tokens = counter("caption_tokens", "Tokens generated for captions.", "captioner")
        self._caption_failures = counter("caption_failures", "Images that were not described.", "captioner")
        self._reading = histogram(
            *("periscope_reading_seconds", "Reading the text in one new image.", _IMAGE_S), "reader"
        )
        self._reading_failures = counter("reading_failures", "Images that were not read.", "reader")
        self._load = histogram("periscope_model_load_seconds", "Loads of models.", _DURATION_S, "model")
        self._load_failures = counter("model_load_failures", "Loads that failed.", "model")
        self._deaths = counter("model_worker_deaths", "Workers, and processes of isolated models, that died.", "model")

    def take(self, event: Event) -> None:
        """Count an event; the one listener to the server's events. Takes microseconds, and never raises."""
        match event:
            case RequestEnded(trace=trace):
                self._take_request(trace)
            case ImagesDescribed():
                self._take_images(event)
            case ModelStateChanged():
                self._take_state(event)

    def answered(self, *, route: str, status: int, error: str | None, model: str | None) -> None:
        """Count an answer of the HTTP server.

        Args:
            route: the template of its path; "" if no route was found, or the request was refused before.
            error: the code of the error that the client got.
            model: as the client wrote it; None if the request is not about one.
        """
        name = "" if model is None else self._name_of(model) or UNKNOWN_MODEL
        self._of(self._http, route, str(status), error or "", name).inc()

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text, in the format that the header `Accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self._registry)

    def _take_request(self, trace: RequestTrace) -> None:
        gen_ai = (trace.operation, _PROVIDER, trace.model)
        self._of(self._duration, *gen_ai, trace.error or "").observe(trace.duration_s)
        self._of(self._images, trace.model).inc(trace.num_images)
        self._of(self._queue, trace.model).observe(trace.queue_s)
        captioning = [span.duration_s for span in trace.phases if span.phase is RequestPhase.CAPTIONING]
        if captioning:
            self._of(self._captioning, trace.model).observe(sum(captioning))
        if trace.usage is None:
            return
        if (first_s := trace.time_to_first_token_s) is not None:
            self._of(self._first_token, *gen_ai).observe(first_s)
        if (per_token_s := trace.time_per_output_token_s) is not None:
            self._of(self._per_token, *gen_ai).observe(per_token_s)
        usage = trace.usage
        self._of(self._tokens, *gen_ai, "input").observe(usage.num_prompt_tokens)
        if not trace.operation.generates:
            return
        self._of(self._tokens, *gen_ai, "output").observe(usage.num_completion_tokens)
        self._of(self._cached, trace.model).inc(usage.num_cached_tokens)
        self._of(self._lookups, trace.model, "hit" if usage.num_cached_tokens else "miss").inc()

    def _of(self, metric: SeriesT, *labels: str) -> SeriesT:
        """The metric's series with these labels, kept: the library checks and joins them again each time."""
        key = (metric, *labels)
        found: SeriesT | None = self._series.get(key)
        if found is None:
            found = self._series[key] = metric.labels(*labels)
        return found

    def _take_images(self, event: ImagesDescribed) -> None:
        seconds, failures = (
            (self._reading, self._reading_failures) if event.is_reader else (self._caption, self._caption_failures)
        )
        for elapsed_ms in event.elapsed_ms:
            seconds.labels(event.name).observe(elapsed_ms / 1000)
        failures.labels(event.name).inc(event.num_failed)
        if not event.is_reader:
            self._caption_tokens.labels(event.name).inc(event.num_tokens)

    def _take_state(self, event: ModelStateChanged) -> None:
        match ModelState(event.old), ModelState(event.new):
            case _, ModelState.LOADING:
                self._load_began_at[event.model] = self._clock()
            case ModelState.LOADING, ModelState.READY:
                now = self._clock()
                self._load.labels(event.model).observe(now - self._load_began_at.pop(event.model, now))
            case ((ModelState.LOADING | ModelState.UNLOADED), ModelState.FAILED):
                self._load_failures.labels(event.model).inc()
            case ((ModelState.READY | ModelState.DRAINING), ModelState.FAILED):
                self._deaths.labels(event.model).inc()
