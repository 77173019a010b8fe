"""What a server does before it loads anything: takes the lock and the port, and says where it is."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from periscope import __version__
from periscope.cli.address import UNIX, Address, address_of
from periscope.cli.exits import CommandFailed, ExitCode
from periscope.cli.listen import PortHeld, listen, listening_on_file, port_of, server_tls
from periscope.cli.stopping import STOP_DEADLINE_S
from periscope.service import (
    BREW_LABEL,
    LABEL,
    LOG_NAME,
    MAX_FAST_CRASHES,
    Instance,
    RunningServer,
    StartRecord,
    StateFolder,
    held,
    read_or_make_token,
    read_server,
)
from periscope.status import ServerIdentity

if TYPE_CHECKING:
    from periscope.config import Config, ServerConfig, TLSConfig
    from periscope.service import Machine

logger = logging.getLogger(__name__)

#: A server that stops keeps the lock until it has ended; its own deadline is `STOP_DEADLINE_S`.
_HOLDER_STOPS_WITHIN_S = STOP_DEADLINE_S + 2.0
#: A server that has its port and imports its libraries answers within this, on a busy machine too.
_HOLDER_ANSWERS_WITHIN_S = 5.0
_SUPERVISORS = {LABEL: "launchd", BREW_LABEL: "brew"}


@dataclass(frozen=True, slots=True)
class Entrance:
    """A server's place among others, as long as `entered` is not left.

    Attributes:
        starts: the record of starts; None for a server without the lock, whose crashes nobody counts.
        downloads_file: of unfinished downloads, for the next server; None for a server without the lock.
        tls: for the listeners with a port; None = plain HTTP.
        num_fast_crashes: starts before this one, in a row, that did not last.
    """

    listeners: list[socket.socket]
    server: RunningServer
    token: str | None = field(repr=False)
    starts: StartRecord | None
    num_fast_crashes: int
    downloads_file: Path | None = None
    instance: Instance | None = None
    tls: ssl.SSLContext | None = None

    @property
    def identity(self) -> ServerIdentity:
        """What the status tells of this process."""
        return ServerIdentity(self.server.version, self.server.instance_id, self.server.supervisor)

    @property
    def places(self) -> list[str]:
        """Where it listens, for a person."""
        unix = [f"{UNIX}{self.server.uds}"] if self.server.uds is not None and self.server.port else []
        return [self.server.url, *unix]

    def renew_certificate(self, settings: TLSConfig) -> None:
        """Read the certificate again, for connections from now on. One that cannot be used changes nothing."""
        if self.tls is None or settings.cert is None or settings.key is None:
            return
        cert, key = Path(settings.cert), Path(settings.key)
        try:
            server_tls(cert, key)
            self.tls.load_cert_chain(cert, key)
        except (CommandFailed, OSError, ValueError) as error:
            logger.error("the certificate stays as it was: %s", error)  # noqa: TRY400 - the message says all

    def stops(self) -> None:
        """The server was asked to stop: commands find it no longer, and the next one waits for its end. Idempotent."""
        self.has_settled()
        if self.instance is not None:
            self.instance.withdraw()

    def has_settled(self) -> None:
        """This start counts as a good one: it has lasted, or the server was asked to stop. Idempotent."""
        if self.starts is not None:
            self.starts.forget()

    @property
    def braked(self) -> str | None:
        """Why nothing is to be loaded at start: what is loaded there may be what ends the process. None = it may be."""
        if self.num_fast_crashes < MAX_FAST_CRASHES:
            return None
        return (
            f"The server ended {self.num_fast_crashes} times in a row soon after it started, so no model was loaded. "
            "The log says why it ended. A request loads a model; the next start loads all of them again."
        )


@contextmanager
def entered(config: Config, machine: Machine) -> Iterator[Entrance]:
    """Take the lock, the port, and a place in `server.json`; all are given back at the end.

    Raises:
        CommandFailed: a Periscope has the port already (exit code 0), something else has it (75), or the address cannot
            be used.
    """
    folder = StateFolder(config.places.state)
    with ExitStack() as stack:
        tls = None
        if config.server.tcp and config.server.tls.cert is not None and config.server.tls.key is not None:
            tls = server_tls(Path(config.server.tls.cert), Path(config.server.tls.key))
        instance = _instance(stack, folder, config.server, machine)
        listeners = _listeners(stack, config)
        token, starts, num_fast_crashes = None, None, 0
        try:
            token = read_or_make_token(folder)
            if instance is not None:
                starts = StartRecord(folder.starts)
                num_fast_crashes = starts.begin()
        except OSError as error:
            _warn_of(folder, error)
        server = _described(
            config,
            port_of(listeners) if config.server.tcp else 0,
            machine,
            token_path=None if token is None else folder.token,
            log_path=config.places.logs / LOG_NAME if instance is not None and config.log.file else None,
        )
        if instance is not None:
            _publish(instance, server)
        downloads_file = None if starts is None else folder.downloads
        yield Entrance(listeners, server, token, starts, num_fast_crashes, downloads_file, instance, tls)


def _publish(instance: Instance, server: RunningServer) -> None:
    try:
        instance.publish(server)
    except OSError as error:
        _warn_of(instance.folder, error)


def _instance(stack: ExitStack, folder: StateFolder, server: ServerConfig, machine: Machine) -> Instance | None:
    try:
        instance = stack.enter_context(held(folder, machine.clock, _HOLDER_STOPS_WITHIN_S))
    except OSError as error:
        _warn_of(folder, error)
        return None
    if instance is not None:
        return instance
    holder = read_server(folder)
    if holder is None:
        raise CommandFailed(
            f"Another Periscope has {folder.lock} and neither serves nor ends. End it and try again.",
            ExitCode.PORT_HELD,
        )
    if server.port == holder.port if server.tcp else server.uds == holder.uds:
        raise _already_running(holder.url, f" (pid {holder.pid}, version {holder.version})")
    logger.info("commands find the Periscope at %s (pid %d), not this one", holder.url, holder.pid)
    return None


def _listeners(stack: ExitStack, config: Config) -> list[socket.socket]:
    server, address = config.server, address_of(config.server)
    listeners: list[socket.socket] = []
    try:
        if server.tcp:
            listeners += map(stack.enter_context, listen(server.host, server.port))
        if server.uds is not None:
            address = Address(f"{UNIX}{server.uds}")
            listeners.append(stack.enter_context(listening_on_file(Path(server.uds))))
    except PortHeld:
        from periscope.cli.client import is_periscope

        if is_periscope(address, timeout_s=_HOLDER_ANSWERS_WITHIN_S):
            raise _already_running(address.url) from None
        raise
    return listeners


def _already_running(url: str, more: str = "") -> CommandFailed:
    return CommandFailed(
        f"Periscope already runs at {url}{more}, so this one ends. Stop that one first, or choose another --port.",
        ExitCode.OK,
    )


def _warn_of(folder: StateFolder, error: OSError) -> None:
    logger.warning(
        "%s cannot be used (%s): commands will not find this server by themselves. Set PERISCOPE_HOME to a folder that "
        "can be written.",
        folder.path,
        error.strerror,
    )


def _described(
    config: Config, port: int, machine: Machine, *, token_path: Path | None, log_path: Path | None
) -> RunningServer:
    address = address_of(config.server, port)
    return RunningServer(
        pid=os.getpid(),
        host=config.server.host,
        port=port,
        url=address.url,
        version=__version__,
        started_at=time.time(),
        instance_id=uuid4().hex,
        token_path=None if token_path is None else str(token_path),
        log_path=None if log_path is None else str(log_path),
        config_path=str(config.path),
        supervisor=_SUPERVISORS.get(machine.env.get("XPC_SERVICE_NAME", "")),
        uds=config.server.uds,
        certificate=None if address.certificate is None else str(address.certificate),
    )
