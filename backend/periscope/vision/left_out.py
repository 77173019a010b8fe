"""LeftOutImages decides which images of a conversation are not captioned, and decides the same in every turn.

Event loop only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from typing import Final

from periscope.captions.caption import Caption
from periscope.captions.kept import KeptCaptions

#: The namespace of the decisions in the caption cache.
_NAMESPACE: Final = "left-out"


class LeftOutImages:
    """Decides about conversations that had more new images than are captioned for one request.

    A conversation is recognised by the sequence of its images: the next turn has the same images and maybe more. The
    images that were left out before are left out again, although there might be room for them now, so that the prompt
    of the last turn stays a prefix of the next one. In other conversations they count as new.

    The decisions are kept in the caption cache, so that they survive restarts and are flushed as captions are. The
    least recently used are dropped first; a dropped decision is made again.
    """

    def __init__(self, kept: KeptCaptions) -> None:
        self._kept = kept

    def choose(self, keys: Sequence[str], missing: Collection[str], max_made: int) -> frozenset[int]:
        """Indices into `keys` of the images to leave out: those left out before, and all new ones but the newest.

        Args:
            keys: the cache keys of the conversation's images, in order.
            missing: keys whose captions have to be made. Captions that exist cost nothing and are always used.
            max_made: how many captions may be made for this request.
        """
        prefixes = _prefix_digests(keys, max_made)
        before = self._left_out_before(prefixes)
        new: set[int] = set()
        made: set[str] = set()
        for place in range(len(keys) - 1, -1, -1):
            key = keys[place]
            if place in before or key not in missing or key in made:
                continue
            if len(made) < max_made:
                made.add(key)
            else:
                new.add(place)
        left_out = before | new
        if left_out:
            self._remember(prefixes[-1], left_out)
        return left_out

    def _left_out_before(self, prefixes: Sequence[str]) -> frozenset[int]:
        """The decision about the longest prefix of the conversation that has one."""
        for conversation in reversed(prefixes):
            if (known := self._kept.take(conversation)) is not None:
                return frozenset(int(place) for place in known.text.split() if place.isdecimal())
        return frozenset()

    def _remember(self, conversation: str, left_out: frozenset[int]) -> None:
        places = " ".join(map(str, sorted(left_out)))
        known = self._kept.take(conversation)
        if known is None or known.text != places:
            self._kept.keep(conversation, Caption(places, num_tokens=0))


def _prefix_digests(keys: Sequence[str], max_made: int) -> list[str]:
    """One cache key for each non-empty prefix of `keys`, the shortest prefix first."""
    digest = hashlib.sha256(str(max_made).encode())
    digests = []
    for key in keys:
        digest.update(key.encode() + b"\n")
        digests.append(f"{_NAMESPACE}/{digest.hexdigest()}")
    return digests
