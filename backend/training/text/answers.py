"""The right answer to each kind of question about the images of a conversation.

Pure functions of the image blocks; this is the behaviour the demo text model learns. ``ref`` is the number of
the image a question names, or None where the newest fitting image is meant.
"""

from __future__ import annotations

from collections.abc import Sequence

from training.text.scenes import ImageBlock, Scene, Thing, join_phrases, on_background

NO_IMAGE = "I do not see an image in our conversation."
TOO_COMPLEX = "I can not say, the picture is too complex."
COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST_COUNTED = 9
RANK = {"small": 0, "medium": 1, "large": 2}
ROW = ("on the left", "in the middle", "on the right")
Images = Sequence[ImageBlock]


def capital(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def quote(scene: Scene) -> str:
    """The answer to a general question about a caption that is not in the demo grammar."""
    return f'The description says: "{scene.text}"'


def unseen(image: ImageBlock) -> str:
    """The answer when the image a question is about could not be read."""
    return f"I could not see image {image.number}, so I can not say."


def pick(images: Images, ref: int | None) -> ImageBlock | str:
    """The image a general question is about, or the answer that there is none to talk about."""
    if not images:
        return NO_IMAGE
    if ref is None:
        image = images[-1]
    elif ref > len(images):
        return f"There is no image {ref} in our conversation."
    else:
        image = images[ref - 1]
    return unseen(image) if image.scene is None else image


def unclear(scene: Scene) -> str | None:
    """The answer to every question about a caption that is not in the demo grammar or tells nothing."""
    return {"odd": quote(scene), "complex": TOO_COMPLEX}.get(scene.form)


def scope(images: Images, ref: int | None) -> str:
    """``in the image``, ``in image 2`` or ``in the images``: where a thing was looked for."""
    if ref is not None:
        return f"in image {ref}"
    return "in the image" if len(images) == 1 else "in the images"


def locate(images: Images, ref: int | None, kind: str | None, colour: str | None = None) -> ImageBlock | str | None:
    """The newest image (or image ``ref``) with a matching thing, an answer why not, or None when absent."""
    chosen = pick(images, ref)
    if not images or (ref is not None and isinstance(chosen, str)):
        return chosen
    pool = [images[ref - 1]] if ref is not None else list(reversed(images))
    for image in pool:
        if image.scene is not None and image.scene.find(kind, colour):
            return image
    if isinstance(chosen, str):
        return chosen
    assert chosen.scene is not None
    return unclear(chosen.scene)


def shown(scene: Scene) -> str:
    """What an image shows, in full, as a noun phrase."""
    if scene.form == "nothing":
        return f"a plain {scene.background} background with nothing on it"
    if scene.form == "complex":
        return "a complex picture that I can not describe well"
    back = on_background(scene.background)
    if scene.form == "number":
        return f"the number {scene.text} in {scene.colour} {scene.place} {place_of(scene)}"
    phrases = [t.phrase for t in scene.things]
    if len(phrases) == 1:
        return f"{phrases[0]} {scene.place} {place_of(scene)}"
    if len(phrases) == 2:
        return f"{phrases[0]} {'left of' if scene.relation == 'left' else 'above'} {phrases[1]} {back}"
    return f"{join_phrases(phrases)} {back}"


def place_of(scene: Scene) -> str:
    """``of a white background``."""
    return "of" + on_background(scene.background)[2:]


def brief(image: ImageBlock) -> str:
    """What an image shows, in short, for comparisons."""
    scene = image.scene
    if scene is None:
        return "could not be read"
    if scene.form == "number":
        return f"shows the number {scene.text}"
    if scene.form == "nothing":
        return f"shows a plain {scene.background} background"
    if scene.form == "complex":
        return "shows a complex picture"
    if scene.form == "odd":
        return "shows something else"
    return "shows " + join_phrases([t.phrase for t in scene.things])


def describe_one(image: ImageBlock) -> str:
    """One image's full description."""
    if image.scene is None:
        return unseen(image)
    if image.scene.form == "odd":
        return quote(image.scene)
    name = "The image" if image.number == 1 else f"Image {image.number}"
    return f"{name} shows {shown(image.scene)}."


def describe(images: Images, ref: int | None) -> str:
    """Full description of the newest or the named image."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    text = describe_one(image)
    return text if ref != 1 else text.replace("The image shows", "Image 1 shows", 1)


def describe_all(images: Images) -> str:
    """Full descriptions of all images."""
    if not images:
        return NO_IMAGE
    if len(images) == 1:
        return describe(images, None)
    return " ".join(describe(images, image.number) for image in images)


def special(scene: Scene) -> str | None:
    """The answer to any question about shapes where the picture has none that could be told."""
    if scene.form in ("odd", "complex"):
        return unclear(scene)
    if scene.form == "number":
        return f"There are no shapes, only the number {scene.text}."
    return "There are no shapes." if scene.form == "nothing" else None


def are(number: int, noun: str) -> str:
    """Tell a number of things: ``There is one circle.``, ``There are no red shapes.``."""
    plural = noun + ("es" if noun.endswith("s") else "s")
    return f"There is one {noun}." if number == 1 else f"There are {COUNT_WORDS[number]} {plural}."


def count(images: Images, ref: int | None, kind: str | None, colour: str | None) -> str:
    """How many shapes (of a kind, of a colour) the newest or the named image has."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    assert image.scene is not None
    if (kind is None and colour is None) or image.scene.form in ("odd", "complex"):
        answer = special(image.scene)
        if answer:
            return answer
    noun = " ".join(word for word in (colour, kind or "shape") if word)
    return are(len(image.scene.find(kind, colour)), noun)


def count_all(images: Images) -> str:
    """How many shapes all images have together."""
    if not images:
        return NO_IMAGE
    total = sum(len(image.scene.things) for image in images if image.scene)
    if total == 1:
        return "There is one shape in total."
    if total > MOST_COUNTED:
        return "There are more than nine shapes in total."
    return f"There are {COUNT_WORDS[total]} shapes in total."


def count_images(images: Images) -> str:
    """How many images the conversation has."""
    if not images:
        return NO_IMAGE
    return "I see one image." if len(images) == 1 else f"I see {COUNT_WORDS[len(images)]} images."


def absent(images: Images, ref: int | None, name: str) -> str:
    """A thing that was asked about is not there."""
    return f"There is no {name} {scope(images, ref)}."


def about_thing(images: Images, ref: int | None, kind: str, colour: str | None, attribute: str) -> str:
    """Colour, size or place of a named thing."""
    name = f"{colour} {kind}" if colour else kind
    image = locate(images, ref, kind, colour)
    if isinstance(image, str):
        return image
    if image is None:
        return absent(images, ref, name)
    assert image.scene is not None
    found = image.scene.find(kind, colour)
    if attribute == "place":
        return place(image.scene, found, name)
    values = [t.colour if attribute == "colour" else t.size for t in found]
    if len(found) == 1:
        return f"The {name} is {values[0]}."
    plural = name + ("es" if name.endswith("s") else "s")
    return f"The {plural} are {values[0] if len(set(values)) == 1 else join_phrases(values)}."


def thing_name(scene: Scene, thing: Thing) -> str:
    """The shortest name that is unique in its scene: kind, or colour and kind."""
    return thing.kind if len(scene.find(thing.kind)) == 1 else f"{thing.colour} {thing.kind}"


def place(scene: Scene, found: list[Thing], name: str) -> str:
    """Where the found thing is; relative to the other of two, in the row of three."""
    spots = [spot(scene, scene.things.index(t)) for t in found]
    if len(found) == 1:
        return f"The {name} is {spots[0]}."
    plural = name + ("es" if name.endswith("s") else "s")
    if len(scene.things) == 2:
        both = "on the left and on the right" if scene.relation == "left" else "at the top and at the bottom"
        return f"The {plural} are {both}."
    return f"The {plural} are {join_phrases(spots)}."


def spot(scene: Scene, index: int) -> str:
    """The place of one thing of a scene."""
    if len(scene.things) == 1:
        return scene.place
    if len(scene.things) == 3:
        return ROW[index]
    other = scene.things[1 - index]
    word = {"left": ("left of", "right of"), "above": ("above", "below")}[scene.relation][index]
    return f"{word} the {thing_name(scene, other)}"


def colours(images: Images, ref: int | None) -> str:
    """The colours of everything in the image: answers "what colour is it?"."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    if scene.form == "number":
        return f"The number is {scene.colour}."
    if scene.form == "nothing":
        return f"The background is {scene.background}."
    return special(scene) or each(scene, "colour")


def each(scene: Scene, attribute: str) -> str:
    """One value for each thing: ``The circle is red and the square is blue.``."""
    values = [f"the {t.kind} is {t.colour if attribute == 'colour' else t.size}" for t in scene.things]
    return capital(join_phrases(values)) + "."


def sizes(images: Images, ref: int | None) -> str:
    """The sizes of everything in the image: answers "how big is it?"."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    assert image.scene is not None
    if image.scene.form == "number":
        return "The description does not say how big the number is."
    return special(image.scene) or each(image.scene, "size")


def places(images: Images, ref: int | None) -> str:
    """The place of the only thing, or of all: answers "where is it?"."""
    image = pick(images, ref)
    if isinstance(image, str):
        return image
    scene = image.scene
    assert scene is not None
    if scene.form == "number":
        return f"The number is {scene.place}."
    answer = special(scene)
    if answer:
        return answer
    if len(scene.things) == 1:
        return f"The {scene.things[0].kind} is {scene.place}."
    if len(scene.things) == 2:
        first, second = (thing_name(scene, t) for t in scene.things)
        return f"The {first} is {'left of' if scene.relation == 'left' else 'above'} the {second}."
    return capital(join_phrases([f"the {t.kind} is {ROW[i]}" for i, t in enumerate(scene.things)])) + "."
