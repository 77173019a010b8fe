"""Places in a script where a fake waits until the test lets it on."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import NoReturn


@dataclass
class Gate:
    """A place in a script where the backend waits until the test lets it on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def passed(self) -> None:
        self.reached.set()
        await self.opened.wait()


def raise_it(error: BaseException) -> NoReturn:
    raise error
