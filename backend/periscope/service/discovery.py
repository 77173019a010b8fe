"""`server.json`: where the running server is, for the menubar, the commands and other programs of the same user."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

#: Grows when a field goes or changes its meaning, not when one is added.
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The folder in which a user's server leaves what outlives it, and what others find it by. Pure but for `make`."""

    path: Path

    @property
    def lock(self) -> Path:
        """Locked by the running server; its content means nothing."""
        return self.path / "server.lock"

    @property
    def server(self) -> Path:
        """`server.json`, which says where the running server listens."""
        return self.path / "server.json"

    @property
    def token(self) -> Path:
        """The secret that stands for the API key."""
        return self.path / "token"

    @property
    def starts(self) -> Path:
        """When the last starts were that did not last."""
        return self.path / "starts.json"

    @property
    def downloads(self) -> Path:
        """The downloads that are not finished."""
        return self.path / "downloads.json"

    @property
    def imports(self) -> Path:
        """What a start has found out for the next ones, so that they are quick."""
        return self.path / "imports.json"

    def make(self) -> None:
        """Make the folder, which nobody else may look into. Idempotent."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)


@dataclass(frozen=True, slots=True)
class RunningServer:
    """What `server.json` says of the server that wrote it.

    Attributes:
        url: where a client on this machine reaches it, without `/v1`: `http://`, `https://`, or `unix:/path` if it
            listens on a Unix socket alone.
        host: what it listens on, as configured.
        port: 0 if it listens on a Unix socket alone.
        started_at: seconds since 1970.
        instance_id: new with each start; `server.instance_id` in `/api/status` is the same for the same process.
        token_path: the file with the token; None if there is none.
        log_path: the file of its own log; None if it writes none.
        config_path: its models.yaml.
        uds: the Unix socket on which it listens, too.
        certificate: the file with the certificate that it shows; None without TLS.
        supervisor: `launchd` or `brew` if launchd started it, None if a terminal or another program did.
    """

    pid: int
    host: str
    port: int
    url: str
    version: str
    started_at: float
    instance_id: str
    token_path: str | None = None
    log_path: str | None = None
    config_path: str | None = None
    supervisor: str | None = None
    uds: str | None = None
    certificate: str | None = None


def write_server(folder: StateFolder, server: RunningServer) -> None:
    """Put `server.json` in place at once, readable by its owner alone."""
    write_private(folder.server, json.dumps({"schema_version": SCHEMA_VERSION, **asdict(server)}, indent=2) + "\n")


def read_server(folder: StateFolder) -> RunningServer | None:
    """What `server.json` says; None where there is no file or none that can be used.

    A server that was killed leaves its file behind: ask the server at `url`, and compare its `instance_id`, before
    believing that it runs.
    """
    try:
        found = json.loads(folder.server.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return _server_of(found) if isinstance(found, dict) else None


def _server_of(found: dict[str, Any]) -> RunningServer | None:
    """Pure. Fields of later versions are passed over."""
    types = get_type_hints(RunningServer)
    known = {name: value for name, value in found.items() if name in types}
    try:
        server = RunningServer(**known)
    except TypeError:
        return None
    fits = all(isinstance(getattr(server, name), kind) for name, kind in types.items() if name != "started_at")
    return server if fits and isinstance(server.started_at, (int, float)) else None


def write_private(file: Path, text: str) -> None:
    """Replace a file as a whole; only its owner may read it, at no moment anybody else."""
    new = file.with_name(f"{file.name}.{os.getpid()}.new")
    with suppress(FileNotFoundError):
        new.unlink()
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:  # noqa: PTH123
        out.write(text)
    new.replace(file)
