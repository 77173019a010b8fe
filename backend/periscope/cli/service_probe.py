"""Whether the service's server answers at the address in its models.yaml, and its status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from periscope.cli.address import Address
    from periscope.config import Config
    from periscope.service import Machine

_STATUS_TIMEOUT_S = 2.0


def answers(machine: Machine) -> Callable[[Path | None], bool]:
    """A function that tells whether a Periscope answers at the address of a models.yaml (None: the usual file)."""

    def is_answering(config: Path | None) -> bool:
        from periscope.cli.client import is_periscope

        address = _address(machine, config)
        return address is not None and is_periscope(address)

    return is_answering


def served(machine: Machine, config: Path | None) -> dict[str, object]:
    """`url`, `ready` and `server` (the part of that name of `/api/status`); None for what is not known."""
    from periscope.cli.client import key_for

    loaded, address = _loaded(machine, config), _address(machine, config)
    if loaded is None or address is None:
        return {"url": None, "ready": None, "server": None}
    key = key_for(loaded, address.url)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    snapshot, ready = _json(address, "/api/status", headers), _json(address, "/readyz", {})
    return {"url": address.url, "ready": ready is not None, "server": (snapshot or {}).get("server")}


def _json(address: Address, path: str, headers: dict[str, str]) -> dict[str, Any] | None:
    import httpx

    try:
        response = address.get(path, _STATUS_TIMEOUT_S, headers)
        answer = response.json() if response.is_success else None
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None


def _address(machine: Machine, config: Path | None) -> Address | None:
    from periscope.cli.address import address_of

    loaded = _loaded(machine, config)
    return None if loaded is None else address_of(loaded.server)


def _loaded(machine: Machine, config: Path | None) -> Config | None:
    """The configuration as the agent reads it: in the home folder, without this shell's variables; None if invalid."""
    from periscope.config import load
    from periscope.errors import ConfigError

    try:
        return load(config, env={}, cwd=machine.home, home=machine.home)
    except ConfigError:
        return None
