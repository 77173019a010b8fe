"""OpenAIAdapter: chat completions in the official SDK's own types, without a server.

It decodes and encodes as `/v1/chat/completions` does. The SDK is imported when an adapter is made.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from periscope.api.custom_tools import as_custom_call
from periscope.api.errors import facts_of
from periscope.api.feed import EventFeed, collect, until_finished
from periscope.api.fields import log_unused
from periscope.api.model_names import name_of
from periscope.api.openai.chat import ChatCall, decode
from periscope.api.openai.chat_reply import chat_reply
from periscope.api.openai.encode import ChunkEncoder, encode_completion
from periscope.api.openai.errors import encode_error
from periscope.api.settings import ApiSettings
from periscope.core import Finished, GenerationRequest, JSONObject, OutputEvent, is_default_name, new_id
from periscope.errors import FileInvalid, ImageRejected, PeriscopeError
from periscope.library.embedded import Periscope
from periscope.library.sdk_params import SDKCall, sdk_call
from periscope.serving.generation import LocalGenerator

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    from periscope.engine import InferenceEngine


class ChatCompletionError(PeriscopeError):
    """A chat completion failed. Has what the SDK's `APIStatusError` would have; `__cause__` is Periscope's own error.

    Attributes:
        status_code: of the server's answer: 400 for a field that cannot be used, 503 for a model that is busy.
        type: whose fault it is: `invalid_request_error` or `server_error`.
        code: the kind of error, such as `image_input_unsupported`.
        param: the field (`messages[0].content[1]`); None if it is none.
        body: the error object that the server would send.
    """

    def __init__(self, error: PeriscopeError, request_id: str) -> None:
        super().__init__(error.message)
        facts = facts_of(error, request_id)
        self.status_code = facts.row.status
        self.type = facts.row.type
        self.code = facts.row.code
        self.param = facts.param
        self.body: JSONObject = encode_error(facts)["error"]


class OpenAIAdapter:
    """Takes what the SDK's `chat.completions.create` takes, and gives its types. On one event loop.

    Over a `Periscope`, `model` names one of its models, and pictures are described or shown as configured. A bare
    `InferenceEngine` is its only model, by whatever name it is asked for, and takes texts alone.

    Args:
        source: stays its owner's, who closes it.

    Raises:
        ImportError: the SDK is not installed.
    """

    def __init__(self, source: InferenceEngine | Periscope) -> None:
        self._completion, self._chunk = _sdk_types()
        self._source = source if isinstance(source, Periscope) else LocalGenerator.over(source)

    async def chat_completion(self, **params: Any) -> ChatCompletion:
        """The whole answer. Cancelling the task ends its work.

        Args:
            params: those of `create`, `extra_body` and `timeout` (in seconds) too.

        Raises:
            ChatCompletionError: as the server would refuse it, or failed.
            TimeoutError: it took longer than `timeout`; its work has ended.
        """
        request_id = new_id("chatcmpl-")
        with _as_answers(request_id):
            asked = sdk_call(params, is_stream=False)
            timeout_s = asked.timeout_s
            call = await _decoded(asked, request_id)
            reply = chat_reply(call, self._name(call.request.model), ApiSettings())
            events = self._events(call)
            del call, asked, params  # they hold the images, which are let go once they are captioned
            async with asyncio.timeout(timeout_s):
                collected = await collect(events)
        return self._completion.model_construct(**encode_completion(collected, reply))

    async def chat_completion_stream(self, **params: Any) -> AsyncGenerator[ChatCompletionChunk, None]:
        """The chunks of the answer. Closing it (`contextlib.aclosing`) ends its work.

        Args:
            params: as for `chat_completion`; `timeout` is the longest silence between two chunks.

        Raises:
            ChatCompletionError, TimeoutError: as `chat_completion`, when it is iterated over; also after chunks.
        """
        request_id = new_id("chatcmpl-")
        with _as_answers(request_id):
            asked = sdk_call(params, is_stream=True)
            timeout_s = asked.timeout_s
            call = await _decoded(asked, request_id)
            encoder = ChunkEncoder(chat_reply(call, self._name(call.request.model), ApiSettings()))
            events = self._events(call)
            del call, asked, params
            async with EventFeed(until_finished(events)) as feed:
                is_opened = False
                while True:
                    event = await feed.next(timeout_s)
                    if event is None:
                        raise TimeoutError(f"Nothing came for {timeout_s} s.")
                    frames = (b"" if is_opened else encoder.opening()) + encoder.event(event)
                    is_opened = True
                    for chunk in _chunks(frames):
                        yield self._chunk.model_construct(**chunk)
                    if isinstance(event, Finished):
                        return

    def _name(self, asked: str) -> str:
        """The model's name in the answer."""
        if isinstance(self._source, Periscope):
            return name_of(asked, self._source.runtime.service.default_model)
        return self._source.model_info.name if is_default_name(asked) else asked

    def _events(self, call: ChatCall) -> AsyncGenerator[OutputEvent, None]:
        source = self._source
        if isinstance(source, Periscope):
            events = source.runtime.service.stream(call.request)
        else:
            _refuse_pictures(call.request)
            events = source.stream(call.request)
        return events if call.answers_as is None else as_custom_call(events, call.answers_as)


async def _decoded(asked: SDKCall, request_id: str) -> ChatCall:
    call = await asyncio.to_thread(decode, asked.body, request_id)
    log_unused((*call.unused, *asked.unused), request_id)
    return call


def _refuse_pictures(request: GenerationRequest) -> None:
    for message in request.messages:
        if message.images:
            raise ImageRejected(
                "An engine alone takes no images. Make the adapter of a Periscope, whose models have captioners, or "
                "leave the images out.",
                param=message.images[0].param,
            )
        if message.files:
            raise FileInvalid(
                "An engine alone takes no files. Make the adapter of a Periscope, or send what they say as text.",
                param=message.files[0].param,
            )


def _chunks(frames: bytes) -> Iterator[JSONObject]:
    """The objects of server-sent events: chunks are encoded for the wire and for programs by the same code."""
    for frame in frames.split(b"\n\n"):
        data = frame.removeprefix(b"data: ")
        if data.startswith(b"{"):
            yield json.loads(data)


@contextmanager
def _as_answers(request_id: str) -> Iterator[None]:
    try:
        yield
    except PeriscopeError as error:
        raise ChatCompletionError(error, request_id) from error


def _sdk_types() -> tuple[type[ChatCompletion], type[ChatCompletionChunk]]:
    try:
        from openai.types.chat import ChatCompletion, ChatCompletionChunk
    except ImportError as error:
        raise ImportError("OpenAIAdapter needs OpenAI's SDK: pip install 'mlx-periscope[openai]'.") from error
    return ChatCompletion, ChatCompletionChunk
