"""The demo pair behind a real server in the process of the test, which can look at its rooms."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn

from periscope.api import ApiSettings, create_app
from periscope.config import Config, load
from periscope.runtime import Runtime


@asynccontextmanager
async def served(config: Config | Path | None = None) -> AsyncIterator[tuple[Runtime, int]]:
    """The rooms and the port; without a configuration that of this repository's models.yaml.

    Args:
        config: of a file, it is read again by a reload.
    """
    path = config if isinstance(config, Path) else None
    read = config if isinstance(config, Config) else load(path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with Runtime(read, read_config=lambda: load(path)) as runtime:
            app = create_app(
                runtime.service,
                runtime.control,
                ApiSettings(),
                embeddings=runtime.embeddings,
                tool_servers=runtime.tool_servers,
            )
            server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
            serving = asyncio.create_task(server._serve([listener]))
            while not server.started:
                await asyncio.sleep(0)
            yield runtime, listener.getsockname()[1]
            server.should_exit = True
            await serving
