"""The verbs of `periscope service`: they call the package `service` and print its answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from periscope.cli.config import table
from periscope.cli.exits import CommandFailed, ExitCode, complain
from periscope.cli.options import load_config, print_json
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

#: Where this package is installed.
PACKAGE = Path(__file__).resolve().parents[1]
_LABELS = {Verb.INSTALL: "Installed", Verb.START: "Started", Verb.RESTART: "Restarted"}


def install(ctx: typer.Context, config: Path | None, program: Path | None, *, dry_run: bool, as_json: bool) -> None:
    """Install the definition for this machine. A machine without launchd allows only a dry run."""
    machine = _machine(ctx)
    if not dry_run:
        _require_launchd(machine)
    with _told():
        spec = _spec(machine, config, program)
    _carry_out(Verb.INSTALL, machine, dry_run=dry_run, as_json=as_json, spec=spec)


def carry_out(ctx: typer.Context, verb: str, *, dry_run: bool, as_json: bool) -> None:
    """Carry out a verb other than `install`."""
    _carry_out(Verb(verb), _machine(ctx), dry_run=dry_run, as_json=as_json)


def show_status(ctx: typer.Context, *, as_json: bool) -> None:
    """Print the state on stdout and problems on stderr.

    Raises:
        typer.Exit: with 3 when nothing runs.
    """
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


def show_logs(ctx: typer.Context, *, follow: bool, num_lines: int) -> None:
    """Print the ends of both files, then what is added to them."""
    machine = _machine(ctx)
    _require_launchd(machine)
    with _told():
        files = LaunchAgent(machine, answers=answers(machine)).status().logs
    follower = Follower(files)
    if not follow and not any(file.exists() for file in files):
        raise CommandFailed(f"There are no logs in {files[0].parent}: the service has not run yet.")
    for file in files:
        for line in last_lines(file, num_lines):
            typer.echo(line)
    if follow:
        for text in follower.follow(machine.clock):
            sys.stdout.write(text)
            sys.stdout.flush()


def show_plist(ctx: typer.Context, config: Path | None, program: Path | None) -> None:
    """Print only the file's content, so that it can be redirected."""
    with _told():
        sys.stdout.write(render(definition_of(_spec(_machine(ctx), config, program))).decode())


def _machine(ctx: typer.Context) -> Machine:
    """This machine, or the one that the caller of the command line passed as its object."""
    return ctx.find_object(Machine) or this_machine()


@contextmanager
def _told() -> Iterator[None]:
    """Turns the service's errors into those of commands."""
    try:
        yield
    except ServiceFailed as error:
        raise CommandFailed(error.message) from None


def _require_launchd(machine: Machine) -> None:
    if not machine.has_launchd:
        raise CommandFailed(MAC_ONLY)


def _spec(machine: Machine, config: Path | None, program: Path | None) -> AgentSpec:
    found = load_config(config).path
    return AgentSpec(
        program=stable_program(machine, program),
        paths=machine.paths,
        config=None if config is None and is_shipped(found) else found,
        hf_home=machine.env.get("HF_HOME"),
    )


def is_shipped(file: Path, package: Path = PACKAGE) -> bool:
    """Pure: whether the file is inside the installed package, whose path changes with upgrades: the server finds it."""
    return file.is_relative_to(package)


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
        "logs": found.logs[-1],
    }
    return [(key, str(value)) for key, value in facts.items() if value is not None]
