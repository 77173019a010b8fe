"""The keys under which texts about pictures are kept. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Final

#: Of the digest of the facts: 128 bits tell all texts about one picture apart.
_NUM_FACT_DIGITS: Final = 32


def cache_key(namespace: str, content_sha256: str, facts: Sequence[str | int]) -> str:
    """Pure, the same in every process: `namespace/digest of what is described/digest of everything else`.

    Args:
        namespace: the kind of text, such as `caption`. Kinds have nothing in common but the cache that they share.
        content_sha256: hex digest of the picture's bytes. It stands in the key as it is, so that a person who has the
            file finds what is kept about it.
        facts: all else that the text depends on: who made it, in which revision, asked what, within which limits.
    """
    digest = hashlib.sha256(json.dumps(list(facts)).encode()).hexdigest()
    return f"{namespace}/{content_sha256}/{digest[:_NUM_FACT_DIGITS]}"
