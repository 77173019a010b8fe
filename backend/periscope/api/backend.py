"""Protocols of the backends that serve the API's requests. The API calls nothing else of the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Protocol

from periscope.captions.cache import CacheStats, Flushed
from periscope.captions.kept import KeptCaption
from periscope.core import (
    AnswerEvent,
    CaptionedImage,
    ConfigChanges,
    DescribedFile,
    DownloadCommand,
    EmbeddingRequest,
    Embeddings,
    FilePart,
    GenerationRequest,
    ImagePart,
    JSONObject,
    ListedTool,
    McpProgress,
    McpReply,
    McpRequest,
    ModelCard,
    OutputEvent,
    TokenizedText,
    ToolResult,
)
from periscope.serving.server_tools import ServerTools
from periscope.status import DownloadStatus, ModelStatus, RequestStatus, ServerStatus, StatusEvent


class Health(Protocol):
    """The server's health at one moment."""

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
        """Sentences for the user; empty when all is well."""
        ...

    @property
    def num_running(self) -> int:
        """Requests that hold a model now."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether requests to the default model are served."""
        ...

    @property
    def is_healthy(self) -> bool:
        """Whether the server needs no restart."""
        ...


class ModelBackend(Protocol):
    """Lists the models that clients can ask, the default one first."""

    @property
    def default_model(self) -> str:
        """The name of the model that answers requests that name none."""
        ...

    def models(self) -> tuple[ModelCard, ...]:
        """The configured models, the default one first and embedding models last. Does not block."""
        ...


class McpBackend(Protocol):
    """Answers requests of agents over MCP. Event loop only."""

    def answer(self, request: McpRequest) -> AsyncGenerator[McpProgress | McpReply, None]:
        """One request's events: any number of `McpProgress`, then `McpReply` exactly once.

        What goes wrong with a call is told in the reply. Closing the generator, or cancelling the task that iterates,
        ends all work for it.
        """
        ...


class EmbeddingBackend(Protocol):
    """Turns texts into vectors. Event loop only."""

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        """One vector for each input, in order. Loads the model if needed. Cancellable.

        Raises:
            RequestError: the model, an input or a parameter cannot be used.
        """
        ...


class ChatBackend(ModelBackend, Protocol):
    """Answers requests. Every method runs on the event loop and none blocks it."""

    def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """One request's events: any number of `Waiting`, then deltas, then `Finished` exactly once.

        The backend owns the request from here on: the caller keeps no reference to it, so that its images can be freed
        as soon as they are captioned. Nothing happens before the first iteration. One and the same task iterates and
        closes it. `aclose()`, or cancelling that task at any await, ends all work for the request and releases what it
        held.

        Raises:
            PeriscopeError: also after deltas; a `RequestError` before the first delta.
        """
        ...

    def answer(self, request: GenerationRequest, servers: ServerTools) -> AsyncGenerator[AnswerEvent, None]:
        """Answer as `stream` does; the model may call tools on MCP servers, which is told as events."""
        ...

    async def tokenize(self, model: str, text: str, *, adds_special_tokens: bool) -> TokenizedText:
        """A plain text as the model reads it. Loads the model if needed. Cancellable.

        Args:
            adds_special_tokens: also those with which the tokenizer opens or closes a text.
        """
        ...

    async def tokenize_chat(self, request: GenerationRequest) -> TokenizedText:
        """The prompt of a request that is not answered, as the model would read it. Cancellable.

        Raises:
            RequestError: it could not be answered either, for instance because it does not fit the context.
        """
        ...

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """The text of token ids of this model, special tokens included. Cancellable.

        Raises:
            InvalidRequest: an id is not in the vocabulary.
        """
        ...

    async def caption(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        """What the model's captioner says about each image, in order. Cancellable.

        Raises:
            RequestError: the model has no captioner, there are too many images, or one of them cannot be taken.
        """
        ...

    async def read(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        """The text that stands in each image, in order, without its caption. Cancellable.

        Raises:
            RequestError: as `caption`, or the model has no reader.
        """
        ...

    async def describe_files(self, model: str, files: tuple[FilePart | ImagePart, ...]) -> tuple[DescribedFile, ...]:
        """What the model reads in place of each attached file, in order. Cancellable.

        Raises:
            RequestError: a file cannot be taken.
        """
        ...

    def health(self) -> Health:
        """The server's health. Does not block, and touches no model."""
        ...


class ToolServer(Protocol):
    """One MCP server of models.yaml. Event loop only."""

    def allows(self, tool: str) -> bool:
        """Whether the file lets requests have the tool called."""
        ...

    def needs_approval(self, tool: str, wanted: bool | None) -> bool:
        """Whether a call of the tool waits for the client's approval; `wanted` is what the request says of it."""
        ...

    async def listed(self) -> tuple[ListedTool, ...]:
        """The server's tools that models.yaml allows. Connects if there is no connection. Cancellable.

        Raises:
            ToolServerUnreachable: it cannot be reached.
        """
        ...

    async def call(self, tool: str, arguments: JSONObject) -> ToolResult:
        """Run a tool. Whatever fails is told in the result. Cancellable at any await."""
        ...


class ToolServers(Protocol):
    """The MCP servers of models.yaml. Neither method waits."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all servers, in the order of models.yaml."""
        ...

    def find(self, name: str) -> ToolServer | None:
        """The server of this name."""
        ...


class MetricsBackend(Protocol):
    """Counts the answers of the API, and has all that is counted. Neither method blocks."""

    def answered(self, *, route: str, status: int, error: str | None, model: str | None) -> None:
        """Count an answer.

        Args:
            route: the template of its path; "" if no route was found, or the request was refused before.
            error: the code of the error that the client got.
            model: as the client wrote it; None if the request is not about one.
        """
        ...

    def exposition(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text of all metrics, in the format that the header `Accept` asks for."""
        ...


class ControlBackend(Protocol):
    """The server's status and commands to it. Models are named as in requests: by name or alias."""

    def status(self) -> ServerStatus:
        """A snapshot of the server. Cheap; does not block, and touches no model."""
        ...

    def events(self) -> AsyncGenerator[StatusEvent, None]:
        """The snapshot, then what changes. Ends at shutdown, and for a reader that is too far behind."""
        ...

    def requests(self) -> tuple[RequestStatus, ...]:
        """The requests that wait or run, the oldest first."""
        ...

    async def captions(self, limit: int, prefix: str) -> tuple[CacheStats, list[KeptCaption]]:
        """The state of the caption cache, and the `limit` captions used last whose keys begin with `prefix`.

        Args:
            prefix: of a key, or of its part after the namespace, which begins with the image's digest.
        """
        ...

    async def flush_captions(self) -> Flushed:
        """Drop all captions, in memory and in the file."""
        ...

    def downloads(self) -> tuple[DownloadStatus, ...]:
        """The downloads of models, the oldest first."""
        ...

    def download(self, download_id: str) -> DownloadStatus:
        """One download, by its id.

        Raises:
            DownloadNotFound: there is none of this id.
        """
        ...

    def start_download(self, model: str, *, revision: str | None, alone: bool) -> tuple[DownloadStatus, ...]:
        """Fetch a model by its name or hub id and, unless `alone`, its captioner, reader and draft model.

        Raises:
            ModelNotFound, InvalidRequest (nothing to fetch), ServerBusy.
        """
        ...

    def steer_download(self, download_id: str, command: DownloadCommand) -> DownloadStatus:
        """Pause, resume or cancel a download.

        Raises:
            DownloadNotFound, DownloadConflict (its state does not allow it).
        """
        ...

    async def reload(self) -> ConfigChanges:
        """Read models.yaml again and serve its models; those that are as before stay loaded.

        Raises:
            ConfigError: it cannot be used, and the running configuration stays.
        """
        ...

    def shutdown(self) -> None:
        """End the server in order, as SIGTERM does: running requests have some seconds to finish. Does not wait."""
        ...

    def cancel(self, request_id: str) -> None:
        """Cancel a request in whatever step it is. Its client gets `RequestCancelled`.

        Raises:
            RequestNotFound: there is no request with this id.
        """
        ...

    def answer_now(self, request_id: str) -> None:
        """End the thinking of a running request in all its choices, so that the answer follows. Does not wait for it.

        Raises:
            RequestNotFound: there is no request with this id.
            NotThinking: it does not think now, or its model's thinking cannot be ended.
        """
        ...

    async def load(self, model: str, *, wait: bool) -> ModelStatus:
        """Load a model. Other models are unloaded to make room, busy ones after their requests.

        Args:
            wait: return when the model is ready, not as soon as the load is requested.

        Raises:
            ModelNotFound, ModelUnavailable (it cannot be loaded, or never fits), ServerStopping.
        """
        ...

    async def unload(self, model: str, *, wait: bool) -> ModelStatus:
        """Unload a model once the requests that use it or wait for it are done.

        Raises:
            ModelNotFound, ModelPinned.
        """
        ...

    def pin(self, model: str, *, pinned: bool) -> ModelStatus:
        """Pin or unpin a model. A pinned model is never unloaded. Loads nothing.

        Raises:
            ModelNotFound.
        """
        ...

    async def select(self, model: str, *, wait: bool) -> ModelStatus:
        """Make a text model the default for requests that name none, and load it.

        Raises:
            ModelNotFound, InvalidRequest (a captioner), ModelUnavailable, ServerStopping.
        """
        ...
