"""A `periscope serve` process on a free port, with a models.yaml made for it. Event loop."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from periscope.bench.child import Child, child
from periscope.bench.waiting import TIME_LIMIT_S, Tell, waiting_for
from periscope.core import JSONObject
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.bench.host_time import HostClock
    from periscope.engine import EngineConfig

#: The model's name in requests.
MODEL_NAME = "bench"
_CAPTIONER: JSONObject = {"name": "captioner", "local_path": "embedded:captioner", "preload": True}
_SEES_BY_PROXY: JSONObject = {"vision_mode": "proxy", "vision_proxy": {"model": "captioner"}}
#: The models.yaml of the embedded pair. JSON is YAML.
DEMO_PAIR: JSONObject = {
    "models": [{"name": MODEL_NAME, "local_path": "embedded:text", "capabilities": _SEES_BY_PROXY}, _CAPTIONER]
}
#: The same for fuzzing: captions of one token, and no reader or prompt cache, so that memory has no reason to grow.
#: On a busy machine files wait for each other, which is none of their faults.
DEMO_PAIR_UNREAD: JSONObject = {
    "server": {"limits": {"wait_timeout_s": 150}},
    "models": [
        {
            "name": MODEL_NAME,
            "local_path": "embedded:text",
            "params": {"prompt_cache": 0},
            "capabilities": {
                "vision_mode": "proxy",
                "vision_proxy": {"model": "captioner", "max_tokens": 1, "reader": "none"},
            },
        },
        _CAPTIONER,
    ],
}
#: What it learns stays out of the user's files, and the next run finds nothing of it.
_PRIVATE: JSONObject = {"caption_cache": {"persist": False}, "prompt_cache": {"persist": False}}
_READY = re.compile(r"ready on (http://[\d.]+:\d+)/v1|stays up, but model|the models could not be loaded")


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that is ready.

    Attributes:
        cpu_s: CPU seconds it has used so far; None = unknown.
        memory_bytes: resident memory of its processes; None = unknown.
        host_clock: makes a clock of the Python threads that it has then; None = unknown.
    """

    url: str
    cpu_s: Callable[[], float | None]
    memory_bytes: Callable[[], int | None]
    host_clock: Callable[[], HostClock | None]


def models_yaml(model: Path, config: EngineConfig, *, has_captioner: bool) -> JSONObject:
    """Pure: a configuration with the model under the settings of `config`, and the embedded captioner if wanted."""
    params = {
        "max_num_seqs": config.max_num_seqs,
        "prefill_chunk_size": config.prefill_chunk_size,
        "stream_interval_ms": config.stream_interval_ms,
    }
    entry = {"name": MODEL_NAME, "local_path": str(model), "preload": True, "params": params}
    if not has_captioner:
        return {"models": [entry]}
    return {"models": [entry | {"capabilities": _SEES_BY_PROXY}, _CAPTIONER]}


@asynccontextmanager
async def serving(
    config: JSONObject, tell: Tell = lambda _: None, *, limit_s: float = TIME_LIMIT_S
) -> AsyncIterator[RunningServer]:
    """Run a server with this models.yaml inside the context. Its captions stay out of the user's file.

    Args:
        limit_s: how long its start may take.

    Raises:
        PeriscopeError: the server did not start; the message has the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as folder:
        file = Path(folder) / "models.yaml"
        file.write_text(json.dumps({**config, **_PRIVATE}))
        argv = (sys.executable, "-m", "periscope", "serve", "--port", "0", "--config", str(file))
        async with child(argv, PERISCOPE_HOME=folder) as server:  # the user's own server is let be
            async with waiting_for("the server to be ready", tell, limit_s):
                url = await _ready_url(server)
            server.drain()
            yield RunningServer(url, server.cpu_s, server.memory_bytes, server.host_clock)


async def _ready_url(server: Child) -> str:
    found = await server.find(_READY)
    if found is None or found[1] is None:
        raise PeriscopeError(f"The server to be measured did not start:\n{await server.last_lines()}")
    return found[1]
