"""Whether the service's server answers at the address in its models.yaml, and its status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from periscope.config import Config
    from periscope.service import Machine

_STATUS_TIMEOUT_S = 2.0


def answers(machine: Machine) -> Callable[[Path | None], bool]:
    """A function that tells whether a Periscope answers at the address of a models.yaml (None: the usual file)."""

    def is_answering(config: Path | None) -> bool:
        from periscope.cli.client import is_periscope

        url = _url(machine, config)
        return url is not None and is_periscope(url)

    return is_answering


def served(machine: Machine, config: Path | None) -> dict[str, object]:
    """`url`, `ready` and `server` (the part of that name of `/api/status`); None for what is not known."""
    from periscope.cli.client import key_for

    loaded, url = _loaded(machine, config), _url(machine, config)
    if loaded is None or url is None:
        return {"url": None, "ready": None, "server": None}
    key = key_for(loaded, url)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    snapshot = _json(f"{url}/api/status", headers)
    return {"url": url, "ready": _json(f"{url}/readyz", {}) is not None, "server": (snapshot or {}).get("server")}


def _json(url: str, headers: dict[str, str]) -> dict[str, Any] | None:
    import httpx

    try:
        response = httpx.get(url, headers=headers, timeout=_STATUS_TIMEOUT_S, trust_env=False)
        answer = response.json() if response.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _url(machine: Machine, config: Path | None) -> str | None:
    from periscope.cli.listen import url_of

    loaded = _loaded(machine, config)
    return None if loaded is None else url_of(loaded.server.host, loaded.server.port)


def _loaded(machine: Machine, config: Path | None) -> Config | None:
    """The configuration as the agent reads it: in the home folder, without this shell's variables; None if invalid."""
    from periscope.config import load
    from periscope.errors import ConfigError

    try:
        return load(config, env={}, cwd=machine.home, home=machine.home)
    except ConfigError:
        return None
