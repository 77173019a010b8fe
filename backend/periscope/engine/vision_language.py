"""VisionLanguageEngine: an image and an instruction in, words out. Event loop side; the model lives on its worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from periscope.core import GenerationParams
from periscope.engine.commands import ImagePrompt
from periscope.engine.hosting import WorkerHost
from periscope.engine.loader import EngineConfig, LoadProgress, read_model_config, resolve_model_path
from periscope.engine.turn import DeviceTurn

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from periscope.core import Image
    from periscope.engine.vision_batch import VisionLanguageModel


class VisionLanguageEngine:
    """Owns a worker with an mlx-vlm model. Requests of all callers share its batch."""

    def __init__(self, host: WorkerHost[VisionLanguageModel], path: Path) -> None:
        self._host = host
        self.path = path

    def __repr__(self) -> str:
        return f"<VisionLanguageEngine {self.path.name} alive={self.is_alive} rows={self._host.num_rows}>"

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
            ModelLoadError: it is not here, or cannot be loaded.
        """
        settings = config or EngineConfig()
        path = resolve_model_path(model, settings.revision)
        read_model_config(path)
        shared_turn = turn or DeviceTurn()

        def load_model() -> VisionLanguageModel:
            # Imported on the worker: mlx-vlm takes seconds to import, and text-only users never need it.
            from periscope.engine.vision_batch import VisionLanguageModel

            return VisionLanguageModel.load(path, settings, shared_turn, progress)

        return cls(await WorkerHost.start(path.name, load_model, shared_turn), path)

    @property
    def is_alive(self) -> bool:
        """The model is loaded and takes requests."""
        return self._host.is_alive

    async def describe(self, image: Image, prompt: str, max_tokens: int) -> tuple[str, int]:
        """Greedy text about one image (may be empty), and the tokens it took. Cancelling frees its row.

        Raises:
            GenerationFailed, EngineClosed: this image's request failed.
        """
        stream = self._host.submit(ImagePrompt(image, prompt), GenerationParams(temperature=0.0, max_tokens=max_tokens))
        text, num_tokens = "", 0
        try:
            async for chunk in stream:
                text += chunk.text
                num_tokens += chunk.num_tokens
        finally:
            stream.cancel()
        return text, num_tokens

    async def ended(self) -> None:
        """Wait until the worker has ended, for whatever reason."""
        await self._host.ended()

    async def close(self) -> None:
        """Idempotent: free the model and end its thread."""
        await self._host.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
