"""Taking the port."""

from __future__ import annotations

import asyncio
import socket

import pytest

from periscope.cli.exits import CommandFailed, ExitCode
from periscope.cli.listen import listen, port_of, url_of


def test_port_0_is_a_real_port_and_takes_connections_at_once() -> None:
    """Clients can connect before anything is served."""
    listeners = listen("127.0.0.1", 0)
    try:
        with socket.create_connection(("127.0.0.1", port_of(listeners)), timeout=10):
            pass
    finally:
        for listener in listeners:
            listener.close()


def test_a_held_port_is_told_with_its_number() -> None:
    """75, and a sentence that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(CommandFailed, match=f"Port {port} .* --port") as failed:
            listen("127.0.0.1", port)
    assert failed.value.code is ExitCode.PORT_HELD


def test_every_address_of_localhost_is_on_the_same_port() -> None:
    """A client may take either family."""
    listeners = listen("localhost", 0)
    try:
        assert len({listener.getsockname()[1] for listener in listeners}) == 1
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_somebody_else_is_a_configuration_problem(host: str) -> None:
    """78: trying again will not help."""
    with pytest.raises(CommandFailed, match="no address of this machine") as failed:
        listen(host, 0)
    assert failed.value.code is ExitCode.CONFIG


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7374"),
        ("localhost", "http://localhost:7374"),
        ("::1", "http://[::1]:7374"),
        ("0.0.0.0", "http://127.0.0.1:7374"),  # noqa: S104 - not bound here
        ("::", "http://[::1]:7374"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_use(host: str, url: str) -> None:
    """Any-address hosts are reached over loopback, IPv6 stands in brackets."""
    assert url_of(host, 7374) == url


def test_small_answers_are_not_held_back() -> None:
    """What is accepted sends at once: Nagle's algorithm would keep every chunk for the client's delayed ACK, 40 ms."""

    async def run() -> int:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def on_client(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            transport = writer.get_extra_info("socket")
            accepted.set_result(transport.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        (listener,) = listen("127.0.0.1", 0)
        async with await asyncio.start_server(on_client, sock=listener):
            _, writer = await asyncio.open_connection("127.0.0.1", port_of([listener]))
            writer.close()
            return await accepted

    assert asyncio.run(run()) != 0
