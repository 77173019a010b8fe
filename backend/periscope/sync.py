"""`Periscope` without async, for notebooks and scripts. Its event loop runs on a thread of its own.

from periscope.sync import Periscope

with Periscope("models.yaml") as periscope:
    print(periscope.chat("What colour is the circle?", images=["circle.png"]).text)
"""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Self

from periscope.config import Config
from periscope.core import CaptionedImage, GenerationParams, JSONObject, ModelCard, OutputEvent, OutputSpec
from periscope.library import embedded
from periscope.library.answer import ChatAnswer
from periscope.library.conversation import Conversation
from periscope.library.loop_thread import LoopThread
from periscope.library.pictures import Picture

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Periscope"]

#: What was started and not closed.
_running: set[Periscope] = set()


class Periscope:
    """The twin of `periscope.Periscope`: the same arguments, results and errors, and each call waits for its result.

    Calls may come from several threads at once. Ctrl-C cancels the call that waits. In a notebook, call `start()` in
    one cell and `close()` in another; a program that ends closes what is still open.
    """

    def __init__(self, config: str | PathLike[str] | Config | None = None) -> None:
        self._inner = embedded.Periscope(config)
        self._thread: LoopThread | None = None
        self._lock = threading.Lock()

    def start(self) -> Self:
        """Load the models that are loaded at start: `periscope.Periscope.start`."""
        with self._lock:
            if self._thread is not None:
                raise RuntimeError("This Periscope runs already.")
            thread = LoopThread("periscope-loop")
            try:
                thread.run(self._inner.start())
            except BaseException:
                thread.close()
                raise
            self._thread = thread
        _close_at_end(self)
        return self

    def close(self, *, drain_s: float = 0.0) -> None:
        """Unload everything, as `periscope.Periscope.close` does. Idempotent."""
        with self._lock:
            thread, self._thread = self._thread, None
            if thread is not None:
                try:
                    thread.run(self._inner.close(drain_s=drain_s))
                finally:
                    thread.close()
                    _running.discard(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def _running(self) -> LoopThread:
        if self._thread is None:
            raise RuntimeError("This Periscope does not run: use it inside of `with`, or call `start()` first.")
        return self._thread

    def models(self) -> tuple[ModelCard, ...]:
        """The models that can be asked: `periscope.Periscope.models`."""

        async def models() -> tuple[ModelCard, ...]:
            return self._inner.models()

        return self._running.run(models())

    def chat(
        self,
        conversation: Conversation,
        *,
        images: Sequence[Picture] = (),
        model: str = "",
        params: GenerationParams = GenerationParams(),
        output: OutputSpec = OutputSpec(),
        template_kwargs: JSONObject | None = None,
    ) -> ChatAnswer:
        """Answer a conversation: `periscope.Periscope.chat`, without await."""
        thread = self._running
        return thread.run(
            self._inner.chat(
                conversation,
                images=images,
                model=model,
                params=params,
                output=output,
                template_kwargs=template_kwargs,
            )
        )

    def stream(
        self,
        conversation: Conversation,
        *,
        images: Sequence[Picture] = (),
        model: str = "",
        params: GenerationParams = GenerationParams(),
        output: OutputSpec = OutputSpec(),
        template_kwargs: JSONObject | None = None,
    ) -> Iterator[OutputEvent]:
        """See `periscope.Periscope.stream`. Leaving the `for` loop, or closing the generator, ends its work."""
        thread = self._running
        events = self._inner.stream(
            conversation, images=images, model=model, params=params, output=output, template_kwargs=template_kwargs
        )
        try:
            while (event := thread.run(_next(events))) is not None:
                yield event
                if self._thread is not thread:
                    raise RuntimeError("This Periscope was closed before the answer had ended.")
        finally:
            if self._thread is thread:  # else it has been closed with everything else
                thread.run(_close(events))

    def caption(self, *images: Picture, model: str = "") -> tuple[CaptionedImage, ...]:
        """Describe one image: `periscope.Periscope.caption`, without await."""
        thread = self._running
        return thread.run(self._inner.caption(*images, model=model))

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        model: str = "",
        dimensions: int | None = None,
        prompt_name: str | None = None,
    ) -> NDArray[np.float32]:
        """Turn texts into vectors: `periscope.Periscope.embed`, without await."""
        thread = self._running
        return thread.run(self._inner.embed(texts, model=model, dimensions=dimensions, prompt_name=prompt_name))


async def _next(events: AsyncGenerator[OutputEvent, None]) -> OutputEvent | None:
    return await anext(events, None)


async def _close(events: AsyncGenerator[OutputEvent, None]) -> None:
    await events.aclose()


def _close_at_end(periscope: Periscope) -> None:
    """Close it when the program ends, if it still runs then, whether or not anybody holds it.

    Handlers of `atexit` come too late: Python first shuts its executors and waits for the threads of models.
    """
    if not _running:
        threading._register_atexit(_close_all)  # type: ignore[attr-defined]  # noqa: SLF001
    _running.add(periscope)


def _close_all() -> None:
    for periscope in tuple(_running):
        periscope.close()
