"""Two answers at once, word by word: python examples/stream.py."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from periscope import GenerationParams, Periscope, TextDelta, Waiting


async def answer(periscope: Periscope, question: str) -> None:
    params = GenerationParams(max_tokens=64)
    async with aclosing(periscope.stream(question, params=params)) as events:  # leaving the block ends the request
        async for event in events:
            if isinstance(event, TextDelta):
                print(event.text, end="", flush=True)
            elif isinstance(event, Waiting):
                print(f"[{event.status} {event.model}]")
    print()


async def main() -> None:
    async with Periscope() as periscope:
        await asyncio.gather(answer(periscope, "Hello!"), answer(periscope, "Who are you?"))


asyncio.run(main())
