"""The right answers to yes/no questions, to "which image ..." and to comparisons of images.

Pure functions like those of ``text_answers``; together they are the behaviour the demo text model learns.
"""

from __future__ import annotations

from training.text.answers import (
    COUNT_WORDS,
    NO_IMAGE,
    RANK,
    Images,
    absent,
    are,
    brief,
    capital,
    locate,
    pick,
    special,
    thing_name,
    unclear,
)
from training.text.scenes import Scene, article, join_phrases


def kind_of(images: Images, ref: int | None, colour: str | None, size: str | None = None) -> str:
    """Which shape is there, or which shape has a colour or size."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    if (colour is None and size is None) or scene.form in ("odd", "complex"):
        return special(scene) or shapes(scene)
    adjective = colour or size
    found = [t for t in scene.things if colour in (None, t.colour) and size in (None, t.size)]
    if not found:
        return f"There is no {adjective} shape in {'the image' if ref is None else f'image {ref}'}."
    if len(found) == 1:
        return f"The {adjective} shape is a {found[0].kind}."
    return f"The {adjective} shapes are {join_phrases([f'a {t.kind}' for t in found])}."


def shapes(scene: Scene) -> str:
    """The kinds of a scene: ``There is a circle and a square.``."""
    return f"There is {join_phrases([f'a {t.kind}' for t in scene.things])}."


def number(images: Images, ref: int | None, attribute: str) -> str:
    """The number in the newest or named image: its value, colour, place or how many digits it has."""
    image = pick(images, ref)
    if not images or (ref is not None and isinstance(image, str)):
        return str(image)
    pool = [images[ref - 1]] if ref is not None else list(reversed(images))
    found = next((i.scene for i in pool if i.scene and i.scene.form == "number"), None)
    if found is None:
        if isinstance(image, str):
            return image
        assert image.scene is not None
        return unclear(image.scene) or absent(images, ref, "number")
    if attribute == "digits":
        digits = len(found.text)
        return f"The number has {COUNT_WORDS[digits]} digit{'' if digits == 1 else 's'}."
    return f"The number is {({'colour': found.colour, 'place': found.place}).get(attribute, found.text)}."


def background(images: Images, ref: int | None) -> str:
    """The background colour."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    if scene.form in ("odd", "complex"):
        return str(special(scene))
    return f"The background is {scene.background}."


def is_background(images: Images, ref: int | None, colour: str) -> str:
    """Is the background of this colour?"""
    answer = background(images, ref)
    if not answer.startswith("The background"):
        return answer
    return f"{'Yes' if answer.endswith(f' {colour}.') else 'No'}, the background is {answer.split()[-1]}"


def is_empty(images: Images, ref: int | None) -> str:
    """Is there nothing in the image?"""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    if scene.form == "nothing":
        return f"Yes, there is nothing on the {scene.background} background."
    if scene.form == "number":
        return f"No, there is the number {scene.text}."
    if scene.form in ("odd", "complex"):
        return str(special(scene))
    return f"No, there is {join_phrases([f'{article(t.colour)} {t.colour} {t.kind}' for t in scene.things])}."


def is_anything(images: Images, ref: int | None) -> str:
    """Is there anything in the image?"""
    answer = is_empty(images, ref)
    if answer.startswith("Yes"):
        return f"No{answer[3:]}"
    return f"Yes{answer[2:]}" if answer.startswith("No,") else answer


def where(images: Images, image_number: int) -> str:
    """`` in image 2`` when there are several images, else nothing."""
    return "" if len(images) == 1 else f" in image {image_number}"


def is_there(images: Images, ref: int | None, kind: str | None, colour: str | None) -> str:
    """Is there a circle, a red circle, anything red?"""
    image = locate(images, ref, kind, colour)
    if isinstance(image, str):
        return image
    name = " ".join(word for word in (colour, kind or "shape") if word)
    if image is None:
        return f"No, there is no {name} {absent(images, ref, name).split(name + ' ', 1)[1]}"
    assert image.scene is not None
    found = image.scene.find(kind, colour)
    tail = where(images, image.number)
    if len(found) > 1:
        return f"Yes, {are(len(found), name).split('. ')[0].lower()[:-1]}{tail}."
    return f"Yes, there is {article(found[0].colour)} {found[0].colour} {found[0].kind}{tail}."


def is_there_number(images: Images, ref: int | None) -> str:
    """Is there a number?"""
    answer = number(images, ref, "value")
    if answer.startswith("The number"):
        return f"Yes, t{answer[1:]}"
    return f"No, t{answer[1:]}" if answer.startswith("There is no number") else answer


def is_colour(images: Images, ref: int | None, kind: str, attribute: str, value: str) -> str:
    """Is the circle red? Is the circle large?"""
    image = locate(images, ref, kind)
    if isinstance(image, str):
        return image
    if image is None:
        return absent(images, ref, kind)
    assert image.scene is not None
    found = image.scene.find(kind)
    truths = [t.colour if attribute == "colour" else t.size for t in found]
    if len(found) == 1:
        return f"{'Yes' if truths[0] == value else 'No'}, the {kind} is {truths[0]}."
    plural = kind + ("es" if kind.endswith("s") else "s")
    return f"{'Yes' if value in truths else 'No'}, the {plural} are {join_phrases(truths)}."


def bigger(images: Images, ref: int | None, first: str, second: str, smaller: bool) -> str:
    """Is the circle bigger (smaller) than the square?"""
    image = locate(images, ref, first)
    if isinstance(image, str):
        return image
    if image is None:
        return absent(images, ref, first)
    assert image.scene is not None
    if not image.scene.find(second):
        return f"There is no {second} {absent(images, ref, '').split('no  ')[1]}"
    one, two = image.scene.find(first)[0].size, image.scene.find(second)[0].size
    if one == two:
        return f"No, both are {one}."
    truth = (RANK[one] < RANK[two]) == smaller
    return f"{'Yes' if truth else 'No'}, the {first} is {one} and the {second} is {two}."


def extreme(images: Images, ref: int | None, smallest: bool) -> str:
    """Which shape is the biggest (smallest)?"""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    answer = special(scene)
    if answer:
        return answer
    if len(scene.things) == 1:
        return f"There is only one shape, the {scene.things[0].kind}."
    ranks = [RANK[t.size] for t in scene.things]
    best = [t for t in scene.things if RANK[t.size] == (min(ranks) if smallest else max(ranks))]
    if len(best) == len(scene.things):
        return f"They are all {best[0].size}." if len(best) > 2 else f"Both are {best[0].size}."
    names = [f"the {thing_name(scene, t)}" for t in best]
    verb = "is" if len(best) == 1 else "are"
    return f"{capital(join_phrases(names))} {verb} the {'smallest' if smallest else 'biggest'}."


def beside(images: Images, ref: int | None, kind: str, side: str) -> str:
    """What is left of (right of, above, below) the circle?"""
    image = locate(images, ref, kind)
    if isinstance(image, str):
        return image
    if image is None:
        return absent(images, ref, kind)
    scene = image.scene
    assert scene is not None
    index = next(i for i, t in enumerate(scene.things) if t.kind == kind)
    row = scene.relation == "left" or len(scene.things) == 3
    step = {"left of": -1, "right of": 1, "above": -1, "below": 1}[side]
    other = index + step
    if row != (side in ("left of", "right of")) or not 0 <= other < len(scene.things):
        return f"There is nothing {side} the {kind}."
    return f"The {thing_name(scene, scene.things[other])} is {side} the {kind}."


def is_beside(images: Images, ref: int | None, kind: str, side: str, other: str) -> str:
    """Is the circle left of the square? The two are of different kinds."""
    image = locate(images, ref, kind)
    if isinstance(image, str):
        return image
    if image is None or image.scene is None:
        return absent(images, ref, kind)
    if not image.scene.find(other):
        return absent(images, ref, other)
    first, second = image.scene.find(kind)[0], image.scene.find(other)[0]
    before = image.scene.things.index(first) < image.scene.things.index(second)
    row = image.scene.relation == "left" or len(image.scene.things) == 3
    truth = ("left of" if before else "right of") if row else ("above" if before else "below")
    return f"{'Yes' if truth == side else 'No'}, the {kind} is {truth} the {other}."


def which(images: Images, noun: str, matches: list[int]) -> str:
    """Which image shows the star? ``noun`` without its article, ``matches`` the image numbers."""
    if not images:
        return NO_IMAGE
    if not matches:
        tail = " that I could see" if any(i.scene is None for i in images) else ""
        return f"No image{tail} shows a{'n' if noun.startswith('orange') else ''} {noun}."
    if len(matches) == 1:
        return f"Image {matches[0]} shows the {noun}."
    return f"Images {join_phrases([str(m) for m in matches])} show a{'n' if noun.startswith('orange') else ''} {noun}."


def compare(images: Images, first: int, second: int) -> str:
    """What is the difference between two images?"""
    if not images:
        return NO_IMAGE
    if len(images) == 1:
        return "I see only one image."
    if max(first, second) > len(images):
        return f"There is no image {max(first, second)} in our conversation."
    one, two = images[first - 1], images[second - 1]
    if brief(one) == brief(two) and one.scene is not None:
        return f"Both images {brief(two).replace('shows', 'show', 1)}."
    return f"Image {first} {brief(one)}, image {second} {brief(two)}."


def are_same(images: Images, first: int, second: int) -> str:
    """Are the two images the same?"""
    answer = compare(images, first, second)
    if answer.startswith(("Both", "Image")):
        return f"{'Yes' if answer.startswith('Both') else 'No'}, {answer[0].lower()}{answer[1:]}"
    return answer


def are_different(images: Images, first: int, second: int) -> str:
    """Are the two images different?"""
    answer = are_same(images, first, second)
    if answer.startswith("Yes"):
        return f"No{answer[3:]}"
    return f"Yes{answer[2:]}" if answer.startswith("No,") else answer


def why_unread(images: Images, ref: int | None) -> str:
    """Why could an image not be read?"""
    lost = [i for i in images if i.scene is None and ref in (None, i.number)]
    if lost:
        return f"Image {lost[-1].number} could not be read: {lost[-1].reason}."
    return "I could read every image." if images else NO_IMAGE
