"""The folder of the model to measure: one on this disk, or a temporary one with random weights."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from periscope.bench.mlx_thread import MLXThread
from periscope.bench.random_model import Shape, write_random_model
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.loading.loader import find_on_disk

#: Random weights by name: "tiny" makes the host's share of a step visible, "random" is the default.
RANDOM_SHAPES = {
    "random": Shape(),
    "tiny": Shape(hidden=128, layers=4, heads=4, kv_heads=2, head_dim=32, mlp=384, vocab_size=4096),
}
#: The embedded text model.
DEMO = "demo"


@asynccontextmanager
async def model_files(model: str | None, shape: Shape = Shape()) -> AsyncIterator[Path]:
    """The folder of a model, absolute; for None, a temporary one with random weights of this shape, deleted at exit.

    Args:
        model: a folder, a hub id, "demo", or a name of `RANDOM_SHAPES`, whose shape then counts.

    Raises:
        ModelLoadError: the model is not on this disk.
    """
    shape = RANDOM_SHAPES.get(model or "", shape)
    if model is not None and model not in RANDOM_SHAPES:
        yield EMBEDDED_MODELS["embedded:text"] if model == DEMO else find_on_disk(model).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as folder:
        async with MLXThread() as thread:
            await thread.run(lambda: write_random_model(Path(folder), shape))
        yield Path(folder)


def shown_name(model: str | None) -> str:
    """Pure: the name of the model in reports."""
    return model or "with random weights"
