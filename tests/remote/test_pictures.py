"""Pictures fetched from real servers on loopback, and the guard around them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from periscope.errors import ImageInvalid, ImageNotFetched, ImageSourceRefused, RequestError
from periscope.remote.pictures import FetchSettings, PictureFetcher
from tests.remote.certificates import self_signed

PNG = b"\x89PNG\r\n\x1a\n" + bytes(2000)
OK = b"HTTP/1.1 200 OK\r\n"


def answer(body: bytes = PNG, head: bytes = b"") -> bytes:
    return OK + head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def redirect(to: str, status: int = 302) -> bytes:
    return f"HTTP/1.1 {status} Found\r\nLocation: {to}\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n".encode()


class PictureServer:
    """Answers each path with its bytes, an endless body, or silence; keeps the requests' heads."""

    def __init__(self) -> None:
        self.port = 0
        self.answers: dict[str, bytes] = {}
        self.heads: list[str] = []
        self.arrived = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            self.arrived.set()
            path = head.split(" ", 2)[1]
            writer.write(self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
            await writer.drain()
            while path == "/endless":
                writer.write(bytes(65536))
                await writer.drain()
            if path.startswith("/silent"):
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[PictureServer]:
    pictures = PictureServer()
    server = await asyncio.start_server(pictures.serve, "127.0.0.1", 0, ssl=tls)
    pictures.port = server.sockets[0].getsockname()[1]
    try:
        yield pictures
    finally:
        server.close()
        await server.wait_closed()


class Names:
    """A resolver that gives each lookup the next list of addresses, and counts."""

    def __init__(self, *addresses: Sequence[str]) -> None:
        self.addresses = list(addresses)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        del port
        self.asked.append(host)
        if not self.addresses:
            raise OSError("no such name")
        return self.addresses.pop(0)


def fetcher(
    server: PictureServer, names: Names | None = None, trust: ssl.SSLContext | None = None, **settings: Any
) -> PictureFetcher:
    allowed = (f"127.0.0.1:{server.port}", f"pics.test:{server.port}")
    return PictureFetcher(FetchSettings(allowed, **settings), resolve=names, trust=trust)


async def get(pictures: PictureFetcher, url: str, *, check_head: Callable[[bytes], object] = bytes) -> bytes:
    try:
        return await pictures.fetch(url, max_bytes=100_000, check_head=check_head, param="messages[0].content[1]")
    finally:
        pictures.close()


def run(test: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test

    asyncio.run(bounded())


def test_a_picture_is_fetched_with_few_words_about_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checked address is connected to once, with the name as Host, no cookie, and no proxy of the environment."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")

    async def test() -> None:
        async with serving() as server:
            server.answers = {"/a": redirect("/b?x=%20y"), "/b?x=%20y": answer()}
            names = Names(["127.0.0.1"], ["127.0.0.1"])
            heads = list[bytes]()
            assert (
                await get(fetcher(server, names), f"http://pics.test:{server.port}/a", check_head=heads.append) == PNG
            )
            assert (names.asked, heads) == (["pics.test"] * 2, [PNG[:1024]])
            for head in map(str.lower, server.heads):
                assert f"host: pics.test:{server.port}\r\n" in head
                assert "user-agent: periscope\r\n" in head
                assert "cookie" not in head

    run(test())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"), "DNS:pics.test")


def tls_of(certificate: Path) -> tuple[ssl.SSLContext, list[str | None]]:
    """The server's side of TLS with this certificate, and the names that clients ask for."""
    context, asked = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), list[str | None]()
    context.load_cert_chain(certificate)
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    return context, asked


def test_tls_is_with_the_name_and_not_with_the_address(certificate: Path) -> None:
    """The connection goes to the checked address; SNI and the certificate are those of the name."""

    async def test() -> None:
        tls, asked = tls_of(certificate)
        trust = ssl.create_default_context(cafile=certificate)
        async with serving(tls) as server:
            server.answers = {"/a": answer()}
            url = f"https://pics.test:{server.port}/a"
            assert await get(fetcher(server, Names(["127.0.0.1"]), trust), url) == PNG
            assert asked == ["pics.test"]
            with pytest.raises(ImageNotFetched):  # nobody vouches for it
                await get(fetcher(server, Names(["127.0.0.1"])), url)
            with pytest.raises(ImageNotFetched):  # it is for another name
                await get(fetcher(server, None, trust), f"https://127.0.0.1:{server.port}/a")
            assert len(server.heads) == 1

    run(test())


def test_https_is_never_left_for_http(certificate: Path) -> None:
    """A redirect from https: to http: is refused, unless the target is allowed by name."""

    async def test() -> None:
        tls, _ = tls_of(certificate)
        trust = ssl.create_default_context(cafile=certificate)
        async with serving() as plain, serving(tls) as server:
            plain.answers = {"/b": answer()}
            server.answers = {
                "/a": redirect("http://elsewhere.test/b"),
                "/allowed": redirect(f"http://127.0.0.1:{plain.port}/b"),
            }
            url = f"https://pics.test:{server.port}"
            with pytest.raises(ImageSourceRefused, match=r"from https: to http:.*elsewhere\.test"):
                await get(fetcher(server, Names(["127.0.0.1"], ["93.184.216.34"]), trust), f"{url}/a")
            hosts = (f"pics.test:{server.port}", f"127.0.0.1:{plain.port}")
            both = PictureFetcher(FetchSettings(hosts), resolve=Names(["127.0.0.1"]), trust=trust)
            assert await get(both, f"{url}/allowed") == PNG

    run(test())


def test_a_name_that_resolves_anew_gains_nothing() -> None:
    """The second hop is guarded anew: a metadata service is refused even for a host that is allowed."""

    async def test() -> None:
        async with serving() as server:
            server.answers = {"/a": redirect("/b"), "/b": answer()}
            names = Names(["127.0.0.1"], ["169.254.169.254"])
            with pytest.raises(ImageSourceRefused):
                await get(fetcher(server, names), f"http://pics.test:{server.port}/a")
            assert (len(server.heads), len(names.asked)) == (1, 2)

    run(test())


@pytest.mark.parametrize(
    ("url", "addresses"),
    [
        ("http://pics.test/", ["127.0.0.1"]),
        ("http://pics.test/", ["93.184.216.34", "10.0.0.1"]),
        ("http://pics.test/", ["fe80::1%eth0"]),
        ("http://pics.test/", ["::ffff:127.0.0.1"]),
        ("http://pics.test:22/", ["93.184.216.34"]),
        ("http://localhost/", ["127.0.0.1"]),
        ("https://169.254.169.254/latest/meta-data/", []),
        ("http://[::1]/", []),
        ("http://[::ffff:7f00:1]/", []),
        ("http://127.0.0.1/", []),
    ],
)
def test_what_is_guarded_is_refused_in_the_same_words(url: str, addresses: list[str]) -> None:
    """Nobody learns from the error which addresses a name has, or whether anybody answers there."""

    async def test() -> None:
        pictures = PictureFetcher(FetchSettings(), resolve=Names(addresses))
        with pytest.raises(ImageSourceRefused, match=r"only public hosts on ports 80 and 443.*allow_hosts") as caught:
            await get(pictures, url)
        assert not any(address in caught.value.message for address in addresses)
        assert caught.value.param == "messages[0].content[1]"

    run(test())


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        ({}, ImageNotFetched, "answered 404"),
        ({"/a": redirect("/a")}, ImageNotFetched, "more than 4 times"),
        ({"/a": redirect("http://10.0.0.1/")}, ImageSourceRefused, "only public hosts"),
        ({"/a": redirect("file:///etc/passwd")}, ImageSourceRefused, "no http: or https: URL"),
        ({"/a": redirect("data:image/png;base64,AAAA")}, ImageSourceRefused, "no http: or https: URL"),
        ({"/a": redirect("http://127.0.0.1:port/")}, ImageSourceRefused, "no http: or https: URL"),
        ({"/a": redirect("\x80\xff")}, ImageNotFetched, "answered 404"),
        ({"/a": redirect("http://u:p@127.0.0.1/")}, ImageSourceRefused, "user name"),
        ({"/a": answer(head=b"Content-Encoding: gzip\r\n")}, ImageNotFetched, "compressed"),
        ({"/a": OK + b"Content-Length: 100001\r\n\r\n"}, ImageInvalid, "more than 100,000 bytes"),
        ({"/a": OK + b"Content-Length: 50\r\n\r\nabc"}, ImageNotFetched, "broke"),
        ({"/a": OK + b"X: " + b"x" * 200_000 + b"\r\n\r\n"}, ImageNotFetched, "broke"),
        ({"/a": b"SSH-2.0-OpenSSH_9.6\r\n"}, ImageNotFetched, "no HTTP"),
        ({"/a": b"HTTP/1.1 304 Not Modified\r\n\r\n"}, ImageNotFetched, "answered 304"),
        ({"/a": b""}, ImageNotFetched, "broke"),
    ],
)
def test_what_servers_do_wrong(answers: dict[str, bytes], error: type[RequestError], says: str) -> None:
    """Each is the client's error, with the part, the host and the fix, and without a word of what the server said."""

    async def test() -> None:
        async with serving() as server:
            server.answers = answers
            with pytest.raises(error, match=says) as caught:
                await get(fetcher(server), f"http://127.0.0.1:{server.port}/a")
            assert caught.value.param == "messages[0].content[1]"
            assert "OpenSSH" not in caught.value.message

    run(test())


def test_a_body_without_end_is_read_to_the_limit() -> None:
    """Its length was not told, so it is counted."""

    async def test() -> None:
        async with serving() as server:
            server.answers = {"/endless": OK + b"\r\n"}
            with pytest.raises(ImageInvalid, match="max_image_bytes"):
                await get(fetcher(server), f"http://127.0.0.1:{server.port}/endless")

    run(test())


@pytest.mark.parametrize("sent", [b"", OK + b"Content-Length: 50\r\n\r\nabc"], ids=["nothing", "the beginning"])
def test_a_slow_server_is_cut_off(sent: bytes) -> None:
    """Before its answer or in the middle of it."""

    async def test() -> None:
        async with serving() as server:
            server.answers = {"/silent": sent}
            with pytest.raises(ImageNotFetched, match=r"within 0\.2 s"):
                await get(fetcher(server, timeout_s=0.2), f"http://127.0.0.1:{server.port}/silent")

    run(test())


def test_a_cancelled_fetch_gives_its_turn_on() -> None:
    """While it resolves, and while it waits for the answer: the next one gets its picture."""

    async def test() -> None:
        async with serving() as server:
            server.answers = {"/a": answer()}
            resolving = asyncio.Event()

            async def hangs(host: str, port: int) -> Sequence[str]:
                del host, port
                resolving.set()
                await asyncio.Event().wait()
                return ()

            allowed = (f"127.0.0.1:{server.port}",)
            pictures = PictureFetcher(FetchSettings(allowed, max_concurrent=1), resolve=hangs)
            for url, begun in (
                ("http://a.test/", resolving),
                (f"http://127.0.0.1:{server.port}/silent", server.arrived),
            ):
                task = asyncio.create_task(pictures.fetch(url, max_bytes=9, check_head=bytes, param="p"))
                await begun.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await get(pictures, f"http://127.0.0.1:{server.port}/a") == PNG

    run(test())
