"""The folder of the model to measure: one on this disk, or a temporary one with random weights."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from periscope.bench.mlx_thread import MLXThread
from periscope.bench.random_model import Shape, write_random_model
from periscope.engine.loading.loader import find_on_disk


@asynccontextmanager
async def model_files(model: str | None, shape: Shape = Shape()) -> AsyncIterator[Path]:
    """The folder of a model; for None, a temporary one with random weights of this shape, deleted at exit.

    Raises:
        ModelLoadError: the model is not on this disk.
    """
    if model is not None:
        yield find_on_disk(model)
        return
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as folder:
        async with MLXThread() as thread:
            await thread.run(lambda: write_random_model(Path(folder), shape))
        yield Path(folder)


def shown_name(model: str | None) -> str:
    """Pure: the name of the model in reports."""
    return model or "with random weights"
