"""Has Python's cyclic garbage collector look seldom while a server starts."""

from __future__ import annotations

import gc
from typing import Final

_USUAL: Final = gc.get_threshold()
#: Objects made since the last look, then looks at the youngest before one at the older ones, and at all.
_STARTING: Final = (50_000, 20, 20)


def collect_seldom() -> None:
    """Until `collect_as_usual`. Nearly all that imports make is there to stay: looking at it 400 times takes 0.2 s."""
    gc.set_threshold(*_STARTING)


def collect_as_usual() -> None:
    """Collect garbage as often as Python does by itself. Idempotent."""
    gc.set_threshold(*_USUAL)
