"""What an answer tells in `periscope`, the one field that no dialect has. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.core import JSONObject, VisionUsage


def answer_notes(vision: VisionUsage | None, left_out: Sequence[str]) -> JSONObject | None:
    """What the images took, and the places of tools that were not offered to the model; None if there are neither."""
    told: JSONObject = {} if vision is None else {"vision": asdict(vision)}
    return told | ({"left_out": list(left_out)} if left_out else {}) or None
