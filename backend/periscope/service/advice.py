"""What may go wrong with an agent on this machine later, told when it is installed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from periscope.service.plist import AgentSpec
from periscope.service.program import is_versioned

#: macOS asks nobody before it keeps a launchd job out of these.
_GUARDED = ("Documents", "Desktop", "Downloads")
_PASSED_ON = "HF_HOME"
_OURS = ("PERISCOPE_", "HF_")
_HOME = "PERISCOPE_HOME"
#: Of use to the command alone, or told in a sentence of their own.
_NOT_FOR_THE_SERVER = ("PERISCOPE_CONFIG", "PERISCOPE_URL", _HOME)


def warnings_for(spec: AgentSpec, env: Mapping[str, str]) -> Iterator[str]:
    """Sentences, each with what to do. Values of variables are never told."""
    if is_versioned(spec.program):
        yield (
            f"{spec.program} has a version in its path and may be gone after an upgrade. "
            "Install Periscope with `uv tool install mlx-periscope`, or say `periscope service install` again then."
        )
    for path in (spec.program, spec.config, Path(spec.hf_home) if spec.hf_home else None):
        if path is not None and _is_guarded(path, spec.paths.home):
            yield (
                f"macOS keeps launchd's jobs out of {path.parent} unless their program has Full Disk Access: "
                "move it, or allow it under Privacy & Security."
            )
    if env.get(_HOME):
        yield (
            f"The service will not see {_HOME}: its state and log are in ~/Library, and commands that run with {_HOME} "
            "set look elsewhere for them. Unset it to use the service."
        )
    unseen = [name for name in sorted(env) if name.startswith(_OURS) and name not in (_PASSED_ON, *_NOT_FOR_THE_SERVER)]
    if unseen:
        yield (
            f"The service will not see {', '.join(unseen)}: launchd reads no shell's environment. "
            "Write the settings into models.yaml."
        )


def _is_guarded(path: Path, home: Path) -> bool:
    return path.is_relative_to("/Volumes") or any(path.is_relative_to(home / folder) for folder in _GUARDED)
