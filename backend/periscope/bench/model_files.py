"""The folder of the model to be measured: one on this disk, or one with random weights for as long as it is needed."""

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
    """A folder or hub id as it lies on the disk; without one, random weights of this shape, there only inside.

    Raises:
        ModelLoadError: there is no such model.
    """
    if model is not None:
        yield find_on_disk(model)
        return
    with tempfile.TemporaryDirectory(prefix="periscope-bench-") as folder:
        async with MLXThread() as thread:
            await thread.run(lambda: write_random_model(Path(folder), shape))
        yield Path(folder)


def shown_name(model: str | None) -> str:
    """Pure: what a report calls it."""
    return model or "with random weights"
