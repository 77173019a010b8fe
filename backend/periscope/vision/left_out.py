"""LeftOutImages: which images of a conversation are not described, the same ones in every turn. Event loop only."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

#: Conversations that are remembered; only those with images left out need to be.
_MAX_CONVERSATIONS: Final = 1024


class LeftOutImages:
    """Owns what was decided about conversations with more new images than are described at once.

    A conversation is known by its images in their order. In the next turn it has the same ones and maybe more, so the
    images left out before are found again and stay marked: the prompt goes on byte by byte, though there might be time
    to describe them now. In another conversation, of other images, they are new like any other. Oldest use goes first;
    what is forgotten, as after a restart, is decided anew.
    """

    def __init__(self, *, max_conversations: int = _MAX_CONVERSATIONS) -> None:
        self._max_conversations = max_conversations
        self._decided: OrderedDict[bytes, frozenset[int]] = OrderedDict()

    def choose(self, keys: Sequence[str], missing: Collection[str], max_made: int) -> frozenset[int]:
        """The places of the images that are left out: those that were before, and of the rest all but the newest.

        Args:
            keys: of the conversation's images, in order.
            missing: the keys whose captions have to be made; what is known costs nothing and always stands.
            max_made: captions that may be made.
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

    def _left_out_before(self, prefixes: Sequence[bytes]) -> frozenset[int]:
        """For the longest beginning of the conversation that was decided about."""
        known = next((each for each in reversed(prefixes) if each in self._decided), None)
        return frozenset() if known is None else self._decided[known]

    def _remember(self, conversation: bytes, left_out: frozenset[int]) -> None:
        self._decided[conversation] = left_out
        self._decided.move_to_end(conversation)
        while len(self._decided) > self._max_conversations:
            self._decided.popitem(last=False)


def _prefix_digests(keys: Sequence[str], max_made: int) -> list[bytes]:
    """A digest of the images up to each one of them, that one included."""
    digest = hashlib.sha256(str(max_made).encode())
    digests = []
    for key in keys:
        digest.update(key.encode() + b"\n")
        digests.append(digest.digest())
    return digests
