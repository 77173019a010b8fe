"""`bench engine` and `bench serve`: make the contenders for one model, measure them, and report. Event loop."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.bench.contenders import Contender, Workload, measure, user_message
from periscope.bench.conversation import Turn, converse
from periscope.bench.environment import Environment, MeasuredModel, environment, measured_model
from periscope.bench.http import client_of
from periscope.bench.http_contender import HTTPContender
from periscope.bench.in_process import EngineContender
from periscope.bench.mlx_thread import MLXThread
from periscope.bench.model_files import model_files, shown_name
from periscope.bench.peers import PeerContender, PeerFailure, able
from periscope.bench.power import metered, powermetrics
from periscope.bench.raw_loop import RawLoop
from periscope.bench.samples import Figure, Sample, figures_of
from periscope.bench.server import models_yaml, serving
from periscope.bench.waiting import TIME_LIMIT_S, waiting_for
from periscope.engine import EngineConfig, InferenceEngine

if TYPE_CHECKING:
    from periscope.bench.peers import Peer
    from periscope.bench.waiting import Tell
    from periscope.remote import OpenAIClient

#: A workload whose requests share a prefix as long as a system prompt: shared words, own words, requests.
_SHARED_WORDS = 360
_OWN_WORDS = 40
_SHARING_ROWS = 4


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """What `bench serve` measures.

    Attributes:
        model: folder or hub id; None = random weights.
        num_rows: batch sizes.
        turns: turns of the conversation, and 0 = none; `bench serve` only.
        shares_prefix: also requests that begin alike; `bench serve` only.
        has_pictures: every turn of the conversation has a picture.
        peers: other servers to measure beside ours, where they are installed.
        gguf: the same model for peers that take GGUF files.
        is_ragged: also batches with prompts and answers of different lengths, and one whose requests arrive one by one.
        mean_gap_s: mean time between two of those arrivals.
        max_s: no round begins that would end later than so many seconds after the first; the first round always does.
        limit_s: how long a start, or a batch of one contender, may take.
        has_edits: also edits of a file for every batch size, and an engine that looks up what prompts repeat.
    """

    model: str | None = None
    rounds: int = 5
    max_tokens: int = 64
    prompt_words: int = 200
    num_rows: tuple[int, ...] = (1, 4, 16)
    turns: int = 6
    shares_prefix: bool = True
    has_pictures: bool = False
    peers: tuple[Peer, ...] = ()
    gguf: Path | None = None
    is_ragged: bool = False
    mean_gap_s: float = 0.05
    max_s: float | None = None
    limit_s: float = TIME_LIMIT_S
    has_edits: bool = False


@dataclass(frozen=True, slots=True)
class GenerationReport:
    """The results of `bench engine` or `bench serve`.

    Attributes:
        peer_failures: peers that did not take part to the end.
        peers_left_out: peers that did not take part at all.
        notes: sentences on what could not be measured here.
    """

    settings: GenerationSettings
    environment: Environment
    model: MeasuredModel
    figures: tuple[Figure, ...]
    samples: tuple[Sample, ...]
    turns: tuple[Turn, ...]
    peer_failures: tuple[PeerFailure, ...] = ()
    peers_left_out: tuple[PeerFailure, ...] = ()
    notes: tuple[str, ...] = ()


async def bench_engine(settings: GenerationSettings, tell: Tell) -> GenerationReport:
    """Measure the raw loop and the engine, in this process.

    Raises:
        PeriscopeError: the model cannot be used.
    """
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(model_files(settings.model))
        contenders = await stack.enter_async_context(_in_process(path, settings, tell))
        samples, notes = await _measure(contenders, _workloads(settings), settings, tell)
        model = measured_model(path, shown_name(settings.model))
    return _report(settings, model, samples, notes=notes)


async def bench_serve(settings: GenerationSettings, tell: Tell) -> GenerationReport:
    """Measure the raw loop, the engine, a server of its own and the peers, then conversations with the server.

    Raises:
        PeriscopeError: the model cannot be used, or the server did not start.
    """
    workloads = _workloads(settings)
    if settings.shares_prefix:
        workloads.append(Workload("4, shared prefix", _SHARING_ROWS, _OWN_WORDS, _SHARED_WORDS))
    able_peers, left_out = able(settings.peers, settings.gguf)
    for peer in left_out:
        tell(f"{peer.name} {peer.reason}")
    async with AsyncExitStack() as stack:
        path = await stack.enter_async_context(model_files(settings.model))
        models = models_yaml(path, _engine_config(settings), has_captioner=settings.has_pictures)
        server = await stack.enter_async_context(serving(models, tell, limit_s=settings.limit_s))
        client = await stack.enter_async_context(client_of(server.url))
        contenders = await stack.enter_async_context(_in_process(path, settings, tell))
        http = HTTPContender(server.url, server.cpu_s, host_clock=server.host_clock, limit_s=settings.limit_s)
        peers = [await stack.enter_async_context(_peer(peer, path, workloads, settings, tell)) for peer in able_peers]
        samples, notes = await _measure([*contenders, http, *peers], workloads, settings, tell)
        turns = await _converse(client, settings, tell)
        model = measured_model(path, shown_name(settings.model))
    failures = [PeerFailure(peer.name, peer.failure) for peer in peers if peer.failure is not None]
    return _report(settings, model, samples, turns=turns, failures=failures, left_out=left_out, notes=notes)


def _peer(
    peer: Peer, path: Path, workloads: Sequence[Workload], settings: GenerationSettings, tell: Tell
) -> PeerContender:
    model = settings.gguf.resolve() if peer.takes_gguf and settings.gguf is not None else path
    rows = max(workload.num_rows for workload in workloads)
    return PeerContender(peer, model, rows=rows, tell=tell, limit_s=settings.limit_s)


def _report(
    settings: GenerationSettings,
    model: MeasuredModel,
    samples: list[Sample],
    *,
    turns: Sequence[Turn] = (),
    failures: Sequence[PeerFailure] = (),
    left_out: Sequence[PeerFailure] = (),
    notes: Sequence[str] = (),
) -> GenerationReport:
    return GenerationReport(
        settings=settings,
        environment=environment(),
        model=model,
        figures=tuple(figures_of(samples)),
        samples=tuple(samples),
        turns=tuple(turns),
        peer_failures=tuple(failures),
        peers_left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _engine_config(settings: GenerationSettings) -> EngineConfig:
    return EngineConfig(max_num_seqs=max(EngineConfig().max_num_seqs, *settings.num_rows))


def _workloads(settings: GenerationSettings) -> list[Workload]:
    """Requests that are alike, and ragged ones for every batch size above 1; the largest also arrive one by one."""
    num_words = settings.prompt_words
    alike = [Workload(str(rows), rows, num_words) for rows in settings.num_rows]
    if settings.has_edits:
        alike += [Workload(f"{rows}, edit", rows, num_words, is_edit=True) for rows in settings.num_rows]
    several = [rows for rows in settings.num_rows if rows > 1]
    if not settings.is_ragged or not several:
        return alike
    ragged = [Workload(f"{rows}, ragged", rows, num_words, is_ragged=True) for rows in several]
    arriving = Workload(
        f"{several[-1]}, arriving", several[-1], num_words, is_ragged=True, mean_gap_s=settings.mean_gap_s
    )
    return [*alike, *ragged, arriving]


@asynccontextmanager
async def _in_process(path: Path, settings: GenerationSettings, tell: Tell) -> AsyncIterator[list[Contender]]:
    config, limit_s = _engine_config(settings), settings.limit_s
    async with AsyncExitStack() as stack:
        thread = await stack.enter_async_context(MLXThread())
        async with waiting_for("the engine to load the model", tell, limit_s):
            engine = await stack.enter_async_context(await InferenceEngine.load(str(path), config))

        async def tokenise(text: str) -> Sequence[int]:
            return (await engine.render([user_message(text)])).token_ids

        async with waiting_for("the raw loop to load the model", tell, limit_s):
            raw = await RawLoop.load(thread, path, config, tokenise, limit_s=limit_s)
        contenders: list[Contender] = [raw, EngineContender(engine, limit_s=limit_s)]
        if settings.has_edits:
            async with waiting_for("the engine with look-up to load the model", tell, limit_s):
                looking = await InferenceEngine.load(str(path), replace(config, prompt_lookup=True))
            contenders.append(
                EngineContender(await stack.enter_async_context(looking), "engine, look-up", limit_s=limit_s)
            )
        yield contenders


async def _measure(
    contenders: Sequence[Contender], workloads: Sequence[Workload], settings: GenerationSettings, tell: Tell
) -> tuple[list[Sample], list[str]]:
    """The samples, and sentences on what could not be measured."""
    async with metered(powermetrics()) as meter:
        samples = await measure(
            contenders,
            workloads,
            rounds=settings.rounds,
            max_tokens=settings.max_tokens,
            tell=tell,
            max_s=math.inf if settings.max_s is None else settings.max_s,
            joules=lambda: meter.joules,
        )
    return samples, [] if meter.missing is None else [meter.missing]


async def _converse(client: OpenAIClient, settings: GenerationSettings, tell: Tell) -> list[Turn]:
    """Hold the conversations. Round 0 is one turn, which warms the captioner up, and is left out."""
    turns: list[Turn] = []
    for number in range(settings.rounds + 1 if settings.turns else 0):
        tell(f"conversation {number} of {settings.rounds}" if number else "conversation: warming up")
        async with waiting_for(f"the turns of conversation {number}", tell, settings.limit_s):
            measured = await converse(
                client,
                number=number,
                turns=settings.turns if number else 1,
                num_words=settings.prompt_words,
                max_tokens=settings.max_tokens,
                has_pictures=settings.has_pictures,
            )
        turns += measured if number else []
    return turns
