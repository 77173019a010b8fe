"""Code that is written for OpenAI's SDK, without a server: python examples/openai_sdk.py [FILE]."""

from __future__ import annotations

import argparse
import asyncio
import base64
from pathlib import Path
from typing import Any

from periscope import OpenAIAdapter, Periscope


def message(question: str, file: str | None) -> dict[str, Any]:
    if file is None:
        return {"role": "user", "content": question}
    url = "data:image/png;base64," + base64.b64encode(Path(file).read_bytes()).decode()
    parts = [{"type": "text", "text": question}, {"type": "image_url", "image_url": {"url": url}}]
    return {"role": "user", "content": parts}


async def main(file: str | None) -> None:
    async with Periscope() as periscope:
        adapter = OpenAIAdapter(periscope)
        asked: Any = {"model": "default", "messages": [message("Hello!", file)]}
        completion = await adapter.chat_completion(**asked)  # an openai.types.chat.ChatCompletion
        print(completion.choices[0].message.content)
        async for chunk in adapter.chat_completion_stream(**asked, max_tokens=8):
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        print()


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("file", nargs="?", help="a picture; without it, the question is a text")
asyncio.run(main(arguments.parse_args().file))
