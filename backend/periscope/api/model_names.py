"""What a model is called in an answer. Pure."""

from __future__ import annotations

from periscope.core import is_default_name


def name_of(asked: str, default_model: str) -> str:
    """The model name in an answer: the one in the request, or the default model's if there is none."""
    return default_model if is_default_name(asked) else asked
