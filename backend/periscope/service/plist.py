"""The agent's definition: rendered, checked and read. Pure.

The plist starts the server and says nothing more: every setting lives in models.yaml, so an upgrade or a changed
setting never needs another plist. `launchd/README.md` tells what goes wrong without each key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from periscope.service.agent import LABEL, AgentPaths, ServiceFailed

Definition: TypeAlias = dict[str, Any]

#: launchd gives its jobs /usr/bin:/bin:/usr/sbin:/sbin; Homebrew's programs are in none of them.
SEARCH_PATH = "/opt/homebrew/bin:/opt/homebrew/sbin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
#: The server's own last deadline is 25 s after SIGTERM; launchd kills the process at this.
EXIT_TIMEOUT_S = 30
#: launchd's own lower bound between two starts of a job that keeps ending.
THROTTLE_INTERVAL_S = 10
#: Sockets, model files and prompt caches; an agent gets 256 otherwise.
MAX_OPEN_FILES = 4096
#: 0o077 in decimal, because property lists have no octal numbers: logs are for their owner alone.
UMASK = 0o077

_TYPES: Mapping[str, type] = {
    "Label": str,
    "ProgramArguments": list,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ExitTimeOut": int,
    "ProcessType": str,
    "LimitLoadToSessionType": str,
    "EnvironmentVariables": dict,
    "WorkingDirectory": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "SoftResourceLimits": dict,
    "Umask": int,
}
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"\b(hf_|sk-)[A-Za-z0-9_-]{8,}")


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What differs from one machine to the next.

    Attributes:
        program: the absolute path that stays the same when Periscope is upgraded.
        config: models.yaml; None = the one that `periscope serve` finds by itself.
        hf_home: where the hub's cache is, if it was moved when the agent was installed.
    """

    program: Path
    paths: AgentPaths
    config: Path | None = None
    hf_home: str | None = None


def definition_of(spec: AgentSpec) -> Definition:
    """The agent as launchd's keys.

    Raises:
        ServiceFailed: launchd could not use it.
    """
    arguments = [str(spec.program), "serve"]
    if spec.config is not None:
        arguments += ["--config", str(spec.config)]
    environment = {"PATH": SEARCH_PATH, "PYTHONUNBUFFERED": "1"}
    if spec.hf_home:
        environment["HF_HOME"] = spec.hf_home
    definition: Definition = {
        "Label": LABEL,
        "ProgramArguments": arguments,
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": THROTTLE_INTERVAL_S,
        "ExitTimeOut": EXIT_TIMEOUT_S,
        "ProcessType": "Interactive",
        "LimitLoadToSessionType": "Aqua",
        "EnvironmentVariables": environment,
        "WorkingDirectory": str(spec.paths.home),
        "StandardOutPath": str(spec.paths.out_log),
        "StandardErrorPath": str(spec.paths.err_log),
        "SoftResourceLimits": {"NumberOfFiles": MAX_OPEN_FILES},
        "Umask": UMASK,
    }
    if faults := faults_of(definition):
        raise ServiceFailed(f"The agent would not work: {'; '.join(faults)}.")
    return definition


def render(definition: Definition) -> bytes:
    """The plist file, in XML, with the keys in their order.

    Raises:
        ServiceFailed: a value cannot stand in XML.
    """
    import plistlib

    try:
        return plistlib.dumps(definition, sort_keys=False)
    except (ValueError, OverflowError) as error:
        raise ServiceFailed(f"The agent cannot be written as a plist: {error}. Use paths without such signs.") from None


def read(content: bytes | None) -> Definition | None:
    """The definition in a plist file; None where there is none, or where it is not one."""
    if content is None:
        return None
    import plistlib

    try:
        definition = plistlib.loads(content)
    except Exception:  # noqa: BLE001 - plistlib raises errors of its XML parser and of each type that it reads
        return None
    return definition if isinstance(definition, dict) else None


def spec_of(definition: Definition, paths: AgentPaths) -> AgentSpec | None:
    """What a definition was rendered from, if it was one of ours."""
    match definition:
        case {"ProgramArguments": [str(program), *_], "EnvironmentVariables": dict(environment)}:
            hf_home = environment.get("HF_HOME")
            return AgentSpec(Path(program), paths, config_of(definition), hf_home if isinstance(hf_home, str) else None)
        case _:
            return None


def config_of(definition: Definition | None) -> Path | None:
    """The models.yaml that a definition names; None where it leaves the search to the server."""
    arguments = (definition or {}).get("ProgramArguments")
    if not isinstance(arguments, list) or "--config" not in arguments[:-1]:
        return None
    return Path(str(arguments[arguments.index("--config") + 1]))


def faults_of(definition: Mapping[str, Any]) -> tuple[str, ...]:
    """What launchd would ignore or refuse, or what must not be in a file that other users can read."""
    faults = [f"{key} is no key of ours" for key in definition if key not in _TYPES]
    for key, kind in _TYPES.items():
        if type(definition.get(key)) is not kind:  # a bool is an int, but launchd tells them apart
            faults.append(f"{key} must be a {kind.__name__}")
    if faults:
        return tuple(faults)
    faults += [
        f"{where} must be an absolute path, not {path!r}" for where, path in _paths(definition) if path[:1] != "/"
    ]
    if definition["ProcessType"] != "Interactive":
        faults.append("ProcessType must be Interactive, as launchd slows everything else")
    for name, value in definition["EnvironmentVariables"].items():
        if not isinstance(value, str):
            faults.append(f"{name} in EnvironmentVariables must be a str")
        elif _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
            faults.append(f"{name} looks like a secret, which belongs in models.yaml")
    faults += [
        "ProgramArguments hold a secret" for each in definition["ProgramArguments"] if _SECRET_VALUE.search(each)
    ]
    return tuple(faults)


def _paths(definition: Mapping[str, Any]) -> list[tuple[str, str]]:
    paths = [(key, definition[key]) for key in ("WorkingDirectory", "StandardOutPath", "StandardErrorPath")]
    arguments = [*definition["ProgramArguments"], ""]
    paths.append(("The program", arguments[0]))
    if "--config" in arguments:
        paths.append(("--config", arguments[arguments.index("--config") + 1]))
    if "HF_HOME" in definition["EnvironmentVariables"]:
        paths.append(("HF_HOME", definition["EnvironmentVariables"]["HF_HOME"]))
    return paths
