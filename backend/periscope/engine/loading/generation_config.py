"""What a model's author says in generation_config.json: how it is sampled by default, and which tokens end it.

Read once, when a model is loaded or shown. A file that is missing or broken says nothing: it never fails a load.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any, Final

from periscope.core import GenerationParams
from periscope.engine.loading.kv_shape import text_config_of
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from periscope.core import JSONObject

logger = logging.getLogger(__name__)

GENERATION_CONFIG: Final = "generation_config.json"
_SAMPLING: Final = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def authors_sampling(folder: Path) -> GenerationParams:
    """The sampling of the model's author; `do_sample: false` is a temperature of 0. What is not usable is left out."""
    told = _read(folder / GENERATION_CONFIG)
    if told.get("do_sample") is False:
        return GenerationParams(temperature=0.0)
    usable: dict[str, Any] = {}
    for name in _SAMPLING:
        if (value := told.get(name)) is None:
            continue
        if (problem := _problem(name, value)) is None:
            usable[name] = value
        else:
            logger.warning("%s of %s is not used: %s", GENERATION_CONFIG, folder.name, problem)
    return GenerationParams(**usable)


def _problem(name: str, value: object) -> str | None:
    """Why it is no value of this param; None if it is one."""
    is_number = isinstance(value, int) or (isinstance(value, float) and name != "top_k")
    if not is_number or isinstance(value, bool):
        return f"`{name}` is no number."
    try:
        GenerationParams(**{name: value})  # type: ignore[arg-type]
    except InvalidRequest as error:
        return error.message
    return None


def end_token_ids(folder: Path, *, below: int) -> frozenset[int]:
    """All tokens that end a completion, by generation_config.json and config.json together, as far as they exist.

    mlx-lm takes those of the first file alone. A model that was tuned for chats often has another end in each: one for
    turns, and one for texts.

    Args:
        below: the size of the vocabulary.
    """
    config = _read(folder / "config.json")
    sources = (_read(folder / GENERATION_CONFIG), config, text_config_of(config))
    ids = (token_id for source in sources for token_id in _ids(source.get("eos_token_id")))
    return frozenset(token_id for token_id in ids if token_id < below)


def _ids(value: object) -> Iterator[int]:
    for token_id in value if isinstance(value, list) else [value]:
        if isinstance(token_id, int) and not isinstance(token_id, bool) and token_id >= 0:
            yield token_id


def _read(file: Path) -> JSONObject:
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s cannot be read and says nothing: %s", file, error)
        return {}
    return told if isinstance(told, dict) else {}
