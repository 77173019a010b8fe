"""A real `periscope serve` in a process of its own, on a free port, over a models.yaml made for it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.core import JSONObject
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.engine import EngineConfig

#: What a client asks for.
MODEL_NAME = "bench"
_CAPTIONER: JSONObject = {"name": "captioner", "local_path": "embedded:captioner", "preload": True}
_SEES_BY_PROXY: JSONObject = {"vision_mode": "proxy", "vision_proxy": {"model": "captioner"}}
#: The models.yaml of the embedded pair. JSON is YAML.
DEMO_PAIR: JSONObject = {
    "models": [{"name": MODEL_NAME, "local_path": "embedded:text", "capabilities": _SEES_BY_PROXY}, _CAPTIONER]
}
_READY = re.compile(r"ready on (http://[\d.]+:\d+)/v1")
_START_TIMEOUT_S = 600.0
_STOP_TIMEOUT_S = 30.0
#: Of its log, told when it does not start.
_TOLD_LINES = 12


@dataclass(frozen=True, slots=True)
class ServerProcess:
    """A server that is ready."""

    url: str
    pid: int

    def cpu_s(self) -> float | None:
        """Processor time it has used; None without psutil, which only development environments have."""
        try:
            import psutil
        except ImportError:
            return None
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


def models_yaml(model: Path, config: EngineConfig, *, has_captioner: bool) -> JSONObject:
    """Pure: the model under the settings it has in process, with the embedded captioner if wanted."""
    params = {"max_num_seqs": config.max_num_seqs, "prefill_chunk_size": config.prefill_chunk_size}
    entry = {"name": MODEL_NAME, "local_path": str(model), "preload": True, "params": params}
    if not has_captioner:
        return {"models": [entry]}
    return {"models": [entry | {"capabilities": _SEES_BY_PROXY}, _CAPTIONER]}


@asynccontextmanager
async def serving(config: JSONObject) -> AsyncIterator[ServerProcess]:
    """Inside, a server with this models.yaml answers; it is stopped at the end.

    Raises:
        PeriscopeError: it did not start; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as folder:
        file = Path(folder) / "models.yaml"
        file.write_text(json.dumps(config))
        process, log = await _start(file)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                url = await _ready_url(log)
            draining = asyncio.create_task(_read_to_end(log))  # so that it never blocks on a full pipe
            yield ServerProcess(url, process.pid)
            await _stop(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await draining


async def _start(config_file: Path) -> tuple[asyncio.subprocess.Process, asyncio.StreamReader]:
    """In our environment, less what would change the configuration."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERISCOPE_")}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "periscope", "serve", "--port", "0", "--config", str(config_file)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    return process, process.stderr


async def _ready_url(log: asyncio.StreamReader) -> str:
    seen: deque[str] = deque(maxlen=_TOLD_LINES)
    async for line in log:
        seen.append(line.decode(errors="replace"))
        if found := _READY.search(seen[-1]):
            return found[1]
    raise PeriscopeError("The server to be measured did not start:\n" + "".join(seen).rstrip())


async def _read_to_end(log: asyncio.StreamReader) -> None:
    while await log.read(65536):
        pass


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Kindly; the caller kills what does not listen."""
    with suppress(ProcessLookupError, TimeoutError):
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
