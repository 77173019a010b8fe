"""Protocols of what serves the API's requests. The API calls nothing else of the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Protocol

from periscope.captions.cache import CacheStats, Flushed
from periscope.captions.kept import KeptCaption
from periscope.core import CaptionedImage, GenerationRequest, ImagePart, ModelCard, OutputEvent
from periscope.status import ModelStatus, RequestStatus, ServerStatus, StatusEvent


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
        """Whatever is wrong now will pass by itself."""
        ...


class ChatBackend(Protocol):
    """Answers requests. Every method runs on the event loop and none blocks it."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """One request's events: any number of `Waiting`, then deltas, then `Finished` exactly once.

        The request is the backend's from here on: whoever calls keeps nothing of it, so that its images can be let go
        as soon as they are described. Does nothing before it is iterated. It is iterated and closed by one and the same
        task. `aclose()`, or cancelling that task at any await, ends all work for the request and gives back what it
        held.

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


class ControlBackend(Protocol):
    """What is going on in the server, and commands to it. Models are named as in requests: by name or alias."""

    def status(self) -> ServerStatus:
        """One snapshot. Cheap and instant: touches no model."""
        ...

    def events(self) -> AsyncGenerator[StatusEvent, None]:
        """The snapshot, then what changes. Ends at shutdown, and for a reader that is too far behind."""
        ...

    def requests(self) -> tuple[RequestStatus, ...]:
        """Those that wait or run, the oldest first."""
        ...

    async def captions(self, limit: int, prefix: str) -> tuple[CacheStats, list[KeptCaption]]:
        """The state of the caption cache, and the `limit` captions used last whose keys begin with `prefix`.

        Args:
            prefix: of a key, or of the part of it behind its namespace, which begins with the picture's digest.
        """
        ...

    async def flush_captions(self) -> Flushed:
        """Drop all captions, in memory and in the file."""
        ...

    def cancel(self, request_id: str) -> None:
        """End a request wherever it is: its client gets `RequestCancelled`.

        Raises:
            RequestNotFound: there is none of this id.
        """
        ...

    async def load(self, model: str, *, wait: bool) -> ModelStatus:
        """Bring a model into memory; idle others make room, busy ones first finish what they have.

        Args:
            wait: until it is ready; else as soon as it has been asked for.

        Raises:
            ModelNotFound, ModelUnavailable (it cannot be loaded, or never fits), ServerStopping.
        """
        ...

    async def unload(self, model: str, *, wait: bool) -> ModelStatus:
        """Take a model out of memory once those who use it or waited for it are done.

        Raises:
            ModelNotFound, ModelPinned.
        """
        ...

    def pin(self, model: str, *, pinned: bool) -> ModelStatus:
        """A pinned model is never unloaded. Loads nothing.

        Raises:
            ModelNotFound.
        """
        ...

    async def select(self, model: str, *, wait: bool) -> ModelStatus:
        """Make a text model the default, what clients get who name none, and load it.

        Raises:
            ModelNotFound, InvalidRequest (a captioner), ModelUnavailable, ServerStopping.
        """
        ...
