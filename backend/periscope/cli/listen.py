"""Sockets and addresses: the port is bound before any slow step, so that a busy port is an error at once."""

from __future__ import annotations

import errno
import socket

from periscope.cli.exits import CommandFailed, ExitCode

_BACKLOG = 2048
#: The address or its family does not exist on this machine.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


class PortHeld(CommandFailed):
    """Another program or another Periscope listens on the port (exit code 75)."""


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets on every address that `host` stands for, all on one port. Clients may connect from now on.

    Raises:
        PortHeld: another program has the port.
        CommandFailed: it needs more rights (1), or the host is not of this machine (78).
    """
    listeners: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, address in _addresses(host, port):
            try:
                listeners.append(_listen_on(family, address, port))
                port = port_of(listeners)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error  # `localhost` has an IPv6 address even where IPv6 is off
        if absent is not None and not listeners:
            raise absent
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise _refusal(error, host, port) from None
    return listeners


def port_of(listeners: list[socket.socket]) -> int:
    """The port that the sockets share, even if any free one was asked for."""
    return int(listeners[0].getsockname()[1])


def url_of(host: str, port: int) -> str:
    """Pure: where a client on this machine reaches a server that listens on `host`."""
    host = _ANY_ADDRESS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _addresses(host: str, port: int) -> list[tuple[int, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))


def _listen_on(family: int, address: str, port: int) -> socket.socket:
    # asyncio sets TCP_NODELAY on what such a socket accepts only if it names the protocol; without, chunks wait 40 ms.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _refusal(error: OSError, host: str, port: int) -> CommandFailed:
    if isinstance(error, socket.gaierror) or error.errno in _ABSENT:
        return CommandFailed(f"{host!r} is no address of this machine. Check server.host or --host.", ExitCode.CONFIG)
    if error.errno == errno.EADDRINUSE:
        return PortHeld(
            f"Port {port} on {host} is held by another program. Stop it, or choose another port with --port.",
            ExitCode.PORT_HELD,
        )
    if error.errno == errno.EACCES:
        return CommandFailed(f"Port {port} needs more rights than this user has. Choose one above 1023 with --port.")
    return CommandFailed(f"Cannot listen on {host} port {port}: {error.strerror}.")
