"""Two answers at once, the first one word by word: python examples/stream.py."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

from periscope import GenerationParams, Periscope, TextDelta, Waiting


async def answer(periscope: Periscope, question: str, show: Callable[[str], object]) -> None:
    params = GenerationParams(max_tokens=64)
    async with aclosing(periscope.stream(question, params=params)) as events:  # leaving the block ends the request
        async for event in events:
            if isinstance(event, TextDelta):
                show(event.text)
            elif isinstance(event, Waiting):
                show(f"[{event.status} {event.model}] ")


async def main() -> None:
    kept: list[str] = []
    async with Periscope() as periscope, asyncio.TaskGroup() as tasks:
        tasks.create_task(answer(periscope, "Hello!", lambda text: print(text, end="", flush=True)))
        tasks.create_task(answer(periscope, "Who are you?", kept.append))
    print()
    print("".join(kept))


asyncio.run(main())
