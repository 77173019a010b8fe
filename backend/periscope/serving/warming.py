"""System prompts that are computed before anybody asks, so that the first conversation with one starts at once.

Event loop only. It is work of nobody: it waits until a model has no request, and gives way to the first that comes.
What was computed by then is kept like that of any request, so that it goes on from there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from periscope.core import GenerationParams, Message, Role, TextPart
from periscope.errors import EngineClosed, PeriscopeError

if TYPE_CHECKING:
    from periscope.engine import GenerationStats, GenerationStream, InferenceEngine

logger = logging.getLogger(__name__)

#: How often it looks whether the model has requests.
_POLL_S = 0.1
#: What users may say first, each with another first token: the common prefix of all prompts ends before it.
_FIRST_WORDS = ("a", " 1", "\n-", "<")


async def warm(engine: InferenceEngine, name: str, read: Callable[[], Sequence[str]], poll_s: float = _POLL_S) -> None:
    """Have the prefixes computed, or read from disk, that prompts with these system messages share. Never raises.

    Ends when all are in the prompt cache, or the engine is closed.

    Args:
        read: gives the system messages. May block.
    """
    try:
        texts = await asyncio.to_thread(read)
    except (OSError, ValueError) as error:
        logger.warning("model %s: a file of `warm` cannot be read: %s", name, error)
        return
    for number, text in enumerate(texts, start=1):
        try:
            stats = await _compute(engine, await _shared_prefix(engine, text), poll_s)
        except EngineClosed:
            return
        except PeriscopeError as error:
            logger.warning("model %s: warm[%d] is not computed: %s", name, number - 1, error)
        else:
            computed = stats.num_prompt_tokens - stats.num_cached_tokens
            logger.info("model %s: warm[%d] is ready, %d tokens were computed", name, number - 1, computed)


async def _shared_prefix(engine: InferenceEngine, text: str) -> list[int]:
    """The tokens of the prefix that all prompts with this system message share."""
    system = Message(Role.SYSTEM, (TextPart(text),))
    chats = [[system, Message(Role.USER, (TextPart(words),))] for words in _FIRST_WORDS]
    rendered = [(await engine.render(chat)).token_ids for chat in chats]
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*rendered, strict=False))]


async def _compute(engine: InferenceEngine, tokens: list[int], poll_s: float) -> GenerationStats:
    """Run the prompt while the model has nothing else to do, as often as it takes."""
    while True:
        while engine.num_rows:  # noqa: ASYNC110 - the worker's thread tells nobody when it is idle
            await asyncio.sleep(poll_s)
        async with engine.generate_stream(tokens, GenerationParams(temperature=0.0, max_tokens=1)) as stream:
            ended = asyncio.ensure_future(_ended(stream))
            try:
                while not (await asyncio.wait({ended}, timeout=poll_s))[0]:
                    if engine.num_rows > 1:
                        stream.cancel()
                if await ended:
                    return stream.stats
            finally:
                ended.cancel()


async def _ended(stream: GenerationStream) -> bool:
    """Whether the stream has given its token; False if it was cancelled before."""
    return bool([chunk async for chunk in stream])
