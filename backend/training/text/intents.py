"""Kinds of questions about images and how often each is drawn, given the images."""

from __future__ import annotations

from training.text.scenes import ImageBlock, Scene

INTENTS: dict[str, float] = {
    "describe": 12,
    "describe_all": 3,
    "colour": 12,
    "colours": 5,
    "background": 7,
    "kind": 6,
    "kind_of": 4,
    "count": 7,
    "count_of": 4,
    "count_all": 1.5,
    "count_images": 1.5,
    "place": 8,
    "places": 3,
    "size": 6,
    "sizes": 2,
    "number": 7,
    "number_colour": 1.5,
    "number_place": 1.5,
    "number_digits": 1.5,
    "is_there": 7,
    "is_there_colour": 2.5,
    "is_there_number": 2,
    "is_colour": 5,
    "is_background": 2.5,
    "is_empty": 1,
    "is_anything": 1,
    "bigger": 5,
    "biggest": 2.5,
    "smallest": 2.5,
    "beside": 3,
    "is_beside": 3,
    "which": 4,
    "compare": 3,
    "same": 1.5,
    "different": 1.5,
    "why": 0.5,
    "about": 3,
    "side": 3,
    "pixels": 1.2,
    "captioner": 0.6,
}
#: What people ask first; the other kinds of questions stay, but rare.
FIRST_INTENTS: dict[str, float] = dict.fromkeys(INTENTS, 0.5) | {
    "describe": 12,
    "colour": 18,
    "kind": 10,
    "count": 14,
    "count_of": 4,
    "place": 10,
    "size": 6,
    "number": 12,
    "is_there": 10,
    "background": 7,
    "which": 8,
    "kind_of": 4,
    "colours": 4,
    "is_colour": 4,
    "describe_all": 3,
    "count_images": 2,
}
NEEDS_SEVERAL = {"describe_all": 2, "count_all": 2, "which": 4, "compare": 4, "same": 2, "different": 2}
UNREFERRED = {"describe_all", "count_all", "count_images", "which", "compare", "same", "different"}


def fits(intent: str, images: list[ImageBlock]) -> float:
    """The intent's weight given the images: rarely ask for what can not be there."""
    if intent in NEEDS_SEVERAL:
        return NEEDS_SEVERAL[intent] if len(images) > 1 else 0.15
    if intent.startswith("number") or intent == "is_there_number":
        return 5 if any(i.scene and i.scene.form == "number" for i in images) else 0.3
    if intent == "why":
        return 12 if any(i.scene is None for i in images) else 0.1
    return _fits_newest(intent, images[-1].scene if images else None)


def _fits_newest(intent: str, newest: Scene | None) -> float:
    if intent in ("is_empty", "is_anything") and newest and newest.form == "nothing":
        return 4
    if intent in ("bigger", "beside", "is_beside", "biggest", "smallest", "kind_of", "side"):
        return 1.5 if newest and len(newest.things) > 1 else 0.2
    return 1.0
