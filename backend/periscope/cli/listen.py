"""Sockets and addresses: the port is bound before any slow step, so that a busy port is an error at once."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from periscope.cli.exits import CommandFailed, ExitCode

_BACKLOG = 2048
#: The address or its family does not exist on this machine.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
#: macOS takes 104 bytes with the zero at the end, Linux 108.
_MAX_PATH_BYTES = 103
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


class PortHeld(CommandFailed):
    """Another program or another Periscope listens on the port or the Unix socket (exit code 75)."""


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


def url_of(host: str, port: int, scheme: str = "http") -> str:
    """Pure: where a client on this machine reaches a server that listens on `host`."""
    host = _ANY_ADDRESS.get(host, host)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


@contextmanager
def listening_on_file(path: Path) -> Iterator[socket.socket]:
    """A listening Unix socket, to which this user alone can connect; its file goes when the block is left.

    The socket of a server that was killed is replaced. No other file is ever removed.

    Raises:
        PortHeld: a program listens there.
        CommandFailed: the path cannot be used (78).
    """
    length = len(os.fsencode(path))
    if length > _MAX_PATH_BYTES:
        raise _unusable(path, f"it has {length} bytes, and a Unix socket's path has at most {_MAX_PATH_BYTES}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with listener:
        try:
            _remove_stale(path)
            before = os.umask(0o177)  # mode 0600 from the first moment; no other thread runs yet
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            own = path.stat()
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _unusable(path, error.strerror or str(error)) from None
        listener.setblocking(False)
        try:
            yield listener
        finally:
            with suppress(OSError):
                if os.path.samestat(path.lstat(), own):
                    path.unlink()


def _remove_stale(path: Path) -> None:
    """Remove a socket of ours that nobody listens on."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.getuid():
        raise _unusable(path, "there is a file already that is no Unix socket of this user")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise PortHeld(f"A program listens on {path}. Stop it, or choose another path with --uds.", ExitCode.PORT_HELD)


def _unusable(path: Path, reason: str) -> CommandFailed:
    return CommandFailed(f"Cannot listen on {path}: {reason}. Check server.uds or --uds.", ExitCode.CONFIG)


def server_tls(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS for the server, 1.2 or newer. Reads both files.

    Raises:
        CommandFailed: a file cannot be read, or they are not a certificate and its key (78).
    """
    for file, setting in ((cert, "cert"), (key, "key")):
        try:
            file.read_bytes()
        except OSError as error:
            raise CommandFailed(
                f"server.tls.{setting} (--tls-{setting}) cannot be read: {file}: {error.strerror}.", ExitCode.CONFIG
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        raise CommandFailed(
            f"{cert} and {key} are not a certificate and its key in PEM: {reason}. Check server.tls or --tls-cert and "
            "--tls-key.",
            ExitCode.CONFIG,
        ) from None
    return context


def _no_password() -> str:
    """Called for a key with a password, for which OpenSSL would ask the terminal."""
    raise ValueError("the key has a password; write it without one, in a file that you alone can read")


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
