"""EmbeddingService: one request for embeddings, end to end, without HTTP. Event loop only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from periscope.core import (
    EmbeddingRequest,
    Embeddings,
    Finished,
    FinishReason,
    Operation,
    Usage,
)
from periscope.errors import ServerStopping
from periscope.pool.contracts import PooledEngine
from periscope.serving.requests import Asked

if TYPE_CHECKING:
    from periscope.pool.pool import ModelPool
    from periscope.serving.models import ModelNames
    from periscope.serving.requests import LiveRequests


@runtime_checkable
class PooledEmbedder(PooledEngine, Protocol):
    """An embedding model that the pool loads, leases and frees. Event loop only."""

    @property
    def max_tokens(self) -> int:
        """Tokens of one text, special tokens included."""
        ...

    @property
    def size(self) -> int:
        """Numbers in a vector."""
        ...

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each input. Any number of calls may run at once; each is cancellable.

        Raises:
            RequestError: an input or a parameter cannot be used.
            GenerationFailed, EngineClosed: the model failed, or was unloaded.
        """
        ...


#: The engine class of all embedding models in the pool.
EMBEDDER: type[PooledEmbedder] = PooledEmbedder  # type: ignore[type-abstract]  # nobody makes one of it


class EmbeddingService:
    """Owns the steps of a request: a place in the model's queue, a lease, the vectors. No state of single requests."""

    def __init__(self, models: ModelNames, pool: ModelPool, requests: LiveRequests) -> None:
        self._models = models
        self._pool = pool
        self._requests = requests
        self._is_stopping = False

    def stop_admitting(self) -> None:
        """Refuse new requests with ServerStopping. Running ones go on."""
        self._is_stopping = True

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each input. The model is loaded for it if it is not in memory. Cancelling frees everything.

        Raises:
            RequestError: the model, an input or a parameter cannot be used.
            ServerBusy, ServerStopping, ModelUnavailable, EngineClosed: the model cannot be had now.
            GenerationFailed: the model failed.
        """
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        model = self._models.resolve_embedder(request.model)
        asked = Asked(num_choices=len(request.inputs), operation=Operation.EMBEDDINGS)
        with self._requests.entered(request.id, model.name, asked) as live, self._pool.ticket(model.name) as ticket:
            async for waiting in ticket.updates():
                live.waits(waiting)
            live.generates()
            made = await ticket.engine(EMBEDDER).embed(request)
            live.finished = Finished(FinishReason.STOP, Usage(made.num_tokens))
            return made
