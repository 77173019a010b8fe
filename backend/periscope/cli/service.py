"""`periscope service`: the server as a launchd agent, which starts at login and again after a crash."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from periscope.cli.config import table
from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import ConfigFile, Json, load_config, print_json
from periscope.cli.service_probe import answers, served
from periscope.service import (
    MAC_ONLY,
    AgentSpec,
    Definition,
    Follower,
    LaunchAgent,
    Machine,
    Outcome,
    ServiceFailed,
    Status,
    Verb,
    definition_of,
    last_lines,
    notes,
    render,
    stable_program,
    this_machine,
    told,
    warnings_for,
)

app = typer.Typer(help="Run the server as a launchd agent: at login, and again after a crash.", no_args_is_help=True)

DryRun: TypeAlias = Annotated[bool, typer.Option("--dry-run", help="Print what would be done; change nothing.")]
Program: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Periscope's program; a link that survives upgrades if left out.", show_default=False
    ),
]
_LABELS = {Verb.INSTALL: "Installed", Verb.START: "Started", Verb.RESTART: "Restarted"}


@app.command()
@exits()
def install(
    ctx: typer.Context,
    *,
    config: ConfigFile = None,
    program: Program = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Write the agent's plist and have launchd start it, now and at every login. Again to renew it after an upgrade."""
    machine = _machine(ctx)
    with _told():
        spec = _spec(machine, config, program)
        _carry_out(Verb.INSTALL, machine, dry_run=dry_run, as_json=as_json, spec=spec)


@app.command()
@exits()
def uninstall(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop the agent and remove its plist; models, settings and logs stay."""
    _carry_out(Verb.UNINSTALL, _machine(ctx), dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def start(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Start the installed agent."""
    _carry_out(Verb.START, _machine(ctx), dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def stop(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop the agent until the next login, or until `start`; running requests are finished first."""
    _carry_out(Verb.STOP, _machine(ctx), dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def restart(ctx: typer.Context, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Stop the agent and start it again, with its plist read anew if it has changed."""
    _carry_out(Verb.RESTART, _machine(ctx), dry_run=dry_run, as_json=as_json)


@app.command()
@exits()
def status(ctx: typer.Context, *, as_json: Json = False) -> None:
    """Show the agent's state: exit 0 while it runs, 3 while it does not."""
    machine = _machine(ctx)
    _require_launchd(machine)
    with _told():
        found = LaunchAgent(machine, answers=answers(machine)).status()
    server = served(machine, found.config) if found.is_running else None
    if as_json:
        print_json({**_facts(found), **(server or {"url": None, "ready": None, "server": None})})
    else:
        for line in table(_rows(found, server)):
            typer.echo(line)
        for note in notes(found):
            complain(note)
    if not found.is_running:
        raise typer.Exit(ExitCode.NOT_RUNNING)


@app.command()
@exits()
def logs(
    ctx: typer.Context,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of each file's last lines.")] = 50,
) -> None:
    """Print the ends of the agent's logs."""
    machine = _machine(ctx)
    _require_launchd(machine)
    files = (machine.paths.out_log, machine.paths.err_log)
    follower = Follower(files)
    if not follow and not any(file.exists() for file in files):
        raise CommandFailed(f"There are no logs in {machine.paths.logs}: the service has not run yet.")
    for file in files:
        for line in last_lines(file, lines):
            typer.echo(line)
    if follow:
        for text in follower.follow(machine.clock):
            sys.stdout.write(text)
            sys.stdout.flush()


@app.command()
@exits()
def plist(ctx: typer.Context, *, config: ConfigFile = None, program: Program = None) -> None:
    """Print the plist that `install` would write; works on any system."""
    with _told():
        sys.stdout.write(render(definition_of(_spec(_machine(ctx), config, program))).decode())


def _machine(ctx: typer.Context) -> Machine:
    """This machine, or the one that the caller of the command line passed as its object."""
    return ctx.find_object(Machine) or this_machine()


@contextmanager
def _told() -> Iterator[None]:
    """What the service refuses or cannot do is told as the commands tell it."""
    try:
        yield
    except ServiceFailed as error:
        raise CommandFailed(error.message) from None


def _require_launchd(machine: Machine) -> None:
    if not machine.has_launchd:
        raise CommandFailed(MAC_ONLY)


def _spec(machine: Machine, config: Path | None, program: Path | None) -> AgentSpec:
    """The file that is found inside the installed package is left to the server: its path changes with upgrades."""
    import periscope

    found = load_config(config).path
    is_shipped = config is None and found.is_relative_to(Path(periscope.__file__).parent)
    return AgentSpec(
        program=stable_program(machine, program),
        paths=machine.paths,
        config=None if is_shipped else found,
        hf_home=machine.env.get("HF_HOME"),
    )


def _carry_out(verb: Verb, machine: Machine, *, dry_run: bool, as_json: bool, spec: AgentSpec | None = None) -> None:
    if not dry_run:
        _require_launchd(machine)
    agent = LaunchAgent(machine, answers=answers(machine))
    with _told():
        wanted: Definition | None = None if spec is None else definition_of(spec)
        if dry_run:
            outcome = agent.rehearse(verb, wanted)
        else:
            outcome = agent.carry_out(verb, wanted, on_step=lambda step: complain(told(step, machine)))
    warnings = [] if spec is None else list(warnings_for(spec, machine.env))
    for warning in warnings:
        complain(f"Warning: {warning}")
    if as_json:
        print_json(_told_facts(outcome, machine, dry_run=dry_run, warnings=warnings))
    else:
        for line in _sentences(outcome, machine, dry_run=dry_run):
            typer.echo(line)


def _told_facts(outcome: Outcome, machine: Machine, *, dry_run: bool, warnings: list[str]) -> dict[str, object]:
    return {
        "verb": outcome.verb.value,
        "dry_run": dry_run,
        "changed": bool(outcome.steps) and not dry_run,
        "steps": [told(step, machine) for step in outcome.steps],
        "state": outcome.job.state.value,
        "pid": outcome.job.pid,
        "answers": outcome.is_answered,
        "plist_path": str(machine.paths.plist),
        "warnings": warnings,
    }


def _sentences(outcome: Outcome, machine: Machine, *, dry_run: bool) -> Iterator[str]:
    if dry_run:
        if not machine.has_launchd:
            complain("This is no Mac: the steps are those for a Mac on which nothing is loaded.")
        yield from (told(step, machine) for step in outcome.steps)
    if dry_run or not outcome.steps:
        if not outcome.steps:
            yield "Nothing to do: the service is in that state already."
        return
    match outcome.verb:
        case Verb.STOP:
            yield "Stopped. It starts again at the next login; `periscope service uninstall` ends that."
        case Verb.UNINSTALL:
            yield f"Uninstalled. Settings, models and the logs in {machine.paths.logs} are where they were."
        case verb:
            heard = "it answers" if outcome.is_answered else "it does not answer yet: see `periscope service logs -f`"
            yield f"{_LABELS[verb]}: {outcome.job.state.value}, process {outcome.job.pid}, and {heard}."


def _facts(found: Status) -> dict[str, object]:
    job = found.job
    return {
        "supervisor": found.supervisor,
        "label": found.label,
        "installed": found.is_installed,
        "loaded": job.is_loaded,
        "running": found.is_running,
        "state": job.state.value,
        "domain": job.domain,
        "session": found.session,
        "disabled": found.is_disabled,
        "pid": job.pid,
        "runs": job.runs,
        "last_exit": job.ending,
        "spawn_type": job.spawn_type,
        "exit_timeout_s": job.exit_timeout_s,
        "plist_path": str(found.plist),
        "plist_matches_current": found.is_current if job.is_loaded else None,
        "config_path": None if found.config is None else str(found.config),
        "log_paths": [str(log) for log in found.logs],
        "notes": list(notes(found)),
    }


def _rows(found: Status, server: dict[str, object] | None) -> list[tuple[str, ...]]:
    job = found.job
    facts = {
        "state": job.state.value if job.is_loaded else "not loaded",
        "installed": "yes" if found.is_installed else "no",
        "label": found.label,
        "process": job.pid,
        "address": (server or {}).get("url"),
        "ready": {True: "yes", False: "not yet"}.get(server["ready"] is True) if server else None,
        "domain": job.domain,
        "session": found.session,
        "spawn type": job.spawn_type,
        "runs": job.runs,
        "last exit": job.ending,
        "plist": found.plist if found.is_installed else None,
        "config": found.config,
        "logs": found.logs[1].parent,
    }
    return [(key, str(value)) for key, value in facts.items() if value is not None]
