"""VisionLanguageEngine: describes images. Used on the event loop; the model lives on its worker thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from periscope.core import GenerationParams
from periscope.engine.config import EngineConfig
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.loading.loader import LIBRARY_LOCK, LoadProgress, find_on_disk, has_vision, read_model_config
from periscope.engine.worker.commands import ImagePrompt
from periscope.engine.worker.host import HostedEngine, RunningWorker, start_worker
from periscope.engine.worker.reports import STARTED
from periscope.errors import ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from periscope.core import Image
    from periscope.engine.vision.vision_batch import VisionLanguageModel


class VisionLanguageEngine(HostedEngine):
    """Owns a worker with an mlx-vlm model. Requests of all callers share its batch."""

    def __init__(self, worker: RunningWorker[None], path: Path) -> None:
        super().__init__(worker)
        self.path = path

    def __repr__(self) -> str:
        return f"<VisionLanguageEngine {self.path.name} alive={self.is_alive} rows={self.num_rows}>"

    @classmethod
    async def load(
        cls,
        model: str,
        config: EngineConfig | None = None,
        *,
        turn: DeviceTurn | None = None,
        progress: LoadProgress = lambda _done, _total: None,
    ) -> Self:
        """Load a vision-language model from a folder or the hub cache.

        Raises:
            ModelLoadError: it is not on this disk, cannot be loaded, or has no vision part.
        """
        settings = config or EngineConfig()
        path = find_on_disk(model, settings.revision)
        if not has_vision(read_model_config(path)):
            raise ModelLoadError(
                f"{settings.name_of(model)} has no vision part. Name a vision-language model as the captioner."
            )
        shared_turn = turn or DeviceTurn()

        def load_model() -> VisionLanguageModel:
            with LIBRARY_LOCK:  # importing mlx-vlm takes seconds, and text-only use does not need it
                from periscope.engine.vision.vision_batch import VisionLanguageModel
            return VisionLanguageModel.load(path, settings, shared_turn, progress)

        return cls(await start_worker(settings.name_of(model), load_model, shared_turn, is_background=True), path)

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None] = lambda: None
    ) -> tuple[str, int]:
        """Return a greedy description of one image (may be empty) and its number of tokens. Cancelling frees its row.

        Args:
            on_start: called once, on the event loop, when work on the image starts. Until then it waits for the images
                of other callers.

        Raises:
            GenerationFailed, EngineClosed: this image's request failed.
        """
        stream = self.submit(ImagePrompt(image, prompt), GenerationParams(temperature=0.0, max_tokens=max_tokens))
        text, num_tokens = "", 0
        try:
            async for chunk in stream:
                if chunk is STARTED:
                    on_start()
                text += chunk.text
                num_tokens += chunk.num_tokens
        finally:
            stream.cancel()
        return text, num_tokens
