"""`periscope doctor`: one look at everything, a line for each thing, and exit code 1 if a server would not work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.exits import ExitCode, exits
from periscope.cli.options import ConfigFile, Json, load_config, print_json

if TYPE_CHECKING:
    from periscope.cli.doctor.finding import Finding
    from periscope.cli.doctor.machine import Host
    from periscope.config import Config, ModelConfig
    from periscope.core import Footprint
    from periscope.engine.device.facts import DeviceFacts
    from periscope.service import Machine

_MARKS = {"ok": "ok", "warning": "!", "failure": "FAIL", "skipped": "-"}


@exits()
def doctor(
    ctx: typer.Context,
    *,
    bench: Annotated[bool, typer.Option("--bench", help="Measure the speed, too, which takes some seconds.")] = False,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Check this machine, the configuration and the models, and say how to mend what is not right."""
    from dataclasses import asdict

    from periscope.cli.doctor.machine import Host, this_host
    from periscope.service import Machine, this_machine

    host, machine = ctx.find_object(Host) or this_host(), ctx.find_object(Machine) or this_machine()
    findings: list[Finding] = []
    for finding in _look(host, machine, config, bench=bench):
        findings.append(finding)
        if not as_json:
            _print(finding)
    is_fit = all(finding.level != "failure" for finding in findings)
    if as_json:
        print_json({"is_fit": is_fit, "findings": [asdict(finding) for finding in findings]})
    if not is_fit:
        raise typer.Exit(ExitCode.FAILURE)


def _print(finding: Finding) -> None:
    typer.echo(f"{_MARKS[finding.level]:<4}  {finding.check}: {finding.said}")
    if finding.fix is not None:
        typer.echo(f"      {finding.fix}")


def _look(host: Host, machine: Machine, path: Path | None, *, bench: bool) -> Iterator[Finding]:
    from periscope.cli.doctor.machine import look_at_device, look_at_disk, look_at_packages
    from periscope.hub import Hub
    from periscope.hub.plan import free_bytes

    config, problem = _configured(path)
    device = _device()
    budget_bytes = None if config is None else config.memory.budget
    yield from look_at_packages(host)
    yield from look_at_device(host, device, budget_bytes)
    yield look_at_disk(Hub().folder, free_bytes(Hub().folder))
    yield problem
    if config is not None:
        yield from _look_at_config(config, machine, budget_bytes or (device.budget_bytes if device else None))
    if bench and device is not None:
        from periscope.cli.doctor.speed import look_at_speed

        yield look_at_speed()


def _look_at_config(config: Config, machine: Machine, budget_bytes: int | None) -> Iterator[Finding]:
    from periscope.cli.doctor.models import look_at_captioner, look_at_models, look_at_reader
    from periscope.cli.doctor.server import look_at_agent, look_at_port

    yield from look_at_models(config, _footprint_of(config), budget_bytes)
    yield look_at_captioner(config)
    yield look_at_reader(config)
    yield look_at_port(config)
    yield look_at_agent(machine)


def _configured(path: Path | None) -> tuple[Config | None, Finding]:
    from periscope.cli.doctor.finding import Finding, Level
    from periscope.core.amounts import counted
    from periscope.errors import ConfigError

    try:
        config = load_config(path)
    except ConfigError as error:
        fix = "Mend the file, or start anew with `periscope config init`."
        return None, Finding("configuration", Level.FAILURE, error.message, fix)
    return config, Finding("configuration", Level.OK, f"{config.path}: {counted(len(config.models), 'model')}")


def _device() -> DeviceFacts | None:
    """None if MLX cannot be loaded, whatever the reason."""
    try:
        from periscope.engine.device.facts import device_facts

        return device_facts()
    except (ImportError, OSError, RuntimeError):
        return None


def _footprint_of(config: Config) -> Callable[[ModelConfig], Footprint]:
    """What a model of this configuration would take, by the headers of its files."""
    from periscope.engine.loading.footprint import measure
    from periscope.wiring import engine_config, source_of

    return lambda model: measure(source_of(model), engine_config(model, config), kind=model.kind)
