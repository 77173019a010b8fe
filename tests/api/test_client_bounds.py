"""How many requests one client has open at once."""

from __future__ import annotations

import asyncio

import pytest

from periscope.api import AccessKeys
from periscope.api.access_keys import hash_of
from periscope.api.client_bounds import client_of
from tests.api.driving import FINISHED, STREAM, FakeBackend, app_over, error_of, in_loop
from tests.api.driving import client_of as http_of
from tests.api.exchange import Exchange
from tests.api.gates import Gate

HOST = (b"host", b"localhost")


@pytest.mark.parametrize(
    ("address", "client"),
    [
        (("127.0.0.1", 5), "127.0.0.1"),
        (("10.1.2.3", 6), "10.1.2.3"),
        (("fd00::1:2", 7), "fd00::/64"),
        (("2001:db8:1:2:3::9", 7), "2001:db8:1:2::/64"),
        (("testclient", 1), "testclient"),
        (None, "unix"),
    ],
)
def test_a_client_is_a_host_or_its_network(address: tuple[str, int] | None, client: str) -> None:
    """Ports make no new client, nor do the addresses that one machine gives itself by the billion."""
    assert client_of(address) == client


@in_loop
async def test_a_client_has_so_many_requests_open_and_others_are_untouched() -> None:
    """The next one gets a 503 before its body is read; probes always answer; an end makes room."""
    gate = Gate()
    app = app_over(FakeBackend(gate, FINISHED), max_requests_per_client=2)
    mine = [Exchange(app, STREAM) for _ in range(2)]
    await gate.reached.wait()
    refused = Exchange(app, STREAM)
    assert await refused.status() == 503
    assert "`server.limits.max_requests_per_client`" in await refused.rest()
    assert await Exchange(app, path="/health", method="GET").status() == 200
    other = Exchange(app, STREAM, client=("10.0.0.2", 1))
    gate.opened.set()
    assert await other.status() == 200
    await asyncio.gather(other.task, *(each.task for each in mine))
    last = Exchange(app, STREAM)
    assert await last.status() == 200
    await last.task


@in_loop
async def test_a_client_that_leaves_makes_room() -> None:
    """Its request is given up, and counted no longer."""
    gate = Gate()
    app = app_over(FakeBackend(gate, FINISHED), max_requests_per_client=1)
    leaving = Exchange(app, STREAM)
    await gate.reached.wait()
    leaving.disconnect()
    await asyncio.wait([leaving.task])
    gate.opened.set()
    last = Exchange(app, STREAM)
    assert await last.status() == 200
    await last.task


@in_loop
async def test_keys_are_clients_of_their_own() -> None:
    """Two people behind one address do not share a bound; one person at two addresses does."""
    gate, keys = Gate(), AccessKeys()
    keys.replace(None, {"laptop": hash_of("a"), "phone": hash_of("b")})
    app = app_over(FakeBackend(gate, FINISHED), keys=keys, max_requests_per_client=1)
    first = Exchange(app, STREAM, headers=[HOST, (b"x-api-key", b"a")])
    await gate.reached.wait()
    again = Exchange(app, STREAM, headers=[HOST, (b"x-api-key", b"a")], client=("10.0.0.2", 1))
    assert await again.status() == 503
    other = Exchange(app, STREAM, headers=[HOST, (b"x-api-key", b"b")])
    gate.opened.set()
    assert await other.status() == 200
    await asyncio.gather(first.task, again.task, other.task)


@in_loop
async def test_the_refusal_is_an_error_object_with_a_time() -> None:
    """As for all that is busy."""
    async with http_of(FakeBackend(), max_requests_per_client=0) as client:
        told = error_of(await client.get("/v1/models"))
    assert (told["code"], told["retry_after"]) == ("server_busy", 2)
