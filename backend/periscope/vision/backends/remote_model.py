"""RemoteModel has single images described by a model on an OpenAI-compatible server. Event loop only."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import stamina

from periscope.core import Finished, Image, TextDelta
from periscope.errors import (
    CaptionFailed,
    ConnectionFault,
    RemoteAnswerBroken,
    RemoteError,
    RemoteRefused,
    RemoteTimedOut,
    RemoteUnreachable,
    ServerBusy,
)
from periscope.vision.backends.advice import is_of_the_server
from periscope.vision.images.encode import png_data_url

if TYPE_CHECKING:
    from periscope.remote import OpenAIClient
    from periscope.vision.backends.remote_server import RemoteServer

logger = logging.getLogger(__name__)

#: Before the first further try; each next one waits twice as long, and some of that again at random, so that the images
#: of one request do not come back all at once.
_FIRST_WAIT_S: Final = 0.2
_MAX_WAIT_S: Final = 5.0
_JITTER_S: Final = 0.3
#: A busy server that names no time is tried again by our client after this.
_RETRY_AFTER_S: Final = 5
_BUSY, _SHORTLY_UNFIT = 429, (502, 503, 504)

#: Told how each image went: None = the server described it.
Report: TypeAlias = Callable[[RemoteError | None], None]


class RemoteModel:
    """Owns the places at one server: no more than `max_concurrent` images are with it, the others wait in order."""

    def __init__(self, server: RemoteServer, client: OpenAIClient, encoding: Executor, report: Report) -> None:
        self._server = server
        self._client = client
        self._encoding = encoding
        self._report = report
        self._places = asyncio.Semaphore(server.max_concurrent)

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None]
    ) -> tuple[str, int]:
        """The server's words about one image, which may be none, and how many tokens they took if it says so.

        Raises:
            ServerBusy: the server has too many requests, also after the further tries.
            CaptionFailed: anything else. What the server said is in the log.
        """
        async with self._places:
            on_start()
            url = await asyncio.get_running_loop().run_in_executor(self._encoding, png_data_url, image)
            try:
                told = await self._ask(caption_body(self._server, url, prompt, max_tokens))
            except RemoteError as error:
                self._report(error)
                raise _outcome_of(error, self._server) from None
            self._report(None)
            return told

    async def _ask(self, body: dict[str, Any]) -> tuple[str, int]:
        """Again, if another try can help. There is no time limit here: the caller cancels when its time is over."""
        tries = stamina.retry_context(
            on=another_try,
            attempts=1 + self._server.num_retries,
            timeout=None,
            wait_initial=_FIRST_WAIT_S,
            wait_max=_MAX_WAIT_S,
            wait_jitter=_JITTER_S,
        )
        async for attempt in tries:
            with attempt:
                try:
                    return await ask(self._client, self._server, body)
                except RemoteError as error:
                    logger.warning("captioner %s, try %d: %s", self._server.name, attempt.num, error.message)
                    raise
        raise AssertionError  # the last try has returned or raised


async def ask(client: OpenAIClient, server: RemoteServer, body: dict[str, Any]) -> tuple[str, int]:
    """One request, streamed or not as the server is set: the text and its number of tokens, 0 if that is not told."""
    if not server.is_streamed:
        answer = await client.chat(body)
        return answer.choices[0].text, answer.usage.num_completion_tokens
    text, num_tokens = [], 0
    async with aclosing(client.stream_chat(body)) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text.append(event.text)
            elif isinstance(event, Finished):
                num_tokens = event.usage.num_completion_tokens
    return "".join(text), num_tokens


def caption_body(server: RemoteServer, url: str, prompt: str, max_tokens: int) -> dict[str, Any]:
    """Pure: a chat completion request about one picture. The entry's `extra_body` wins, but for model and messages."""
    return {
        "temperature": 0,
        "max_tokens": max_tokens,
        **server.dialect.extra_body,
        **server.extra_body,
        "model": server.model,
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": prompt}],
            }
        ],
    }


def another_try(error: Exception) -> bool | float:
    """Pure: whether the same request may be answered if it is sent again soon, or after how many seconds.

    1 Nobody listens, which is so while a server starts anew; or it closed the connection before it said anything.
    2 It is busy or shortly unfit, and names a time that is worth waiting, or none.
    A time-out is final: that time is gone, and the server may still be working on the first try.
    """
    match error:
        case RemoteUnreachable(fault=ConnectionFault.REFUSED) | RemoteAnswerBroken(has_begun=False):  # 1
            return True
        case RemoteRefused(status=status, retry_after_s=after_s) if status in (_BUSY, *_SHORTLY_UNFIT):  # 2
            return True if after_s is None else after_s <= _MAX_WAIT_S and after_s
        case _:
            return False


def _outcome_of(error: RemoteError, server: RemoteServer) -> CaptionFailed | ServerBusy:
    """1 busy: our client is asked to come again; 2 out of time; 3 the server as a whole is of no use; 4 this image."""
    match error:
        case RemoteRefused(status=status, retry_after_s=after_s) if is_busy(error):  # 1
            return ServerBusy(
                f"The server of captioner {server.name} is busy (status {status}). Try again soon.",
                retry_after_s=_RETRY_AFTER_S if after_s is None else max(1, math.ceil(after_s)),
            )
        case RemoteTimedOut():  # 2
            return CaptionFailed("the captioner timed out")
        case _ if is_of_the_server(error, server):  # 3
            return CaptionFailed("the captioner is not available")
        case _:  # 4
            return CaptionFailed("the captioner failed")


def is_busy(error: RemoteError) -> bool:
    """Pure: the server works and has too much to do. A 503 is that only with a time to come back: else it is broken."""
    if not isinstance(error, RemoteRefused):
        return False
    return error.status == _BUSY or (error.status in _SHORTLY_UNFIT and error.retry_after_s is not None)
