"""How far the pictures and files of a conversation are numbered: a request may be rewritten in several steps."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Numbered:
    """The last numbers that are taken, each kind counted from 1 through the whole conversation."""

    images: int = 0
    documents: int = 0
    videos: int = 0
