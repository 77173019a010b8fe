"""`periscope bench`: how fast it is on this machine, beside the plain mlx-lm loop on the same model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar

import typer

from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import SCHEMA_VERSION, AskedModel, ConfigFile, load_config, print_json

if TYPE_CHECKING:
    from rich.console import Console

    from periscope.bench.generation import GenerationSettings
    from periscope.bench.quick import Bench

app = typer.Typer(help="Measure the engine, the server or the captioner on this machine.", no_args_is_help=True)

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="PATH_OR_ID",
        help="Model to measure: a directory or a hub id on this disk, `demo` (the embedded text model, whose answers "
        "end by themselves), or random weights: `tiny` or `random`, as if left out.",
        show_default=False,
    ),
]
Rounds: TypeAlias = Annotated[int, typer.Option(min=1, help="Rounds after the one that warms up.")]
MostRounds: TypeAlias = Annotated[
    int, typer.Option(min=1, help="Rounds after the one that warms up; with --quick the most of them.")
]
MaxTokens: TypeAlias = Annotated[
    int | None, typer.Option(min=2, help="Tokens per answer.", show_default="64; 48 with --quick")
]
PromptWords: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, help="Words per prompt; about as many tokens.", show_default="200; 60 with --quick"),
]
AtOnce: TypeAlias = Annotated[str, typer.Option(metavar="N,N,...", help="Requests at once.")]
RunningServer: TypeAlias = Annotated[
    str | None, typer.Option(help="Running server to measure; one of its own with the embedded pair if left out.")
]
Ragged: TypeAlias = Annotated[
    bool,
    typer.Option("--ragged", help="Also prompts and answers of different lengths, and requests that arrive in turn."),
]
GapMs: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--gap-ms",
        min=0.1,
        help="Mean time between two arrivals of --ragged, in milliseconds.",
        show_default="50; 20 with --quick",
    ),
]
Quick: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--quick",
        help="A whole picture in about two minutes: the models tiny and demo (or --model), short prompts and answers, "
        "--ragged, as many rounds as fit, one table.",
    ),
]
TimeLimit: TypeAlias = Annotated[
    float, typer.Option("--time-limit", min=1, help="Seconds that a start, or one batch, may take.")
]
JsonFile: TypeAlias = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", help="Write everything as JSON; `-` is stdout.", show_default=False),
]

#: More rows than any batch has are a slip of the finger.
_MAX_AT_ONCE = 512
_STDOUT = Path("-")

ReportT = TypeVar("ReportT")


@app.command()
@exits()
def engine(
    *,
    model: Model = None,
    rounds: MostRounds = 5,
    max_tokens: MaxTokens = None,
    prompt_words: PromptWords = None,
    at_once: AtOnce = "1,4,16",
    ragged: Ragged = False,
    gap_ms: GapMs = None,
    quick: Quick = False,
    time_limit: TimeLimit = 600,
    edit: Annotated[
        bool,
        typer.Option("--edit", help="Also edits of a file, which answers repeat, and an engine with prompt look-up."),
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Measure the engine in process, beside the plain mlx-lm loop."""
    num_rows = rows_of(at_once)
    from periscope.bench.generation import bench_engine

    settings = _settings(
        quick=quick,
        model=model,
        rounds=rounds,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        num_rows=num_rows,
        is_ragged=ragged or None,
        mean_gap_s=None if gap_ms is None else gap_ms / 1000,
        limit_s=time_limit,
        has_edits=edit,
    )
    _generate(bench_engine, settings, quick=quick, json_file=json_file)


@app.command()
@exits()
def serve(
    *,
    model: Model = None,
    rounds: MostRounds = 5,
    max_tokens: MaxTokens = None,
    prompt_words: PromptWords = None,
    at_once: AtOnce = "1,4,16",
    ragged: Ragged = False,
    gap_ms: GapMs = None,
    quick: Quick = False,
    turns: Annotated[
        int | None,
        typer.Option(min=1, max=8, help="Turns of the growing conversation.", show_default="6; none with --quick"),
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="A picture in each turn, for the embedded captioner.")
    ] = False,
    peers: Annotated[
        bool,
        typer.Option(
            "--peers",
            help="Other people's servers, too: mlx_lm.server and mlx_vlm.server, and vllm-mlx, rapid-mlx and "
            "llama-server where they are installed.",
        ),
    ] = False,
    bare: Annotated[
        bool,
        typer.Option(
            "--bare",
            help="Also the plain loop behind the least HTTP, without all that a server is for: what HTTP itself costs "
            "here.",
        ),
    ] = False,
    gguf: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, metavar="FILE", help="The same model for llama-server, which takes GGUF files."
        ),
    ] = None,
    time_limit: TimeLimit = 600,
    json_file: JsonFile = None,
) -> None:
    """Measure a server over HTTP, the engine in process and the plain mlx-lm loop."""
    num_rows = rows_of(at_once)
    if pictures and quick and turns is None:
        raise CommandFailed("--quick holds no conversation for --pictures: add --turns, too.", ExitCode.USAGE)
    if gguf is not None and not peers:
        raise CommandFailed("--gguf is for a peer: add --peers.", ExitCode.USAGE)
    from periscope.bench.generation import bench_serve
    from periscope.bench.peers import BARE, PEERS

    settings = _settings(
        quick=quick,
        model=model,
        rounds=rounds,
        max_tokens=max_tokens,
        prompt_words=prompt_words,
        num_rows=num_rows,
        is_ragged=ragged or None,
        mean_gap_s=None if gap_ms is None else gap_ms / 1000,
        turns=turns,
        has_pictures=pictures,
        peers=(*((BARE,) if bare else ()), *(PEERS if peers else ())),
        gguf=gguf,
        limit_s=time_limit,
    )
    _generate(bench_serve, settings, quick=quick, json_file=json_file)


def _settings(*, quick: bool, **given: Any) -> GenerationSettings:
    """The settings that are given; what is None is as usual, or as --quick has it."""
    from periscope.bench.generation import GenerationSettings
    from periscope.bench.quick import QUICK

    return replace(
        QUICK if quick else GenerationSettings(), **{name: value for name, value in given.items() if value is not None}
    )


def _generate(bench: Bench, settings: GenerationSettings, *, quick: bool, json_file: Path | None) -> None:
    from periscope.bench.quick import bench_quick
    from periscope.bench.report import print_generation, print_quick

    if quick:
        _show(asyncio.run(bench_quick(bench, settings, complain)), print_quick, json_file)
    else:
        _show(asyncio.run(bench(settings, complain)), print_generation, json_file)


@app.command()
@exits()
def neighbours(
    *,
    model: Model = None,
    rounds: Rounds = 3,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Words of the long prompt; about as many tokens.")] = 6000,
    json_file: JsonFile = None,
) -> None:
    """Measure what a long prompt does to a running stream, and to a short prompt behind it."""
    from periscope.bench.neighbours import NeighbourSettings, bench_neighbours
    from periscope.bench.report import print_neighbours

    settings = NeighbourSettings(model=model, rounds=rounds, prompt_tokens=prompt_tokens)
    _show(asyncio.run(bench_neighbours(settings, complain)), print_neighbours, json_file)


@app.command()
@exits()
def start(*, rounds: Rounds = 5, json_file: JsonFile = None) -> None:
    """Measure starts of a server with the embedded pair, and its memory when it is idle."""
    from periscope.bench.report import print_starts
    from periscope.bench.start import StartSettings, bench_start

    _show(asyncio.run(bench_start(StartSettings(rounds=rounds), complain)), print_starts, json_file)


@app.command()
@exits()
def caption(
    *,
    url: RunningServer = None,
    model: AskedModel = None,
    config: ConfigFile = None,
    rounds: Rounds = 5,
    json_file: JsonFile = None,
) -> None:
    """Measure captions: alone and four at once, of new pictures and of the same ones again."""
    from periscope.bench.captions import CaptionSettings, bench_caption
    from periscope.bench.report import print_captions

    url, api_key = _running_server(url, model, config)
    settings = CaptionSettings(url=url, model=model, rounds=rounds)
    report = asyncio.run(bench_caption(settings, complain, api_key=api_key))
    _show(report, print_captions, json_file)


@app.command()
@exits()
def reader(
    *,
    pictures: Annotated[int, typer.Option(min=1, help="Screenshots to read, of seven kinds in turn.")] = 40,
    seed: Annotated[int, typer.Option(help="Decides what stands in the screenshots.")] = 1,
    url: RunningServer = None,
    model: AskedModel = None,
    config: ConfigFile = None,
    json_file: JsonFile = None,
) -> None:
    """Measure how much of the text in screenshots is read right, and how long it takes."""
    from periscope.bench.reader import ReaderSettings, bench_reader
    from periscope.bench.report import print_reader

    url, api_key = _running_server(url, model, config)
    settings = ReaderSettings(num_pictures=pictures, url=url, model=model, seed=seed)
    report = asyncio.run(bench_reader(settings, complain, api_key=api_key))
    _show(report, print_reader, json_file)


@app.command()
@exits()
def fuzz(
    *,
    files: Annotated[int, typer.Option(min=1, help="Broken files to send, of all formats together.")] = 10_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 1,
    url: RunningServer = None,
    model: AskedModel = None,
    config: ConfigFile = None,
    json_file: JsonFile = None,
) -> None:
    """Send broken pictures and documents: each has to be answered or refused, and memory has to stay flat."""
    from periscope.bench.fuzz import FuzzSettings, bench_fuzz
    from periscope.bench.report import print_fuzz

    url, api_key = _running_server(url, model, config)
    settings = FuzzSettings(num_files=files, seed=seed, url=url, model=model)
    report = asyncio.run(bench_fuzz(settings, complain, api_key=api_key))
    _show(report, print_fuzz, json_file)
    if report.num_failed:
        raise CommandFailed(f"{report.num_failed} files were answered with a 5xx or not at all.")


def _running_server(url: str | None, model: str | None, config: Path | None) -> tuple[str | None, str | None]:
    """Address and API key of the server to measure; None: one of the benchmark's own.

    Raises:
        CommandFailed: a model is named, but no server that has it.
    """
    if model is not None and url is None:
        raise CommandFailed("--model is a model of a running server: name the server with --url.", ExitCode.USAGE)
    from periscope.cli.client import find_server

    server = None if url is None else find_server(url, load_config(config))
    return (None, None) if server is None else (server.url, server.api_key)


def rows_of(text: str) -> tuple[int, ...]:
    """Pure: `1,4,16` as numbers, each once, in the order given.

    Raises:
        CommandFailed: it is something else.
    """
    numbers = [int(part) if part.strip().isdecimal() else 0 for part in text.split(",")]
    if all(1 <= number <= _MAX_AT_ONCE for number in numbers):
        return tuple(dict.fromkeys(numbers))
    raise CommandFailed(
        f"--at-once takes numbers from 1 to {_MAX_AT_ONCE} with commas between them, such as 1,4,16; got {text!r}.",
        ExitCode.USAGE,
    )


def _show(report: ReportT, print_report: Callable[[ReportT, Console], None], json_file: Path | None) -> None:
    """The table on stdout, or on stderr when stdout is for JSON."""
    from rich.console import Console

    print_report(report, Console(stderr=json_file == _STDOUT))
    told: dict[str, Any] = asdict(report)  # type: ignore[call-overload]  # reports are dataclasses
    if json_file == _STDOUT:
        print_json(told)
    elif json_file is not None:
        _write(json_file, json.dumps({"schema_version": SCHEMA_VERSION, **told}, indent=2))


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(f"{text}\n")
    except OSError as error:
        raise CommandFailed(f"Cannot write {file}: {error.strerror}.") from None
