"""The right answers about one thing in full, about sides, and about the image itself (pixels, captioner).

Pure functions like those of ``text_answers``.
"""

from __future__ import annotations

from training.text.answers import (
    COUNT_WORDS,
    NO_IMAGE,
    Images,
    absent,
    locate,
    pick,
    special,
    spot,
    thing_name,
)
from training.text.scenes import ImageBlock, Scene, join_phrases

NOT_SAID = "The description does not say."
SPOKEN_SIDES = {
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top": ("at the top", "on top"),
    "bottom": ("at the bottom", "on the bottom"),
    "middle": ("in the middle", "in the center"),
}


def about(images: Images, ref: int | None, kind: str, colour: str | None) -> str:
    """Describe the circle."""
    image = locate(images, ref, kind, colour)
    if isinstance(image, str):
        return image
    name = f"{colour} {kind}" if colour else kind
    if image is None:
        return absent(images, ref, name)
    assert image.scene is not None
    found = image.scene.find(kind, colour)
    if len(found) == 1:
        return f"It is {found[0].phrase} {spot(image.scene, image.scene.things.index(found[0]))}."
    plural = name + ("es" if name.endswith("s") else "s")
    return f"There are {COUNT_WORDS[len(found)]} {plural}: {join_phrases([t.phrase for t in found])}."


def at_side(images: Images, ref: int | None, side: str) -> str:
    """What is on the left (right, top, bottom, middle)?"""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    if scene.form == "number":
        return f"The number {scene.text} is {scene.place}."
    answer = special(scene)
    if answer:
        return answer
    if len(scene.things) == 1:
        return f"There is only one shape: the {scene.things[0].kind} is {scene.place}."
    return at_side_of_several(scene, side)


def at_side_of_several(scene: Scene, side: str) -> str:
    """The thing at a side of two or three."""
    sides = {"left": ("left", "right"), "above": ("top", "bottom")}
    order: tuple[str, ...] = sides[scene.relation]
    if len(scene.things) == 3:
        order = ("left", "middle", "right")
    if side not in order:
        return NOT_SAID
    thing = scene.things[order.index(side)]
    return f"The {thing_name(scene, thing)} is {SPOKEN_SIDES[side][0]}."


def any_image(images: Images, ref: int | None) -> ImageBlock | str:
    """The newest or named image, readable or not, or the answer that there is none."""
    if not images:
        return NO_IMAGE
    if ref is not None and ref > len(images):
        return f"There is no image {ref} in our conversation."
    return images[-1] if ref is None else images[ref - 1]


def pixels(images: Images, ref: int | None) -> str:
    """How big is the image?"""
    image = any_image(images, ref)
    if isinstance(image, str):
        return image
    return (
        f"Image {image.number} is {image.size} pixels."
        if image.size
        else f"I do not know the size of image {image.number}."
    )


def captioner(images: Images, ref: int | None) -> str:
    """Which model described the image?"""
    image = pick(images, ref)
    return image if isinstance(image, str) else f"Image {image.number} was described by {image.captioner}."
