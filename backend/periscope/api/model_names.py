"""What a model is called in an answer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.core import is_default_name

if TYPE_CHECKING:
    from periscope.core import ModelCard


def name_of(asked: str, cards: Sequence[ModelCard]) -> str:
    """The model name in an answer: the one in the request, or the default model's if there is none."""
    return cards[0].name if cards and is_default_name(asked) else asked
