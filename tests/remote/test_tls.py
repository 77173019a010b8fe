"""The client and TLS: whom it trusts, and how a connection that fails is told apart."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from periscope.errors import ConfigError, ConnectionFault, RemoteUnreachable
from periscope.remote import Endpoint, OpenAIClient
from tests.remote.certificates import self_signed
from tests.remote.hostile import PATIENCE_S, head

MODELS = b'{"data": [{"id": "m"}]}'


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return self_signed(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


async def models_over_tls(certificate: Path, ca_file: Path | None) -> list[str]:
    """The listing of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(content_type="application/json") + MODELS)
        writer.close()

    async with (
        asyncio.timeout(PATIENCE_S),
        await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server,
    ):
        port = server.sockets[0].getsockname()[1]
        async with OpenAIClient(Endpoint(f"https://127.0.0.1:{port}/v1", ca_file=ca_file)) as client:
            return [model.name for model in await client.list_models()]


def test_a_server_is_trusted_through_the_authority_that_is_named(certificate: Path) -> None:
    """With its `ca_file` it is asked; without, its certificate is refused as a fault of TLS."""
    assert asyncio.run(models_over_tls(certificate, certificate)) == ["m"]
    with pytest.raises(RemoteUnreachable, match=r"certificate verify failed|CERTIFICATE_VERIFY_FAILED") as refused:
        asyncio.run(models_over_tls(certificate, None))
    assert refused.value.fault is ConnectionFault.TLS


@pytest.mark.parametrize(
    ("base_url", "fault"),
    [
        ("http://127.0.0.1:1/v1", ConnectionFault.REFUSED),
        ("http://no-such-host.invalid/v1", ConnectionFault.NAME),
        ("https://PLAIN/v1", ConnectionFault.TLS),
    ],
)
def test_the_reason_why_there_is_no_connection_is_told(base_url: str, fault: ConnectionFault) -> None:
    """Nobody listens; the name has no address; the server speaks plain HTTP."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(head("400 Bad Request"))
        writer.close()

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S), await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
            url = base_url.replace("PLAIN", f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
            async with OpenAIClient(Endpoint(url)) as client:
                with pytest.raises(RemoteUnreachable) as told:
                    await client.list_models()
        assert told.value.fault is fault

    asyncio.run(run())


@pytest.mark.parametrize(("text", "reason"), [(None, "No such file"), ("no certificate", "it holds no PEM")])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    """Before anything is sent."""
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=reason) as told:
        OpenAIClient(Endpoint("https://127.0.0.1:1/v1", ca_file=path))
    assert str(path) in told.value.message
