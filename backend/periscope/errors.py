"""The error tree. Knows nothing of HTTP: `api/errors.py` maps each class to a status, type and code.

Two branches matter to callers: `RequestError` is the client's to mend (the message names the field, the
limit and the fix), every other `PeriscopeError` is ours.
"""

from __future__ import annotations

from enum import StrEnum


class PeriscopeError(Exception):
    """Root of everything Periscope raises on purpose.

    Attributes:
        message: one or two sentences for a person; never a traceback, a prompt or image data.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RequestError(PeriscopeError):
    """The request cannot be served as it stands; sending it again unchanged will not help.

    Attributes:
        param: path of the offending field as the client wrote it (`messages[0].content[1]`), if there is one.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequest(RequestError):
    """A field is missing, of the wrong type, out of bounds or not supported."""


class ImageRejected(RequestError):
    """The model's vision mode is `disabled`, so no image can be taken."""


class ImageInvalid(RequestError):
    """The bytes of an image cannot be taken: unreadable, unsupported format, or over a limit."""


class FileInvalid(RequestError):
    """An attached file cannot be taken.

    Attributes:
        reason: the same for the text model, in a few words, where the conversation goes on without the file.
    """

    def __init__(self, message: str, *, reason: str = "", param: str | None = None) -> None:
        super().__init__(message, param=param)
        self.reason = reason


class DocumentInvalid(FileInvalid):
    """A document cannot be taken: encrypted, broken, of an unknown format, over a limit, or not in the request."""


class VideoInvalid(FileInvalid):
    """A video cannot be taken: broken, of an unknown codec, over a limit, or the model has no captioner."""


class ImageSourceRefused(RequestError):
    """The image's address is of a kind that is never or not now fetched (`file:`, a path, `http(s):`)."""


class ImageNotFetched(RequestError):
    """The image's address may be fetched, but no image came from there: no answer, an error, or too slow."""


class ContextLengthExceeded(RequestError):
    """The prompt does not fit the model's context.

    Attributes:
        num_prompt_tokens: length of the rendered prompt, exact unless `is_lower_bound`.
        context_length: what the model takes, prompt and completion together.
        is_lower_bound: it was refused before all of it was tokenised.
    """

    def __init__(self, num_prompt_tokens: int, context_length: int, *, is_lower_bound: bool = False) -> None:
        least = "at least " if is_lower_bound else ""
        super().__init__(
            f"The prompt has {least}{num_prompt_tokens} tokens, but this model's context is {context_length} tokens, "
            "prompt and completion together. Shorten it or start a new conversation."
        )
        self.param = "messages"
        self.num_prompt_tokens = num_prompt_tokens
        self.context_length = context_length
        self.is_lower_bound = is_lower_bound


class InputTooLong(RequestError):
    """A text to embed has more tokens than the model takes, or all texts of the request more than are taken at once.

    Attributes:
        num_tokens: exact unless the text was refused before all of it was tokenised.
        limit: tokens that are taken.
    """

    def __init__(self, message: str, *, param: str, num_tokens: int, limit: int) -> None:
        super().__init__(message, param=param)
        self.num_tokens = num_tokens
        self.limit = limit


class MemoryExceeded(RequestError):
    """The prompt's KV cache cannot fit the memory there is, even with nothing else running."""

    def __init__(self, *, num_prompt_tokens: int, needed_bytes: int, available_bytes: int) -> None:
        needed_mb, available_mb = -(-needed_bytes // 2**20), available_bytes // 2**20
        super().__init__(
            f"The prompt has {num_prompt_tokens} tokens, which take about {needed_mb} MB of KV cache, but only "
            f"{available_mb} MB are left. Shorten it, unload other models, or set `memory.check_requests: "
            "false` to try all the same."
        )
        self.param = "messages"


class ModelNotFound(RequestError):
    """No configured model has this name or alias."""


class ModelNotOnDisk(RequestError):
    """The model is configured, but its files are not on this disk: somebody has to fetch them before it can answer."""


class ModelPinned(RequestError):
    """The model is pinned, so it is not unloaded."""


class RequestNotFound(RequestError):
    """No request with this id is running or waiting."""


class NotThinking(RequestError):
    """The request has no thinking that could be ended."""


class ResponseNotFound(RequestError):
    """No response of this id is stored."""


class PreviousResponseNotFound(RequestError):
    """The response that a request goes on from is not stored, or one before it is not."""


class DownloadNotFound(RequestError):
    """There is no download of this id."""


class DownloadConflict(RequestError):
    """The download is in a state in which it cannot do what was asked."""


class AuthenticationFailed(RequestError):
    """The API key is missing or wrong."""


class HostRefused(RequestError):
    """The Host header is not one this server answers to (guards against DNS rebinding)."""


class RouteNotFound(RequestError):
    """No route has this path."""


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""


class BodyTooLarge(RequestError):
    """The request body is over `server.limits.max_body_bytes`."""


class ServerBusy(PeriscopeError):
    """No room for another request now; trying again later helps.

    Attributes:
        retry_after_s: seconds after which a new try is reasonable.
    """

    def __init__(self, message: str, *, retry_after_s: int = 1) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ServerStopping(ServerBusy):
    """The server is draining and takes no new requests."""


class ModelUnavailable(PeriscopeError):
    """A configured model cannot be used now: it failed to load or its worker ended."""


class CaptionerUnavailable(ModelUnavailable):
    """The captioner cannot be used and the model's `on_error` asks for an error instead of a marker."""


class ToolServerUnreachable(PeriscopeError):
    """The MCP server whose tools a request needs cannot be reached."""


class ModelLoadError(PeriscopeError):
    """A model could not be loaded; the message says why and what to do, in one sentence each."""


class FilesMissing(ModelLoadError):
    """A model's files are not on this disk, or not all of them; trying again does not help before they are.

    Attributes:
        problem: what is missing, in one sentence.
        pulled: what `periscope pull` is to be asked for; None if the model is a folder of the user's own.
    """

    def __init__(self, problem: str, *, pulled: str | None = None) -> None:
        super().__init__(problem if pulled is None else f"{problem} Fetch it with `periscope pull {pulled}`.")
        self.problem = problem
        self.pulled = pulled

    def called(self, name: str) -> FilesMissing:
        """The same, where the model has this name in models.yaml."""
        return FilesMissing(self.problem, pulled=None if self.pulled is None else name)


class HubError(PeriscopeError):
    """The hub, or its cache on this disk, could not do what it was asked; the message says why and what to do."""


class CaptionFailed(PeriscopeError):
    """One image could not be captioned.

    Attributes:
        reason: short lower-case phrase that goes into the marker block.
        detail: the same in more words for the person who runs the server; no model reads it. None = there is no more.
    """

    def __init__(self, reason: str, *, detail: str | None = None) -> None:
        super().__init__(f"Captioning failed: {reason}.")
        self.reason = reason
        self.detail = detail


class CaptionEmpty(CaptionFailed):
    """The model wrote nothing about an image. As a caption that is a failure; to a reader it means no text."""


class GenerationFailed(PeriscopeError):
    """The model or the backend raised while this request ran; other requests are unaffected."""


class RequestCancelled(PeriscopeError):
    """Somebody cancelled the request through the control plane."""


class ReaderTooSlow(GenerationFailed):
    """The reader of a stream fell too far behind, so its row was given up instead of stalling the batch."""


class EngineClosed(PeriscopeError):
    """The engine was closed, or its worker has ended, while or before this request ran."""


class RemoteError(PeriscopeError):
    """Another server, which we are a client of, did not do what it was asked."""


class ConnectionFault(StrEnum):
    """Why no connection could be made: nobody listens, the name has no address, the certificate or TLS, anything else.

    Only the first may pass by itself within seconds, while a server starts.
    """

    REFUSED = "refused"
    NAME = "name"
    TLS = "tls"
    OTHER = "other"


class RemoteUnreachable(RemoteError):
    """No connection to the other server could be made.

    Attributes:
        fault: why.
    """

    def __init__(self, message: str, *, fault: ConnectionFault = ConnectionFault.OTHER) -> None:
        super().__init__(message)
        self.fault = fault


class RemoteTimedOut(RemoteError):
    """The other server took longer than it was given: to accept the connection, to say anything, or in all."""


class RemoteRefused(RemoteError):
    """The other server answered with an error.

    Attributes:
        said: the server's own message; None when it gave none.
        code: the server's own code for it, if it gave one.
        status: HTTP status of the answer; None when the error came inside a stream.
        retry_after_s: seconds after which the server asks to be tried again, if it does.
    """

    def __init__(
        self,
        message: str,
        *,
        said: str | None = None,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.said = said
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class RemoteAnswerBroken(RemoteError):
    """The other server's answer broke off, or is not what its protocol says.

    Attributes:
        has_begun: the answer had begun. If not, the connection broke before its status line.
    """

    def __init__(self, message: str, *, has_begun: bool = True) -> None:
        super().__init__(message)
        self.has_begun = has_begun


class ConfigError(PeriscopeError):
    """models.yaml, the environment or a flag holds something that cannot be used.

    Attributes:
        problems: one line each, with file and line where known, and the nearest valid key.
    """

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
