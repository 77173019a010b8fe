"""The one door out of this room: what the API asks of whatever serves its requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from periscope.core import CaptionedImage, GenerationRequest, ImagePart, ModelCard, OutputEvent


class Health(Protocol):
    """One reading of the server's health. `problems` are sentences for a person."""

    @property
    def status(self) -> str:
        """`starting`, `ready`, `degraded`, `failed` or `stopping`."""
        ...

    @property
    def models(self) -> Mapping[str, str]:
        """Model name -> state."""
        ...

    @property
    def problems(self) -> tuple[str, ...]:
        """Empty when all is well."""
        ...

    @property
    def num_running(self) -> int:
        """Requests that hold a model now."""
        ...

    @property
    def is_ready(self) -> bool:
        """Requests will be served."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Nothing is wrong that waiting will not mend."""
        ...


class ChatBackend(Protocol):
    """Answers requests. Every method runs on the event loop and none blocks it."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """One request's events: any number of `Waiting`, then deltas, then `Finished` exactly once.

        Does nothing before it is iterated. It is iterated and closed by one and the same task. `aclose()`, or
        cancelling that task at any await, ends all work for the request and gives back what it held.

        Raises:
            PeriscopeError: also after deltas; a `RequestError` before the first delta.
        """
        ...

    async def caption(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        """What the model's captioner says about each image, in order. Cancellable.

        Raises:
            RequestError: the model has no captioner, there are too many images, or one of them cannot be taken.
        """
        ...

    def models(self) -> tuple[ModelCard, ...]:
        """The configured models, the default one first. Instant."""
        ...

    def health(self) -> Health:
        """Instant; touches no model."""
        ...
