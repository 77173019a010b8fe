"""The machine itself: Python, the MLX family, Metal, memory, the wired limit, the disk. Facts in, findings out."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.cli.doctor.finding import Finding, Level
from periscope.core.amounts import size

if TYPE_CHECKING:
    from periscope.engine.device.facts import DeviceFacts

_PACKAGES = ("mlx", "mlx-lm", "mlx-vlm")
_GB = 1000**3
#: Below this the smallest useful pair leaves macOS too little.
_LEAST_MEMORY_BYTES = 8 * 1024**3
#: Room for one small model and its captioner.
_LEAST_FREE_BYTES = 10 * _GB
_SYSCTL = "/usr/sbin/sysctl"


@dataclass(frozen=True, slots=True)
class Host:
    """What is read from the operating system; tests make their own.

    Attributes:
        platform: as `sys.platform`.
        architecture: of the running Python: `x86_64` on a Mac means Rosetta or an Intel Mac.
        versions: package -> version; None = not installed.
        sysctl: the value of a name, as text; None where there is none.
    """

    platform: str
    architecture: str
    python: str
    versions: Mapping[str, str | None]
    memory_bytes: int
    sysctl: Callable[[str], str | None]


def this_host() -> Host:
    """The machine that this process runs on."""
    return Host(
        platform=sys.platform,
        architecture=platform.machine(),
        python=platform.python_version(),
        versions={package: _version(package) for package in _PACKAGES},
        memory_bytes=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        sysctl=_sysctl,
    )


def look_at_packages(host: Host) -> Iterator[Finding]:
    """Python and the MLX family."""
    if host.platform == "darwin" and host.architecture != "arm64":
        fix = "Install Python for arm64, for example with `uv python install 3.12`, and Periscope with it."
        yield Finding("python", Level.FAILURE, f"Python {host.python} for {host.architecture}; MLX needs arm64", fix)
    else:
        yield Finding("python", Level.OK, f"{host.python} for {host.architecture}")
    missing = [package for package, version in host.versions.items() if version is None]
    if missing:
        fix = "Install Periscope anew: `uv tool install --reinstall mlx-periscope`."
        yield Finding("mlx", Level.FAILURE, f"not installed: {', '.join(missing)}", fix)
    else:
        yield Finding("mlx", Level.OK, ", ".join(f"{package} {version}" for package, version in host.versions.items()))


def look_at_device(host: Host, device: DeviceFacts | None, budget_bytes: int | None) -> Iterator[Finding]:
    """Metal, memory and the wired limit.

    Args:
        device: None = MLX cannot be used.
        budget_bytes: `memory.budget` of the configuration.
    """
    if device is None:
        fix = "Run `python -c 'import mlx.core'` in Periscope's environment: it says why."
        yield Finding("metal", Level.FAILURE, "MLX cannot be loaded", fix)
        return
    yield _metal(host, device)
    yield _memory(host, device, budget_bytes)
    yield _wired_limit(host, device, budget_bytes)


def look_at_disk(folder: Path, free_bytes: int) -> Finding:
    """Room for models. `folder`: the hub's cache."""
    said = f"{size(free_bytes)} free for {folder}"
    if free_bytes >= _LEAST_FREE_BYTES:
        return Finding("disk", Level.OK, said)
    fix = "Remove a model with `periscope rm MODEL`, or set HF_HUB_CACHE to a folder on another disk."
    return Finding("disk", Level.WARNING, said, fix)


def _metal(host: Host, device: DeviceFacts) -> Finding:
    if device.has_metal:
        return Finding("metal", Level.OK, device.name)
    if host.platform == "darwin":
        fix = "Metal needs a session on a Mac with Apple silicon; virtual machines often have none."
        return Finding("metal", Level.FAILURE, "this Mac shows MLX no Metal device", fix)
    return Finding("metal", Level.WARNING, "no Metal on this system: MLX computes on the CPU", "Use a Mac for speed.")


def _memory(host: Host, device: DeviceFacts, budget_bytes: int | None) -> Finding:
    budget = device.budget_bytes if budget_bytes is None else budget_bytes
    said = f"{size(host.memory_bytes)}, of which models may take {size(budget)}"
    if host.memory_bytes < _LEAST_MEMORY_BYTES:
        return Finding("memory", Level.WARNING, said, "Choose models of 2 GB at most, such as those of `config init`.")
    if device.recommended_bytes is not None and budget > device.recommended_bytes:
        fix = f"Set `memory.budget` to {device.recommended_bytes // _GB}GB or less, or raise the wired limit (below)."
        return Finding("memory", Level.WARNING, f"{said}; Metal recommends {size(device.recommended_bytes)}", fix)
    return Finding("memory", Level.OK, said)


def _wired_limit(host: Host, device: DeviceFacts, budget_bytes: int | None) -> Finding:
    """`iogpu.wired_limit_mb` is the part of memory that the GPU may keep; 0 = macOS decides."""
    told = host.sysctl("iogpu.wired_limit_mb") if host.platform == "darwin" else None
    if told is None or device.recommended_bytes is None:
        return Finding("wired limit", Level.SKIPPED, "only macOS has one")
    limit = int(told) * 1024**2
    if limit == 0:
        return Finding("wired limit", Level.OK, f"macOS decides: {size(device.recommended_bytes)}")
    wanted = device.budget_bytes if budget_bytes is None else budget_bytes
    if limit >= wanted:
        return Finding("wired limit", Level.OK, f"set to {size(limit)}")
    fix = f"sudo sysctl iogpu.wired_limit_mb={wanted // 1024**2 + 1}, or 0 (macOS decides), until a restart."
    return Finding("wired limit", Level.WARNING, f"set to {size(limit)}, below the {size(wanted)} of the models", fix)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _sysctl(name: str) -> str | None:
    try:
        told = subprocess.run([_SYSCTL, "-n", name], capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() if told.returncode == 0 and told.stdout.strip().isdecimal() else None
