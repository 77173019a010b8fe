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

#: Seconds before the second try. Each further wait doubles, plus a random part, so that the images of one request are
#: not sent again all at once.
_FIRST_WAIT_S: Final = 0.2
_MAX_WAIT_S: Final = 5.0
_JITTER_S: Final = 0.3
#: `Retry-After` for our client if a busy server names no time.
_RETRY_AFTER_S: Final = 5
_BUSY, _SHORTLY_UNFIT = 429, (502, 503, 504)

#: Called after each image with its error; None = the server described it.
Report: TypeAlias = Callable[[RemoteError | None], None]


class RemoteModel:
    """Owns the places at one server: it has `max_concurrent` images at most; others wait in order."""

    def __init__(self, server: RemoteServer, client: OpenAIClient, encoding: Executor, report: Report) -> None:
        self._server = server
        self._client = client
        self._encoding = encoding
        self._report = report
        self._places = asyncio.Semaphore(server.max_concurrent)

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None]
    ) -> tuple[str, int]:
        """The server's text about one image, which may be empty, and its number of tokens, if the server tells it.

        Raises:
            ServerBusy: the server has too many requests, even after all tries.
            CaptionFailed: anything else. The server's answer is in the log.
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
        """Ask, and try again where that can help. It has no time limit: the caller cancels when its time is over."""
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
    """Send one request, streamed by setting. Returns the text and its number of tokens, 0 if unknown."""
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
    """Pure: a chat completion request about one image. `extra_body` wins over all but model and messages."""
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
    """Pure: whether another try may succeed soon, or after how many seconds.

    1 The server does not listen, as while it restarts, or it closed the connection before it answered.
    2 It is busy or temporarily unavailable, and names no time or one that is worth waiting.
    A timeout is final: the time is spent, and the server may still be working on the first try.
    """
    match error:
        case RemoteUnreachable(fault=ConnectionFault.REFUSED) | RemoteAnswerBroken(has_begun=False):  # 1
            return True
        case RemoteRefused(status=status, retry_after_s=after_s) if status in (_BUSY, *_SHORTLY_UNFIT):  # 2
            return True if after_s is None else after_s <= _MAX_WAIT_S and after_s
        case _:
            return False


def _outcome_of(error: RemoteError, server: RemoteServer) -> CaptionFailed | ServerBusy:
    """Cases: 1 busy, so our client is to retry; 2 timed out; 3 the server as a whole fails; 4 only this image fails."""
    match error:
        case RemoteRefused(status=status, retry_after_s=after_s) if is_busy(error):  # 1
            return ServerBusy(
                f"The server of captioner {server.name} is busy (status {status}). Try again soon.",
                retry_after_s=_RETRY_AFTER_S if after_s is None else max(1, math.ceil(after_s)),
            )
        case RemoteTimedOut():  # 2
            return CaptionFailed("the captioner timed out", detail=error.message)
        case _ if is_of_the_server(error, server):  # 3
            return CaptionFailed("the captioner is not available")
        case _:  # 4
            return CaptionFailed("the captioner failed", detail=error.message)


def is_busy(error: RemoteError) -> bool:
    """Pure: whether the server works but has too many requests. A 503 without `Retry-After` means that it is broken."""
    if not isinstance(error, RemoteRefused):
        return False
    return error.status == _BUSY or (error.status in _SHORTLY_UNFIT and error.retry_after_s is not None)
