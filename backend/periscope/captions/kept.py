"""KeptCaptions: all captions in memory, the least recently used one first. Event loop only, so it needs no locks."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from periscope.captions.caption import Caption

#: The bound where nobody sets one.
DEFAULT_MAX_BYTES: Final = 64 * 1024 * 1024
#: Rough memory of an entry beside its texts: objects and links.
_ENTRY_OVERHEAD_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class KeptCaption:
    """One caption with its key. Times are seconds since 1970: the order of use must hold across restarts."""

    key: str
    caption: Caption
    created_at: float
    used_at: float

    @property
    def num_bytes(self) -> int:
        """What it counts towards the bound, in memory as in the file."""
        text = self.caption.text
        num_text_bytes = len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))
        return num_bytes_of(len(self.key), num_text_bytes)


def num_bytes_of(num_key_bytes: int, num_text_bytes: int) -> int:
    """Pure: what an entry counts towards the bound."""
    return num_key_bytes + num_text_bytes + _ENTRY_OVERHEAD_BYTES


class Journal(Protocol):
    """Is told every change of the captions in memory, in order. Its methods return at once and never raise."""

    def put(self, kept: KeptCaption) -> None:
        """A caption is new under its key."""
        ...

    def touch(self, key: str, used_at: float) -> None:
        """A caption was used."""
        ...

    def drop(self, key: str) -> None:
        """A caption was evicted."""
        ...

    def clear(self) -> None:
        """All captions were dropped."""
        ...


class KeptCaptions:
    """Owns the captions in memory, bounded by their bytes, and tells the journal each change."""

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        journal: Journal | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_bytes = max_bytes
        self._journal = journal
        self._clock = clock
        self._entries: OrderedDict[str, KeptCaption] = OrderedDict()
        self._num_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    @property
    def num_bytes(self) -> int:
        """Held now; never more than `max_bytes`."""
        return self._num_bytes

    @property
    def max_bytes(self) -> int:
        """How many bytes it may hold, keys and captions together."""
        return self._max_bytes

    def take(self, key: str) -> Caption | None:
        """The caption under this key, which is the most recently used one from now on; None if there is none."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        used = self._entries[key] = replace(entry, used_at=self._clock())
        self._entries.move_to_end(key)
        if self._journal is not None:
            self._journal.touch(key, used.used_at)
        return used.caption

    def keep(self, key: str, caption: Caption) -> None:
        """Keep a caption, instead of the one that is there; one that alone exceeds the bound is not kept."""
        now = self._clock()
        entry = KeptCaption(key, caption, created_at=now, used_at=now)
        self._remove(key)
        if entry.num_bytes > self._max_bytes:
            if self._journal is not None:
                self._journal.drop(key)
            return
        self._entries[key] = entry
        self._num_bytes += entry.num_bytes
        if self._journal is not None:
            self._journal.put(entry)
        self._evict()

    def merge_older(self, loaded: Iterable[KeptCaption]) -> None:
        """Add what an earlier process kept, as less recently used than all that is here. What is here wins.

        Args:
            loaded: the most recently used one first.
        """
        for entry in loaded:
            if entry.key not in self._entries:
                self._entries[entry.key] = entry
                self._entries.move_to_end(entry.key, last=False)
                self._num_bytes += entry.num_bytes
        self._evict()

    def clear(self) -> int:
        """Drop all of them. Returns how many there were."""
        num_entries = len(self._entries)
        self._entries.clear()
        self._num_bytes = 0
        if self._journal is not None:
            self._journal.clear()
        return num_entries

    def recent(self, limit: int, prefix: str = "") -> list[KeptCaption]:
        """The captions whose keys, or the parts behind the namespace, start so; the most recently used first."""
        return most_recent(reversed(self._entries.values()), limit, prefix)

    def _remove(self, key: str) -> None:
        if (entry := self._entries.pop(key, None)) is not None:
            self._num_bytes -= entry.num_bytes

    def _evict(self) -> None:
        while self._num_bytes > self._max_bytes:
            key = next(iter(self._entries))
            self._remove(key)
            if self._journal is not None:
                self._journal.drop(key)


def most_recent(entries: Iterable[KeptCaption], limit: int, prefix: str) -> list[KeptCaption]:
    """Pure: the first `limit` entries whose key, or the part of it behind its namespace, begins with `prefix`."""
    found: list[KeptCaption] = []
    for entry in entries:
        if len(found) >= limit:
            break
        if entry.key.startswith(prefix) or entry.key.partition("/")[2].startswith(prefix):
            found.append(entry)
    return found
