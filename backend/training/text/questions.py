"""Questions about the images of a conversation, each with its one right answer.

``ask`` draws an intent, a thing and an image, words the question and computes the answer with
``text_answers`` and ``text_checks``. Deterministic given the ``random.Random``.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from training.captioner.grammar import COLOURS, KINDS
from training.text import answers, checks, details
from training.text.intents import INTENTS, UNREFERRED, fits
from training.text.phrases import PHRASES, choose, split_phrases
from training.text.scenes import SIZES, ImageBlock, Scene, Thing, article

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
SHORT_ORDINALS = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th")
SIDES = ("left of", "right of", "above", "below")
SIDE_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One question with its answer; ``thing`` is the (kind, colour) a follow-up may call "it"."""

    question: str
    answer: str
    intent: str
    ref: int | None = None
    thing: tuple[str, str | None] | None = None


@dataclass(slots=True)
class Asker:
    """Words questions about ``images``; owns nothing but its draw of thing, image and phrasing."""

    rng: random.Random
    images: list[ImageBlock]
    held_out_phrases: bool = False
    ref: int | None = None
    stranger: str = ""

    def scenes(self) -> list[Scene]:
        """Readable scenes a question may be about, the named image only if one is named."""
        chosen = self.images if self.ref is None else self.images[self.ref - 1 : self.ref]
        return [image.scene for image in chosen if image.scene is not None]

    def things(self) -> list[Thing]:
        """All things of those scenes."""
        return [thing for scene in self.scenes() for thing in scene.things]

    def draw_thing(self, present: float = 0.78, coloured: float = 0.2) -> tuple[str, str | None]:
        """(kind, colour or None) of a thing, mostly of one that is there."""
        things, rng = self.things(), self.rng
        if rng.random() < 0.05:
            return self.stranger or rng.choice(KINDS), None
        if things and rng.random() < present:
            thing = rng.choice(things)
            return thing.kind, thing.colour if rng.random() < coloured else None
        if things and rng.random() < coloured:
            return rng.choice(things).kind, rng.choice(COLOURS)
        return rng.choice(KINDS), rng.choice(COLOURS) if rng.random() < coloured else None

    def word(self, intent: str, **slots: str) -> str:
        """A phrasing of the intent with its slots filled."""
        rng = self.rng
        phrases = PHRASES[intent]
        if len(phrases) >= 6:
            phrases = split_phrases(phrases, self.held_out_phrases)
        usable = [p for p in phrases if self.ref is None or "{in}" in p or "{img}" in p or "{pair}" in p]
        text = choose(rng, rng.choice(usable or ["what is in {img}"]))
        inside, image = self.image_words()
        prefix = ""
        if self.ref is not None and "{in}" in text and rng.random() < 0.12:
            prefix, inside = inside.strip() + ", ", ""
        text = text.replace("{in}", inside).replace("{img}", image)
        for name, value in slots.items():
            text = text.replace("{" + name + "}", value)
        return prefix + text

    def image_words(self) -> tuple[str, str]:
        """What fills ``{in}`` and ``{img}``."""
        rng = self.rng
        noun = rng.choices(("image", "picture", "photo", "pic"), (6, 4, 0.8, 0.3))[0]
        if self.ref is None:
            name = f"{rng.choices(('the', 'this', 'my'), (7, 4, 0.5))[0]} {noun}"
            inside = rng.choice(("", "", "", f" in {name}", f" in {name}", f" on {name}", " here"))
            return inside, name
        number = self.ref
        forms = [f"{noun} {number}"] * 5 + [f"the {ORDINALS[number - 1]} {noun}"] * 3
        forms += [f"the {SHORT_ORDINALS[number - 1]} {noun}", f"{noun} number {number}"]
        if number == len(self.images) > 1:
            forms += [f"the last {noun}"] * 2
        name = rng.choice(forms)
        return f" {rng.choices(('in', 'on'), (5, 1))[0]} {name}", name


def plural(name: str) -> str:
    """Plural of a shape's name."""
    return name + ("es" if name.endswith("s") else "s")


def name_of(thing: tuple[str, str | None]) -> str:
    """``circle`` or ``red circle``."""
    return f"{thing[1]} {thing[0]}" if thing[1] else thing[0]


def with_article(name: str) -> str:
    """``a star``, ``an orange star``."""
    return f"{article(name.split(maxsplit=1)[0])} {name}"


def ask_attribute(asker: Asker, intent: str) -> Asked:
    """Colour, size or place of a named thing."""
    thing = asker.draw_thing()
    attribute = intent
    if attribute == "colour":
        thing = (thing[0], None)
    if attribute == "about":
        answer = details.about(asker.images, asker.ref, *thing)
    else:
        answer = answers.about_thing(asker.images, asker.ref, thing[0], thing[1], attribute)
    return Asked(asker.word(intent, t=name_of(thing)), answer, intent, asker.ref, thing)


def ask_plain(asker: Asker, intent: str) -> Asked:
    """Questions that name no thing."""
    images, ref = asker.images, asker.ref
    table: dict[str, Callable[[], str]] = {
        "describe": lambda: answers.describe(images, ref),
        "describe_all": lambda: answers.describe_all(images),
        "colours": lambda: answers.colours(images, ref),
        "background": lambda: checks.background(images, ref),
        "kind": lambda: checks.kind_of(images, ref, None),
        "count": lambda: answers.count(images, ref, None, None),
        "count_all": lambda: answers.count_all(images),
        "count_images": lambda: answers.count_images(images),
        "places": lambda: answers.places(images, ref),
        "sizes": lambda: answers.sizes(images, ref),
        "number": lambda: checks.number(images, ref, "value"),
        "number_colour": lambda: checks.number(images, ref, "colour"),
        "number_place": lambda: checks.number(images, ref, "place"),
        "number_digits": lambda: checks.number(images, ref, "digits"),
        "is_there_number": lambda: checks.is_there_number(images, ref),
        "is_empty": lambda: checks.is_empty(images, ref),
        "is_anything": lambda: checks.is_anything(images, ref),
        "biggest": lambda: checks.extreme(images, ref, smallest=False),
        "smallest": lambda: checks.extreme(images, ref, smallest=True),
        "why": lambda: checks.why_unread(images, ref),
        "pixels": lambda: details.pixels(images, ref),
        "captioner": lambda: details.captioner(images, ref),
    }
    thing: tuple[str, str | None] | None = None
    things = asker.things()
    if len(things) == 1 and intent in ("kind", "describe", "places", "colours"):
        thing = (things[0].kind, None)
    return Asked(asker.word(intent), table[intent](), intent, ref, thing)


def ask_count_of(asker: Asker, intent: str) -> Asked:
    """How many circles, red shapes, red circles."""
    kind, colour = asker.draw_thing(coloured=0.5)
    wanted = None if colour and asker.rng.random() < 0.5 else kind
    name = name_of((wanted or "shape", colour))
    answer = answers.count(asker.images, asker.ref, wanted, colour)
    return Asked(asker.word(intent, ts=plural(name)), answer, intent, asker.ref)


def ask_is_there(asker: Asker, intent: str) -> Asked:
    """Is there a circle, is anything red."""
    kind, colour = asker.draw_thing(present=0.55, coloured=0.35)
    if intent == "is_there_colour":
        things = asker.things()
        value = asker.rng.choice(things).colour if things and asker.rng.random() < 0.5 else asker.rng.choice(COLOURS)
        answer = checks.is_there(asker.images, asker.ref, None, value)
        text = asker.word(intent, v=value).replace("a orange", "an orange")
        return Asked(text, answer, intent, asker.ref)
    name = name_of((kind, colour))
    answer = checks.is_there(asker.images, asker.ref, kind, colour)
    text = asker.word(intent, t=name, ts=plural(name), at=with_article(name))
    return Asked(text, answer, intent, asker.ref, (kind, colour))


def ask_is_colour(asker: Asker, intent: str) -> Asked:
    """Is the circle red, is the circle large, is the background white."""
    rng = asker.rng
    if intent == "is_background":
        scenes = asker.scenes()
        value = rng.choice(scenes).background if scenes and rng.random() < 0.5 else rng.choice(COLOURS)
        answer = checks.is_background(asker.images, asker.ref, value)
        return Asked(asker.word(intent, v=value).replace(" a orange", " an orange"), answer, intent, asker.ref)
    kind, _ = asker.draw_thing(present=0.88, coloured=0)
    attribute = rng.choice(("colour", "colour", "size"))
    same = [t for t in asker.things() if t.kind == kind]
    values = COLOURS if attribute == "colour" else SIZES
    value = rng.choice(values)
    if same and rng.random() < 0.5:
        value = rng.choice(same).colour if attribute == "colour" else rng.choice(same).size
    asker_phrases = asker.word(intent, t=kind, v=value)
    if attribute == "size":
        for word in ("colour", "color"):
            asker_phrases = asker_phrases.replace(word, "size")
    answer = checks.is_colour(asker.images, asker.ref, kind, attribute, value)
    return Asked(asker_phrases, answer, intent, asker.ref, (kind, None))


def ask_kind_of(asker: Asker, intent: str) -> Asked:
    """Which shape is red (large)."""
    rng, things = asker.rng, asker.scenes()
    newest = asker.images[-1].scene if asker.ref is None and asker.images else (things[0] if things else None)
    shown = list(newest.things) if newest else []
    thing = rng.choice(shown) if shown and rng.random() < 0.8 else Thing(rng.choice(COLOURS), "", rng.choice(SIZES))
    by_size = rng.random() < 0.25
    value = thing.size if by_size else thing.colour
    answer = checks.kind_of(asker.images, asker.ref, None if by_size else value, value if by_size else None)
    return Asked(asker.word(intent, v=value), answer, intent, asker.ref)


def draw_pair(asker: Asker) -> tuple[str, str]:
    """Two different kinds, mostly of one scene, each the only one of its kind there."""
    rng = asker.rng
    scenes = [s for s in asker.scenes() if len({t.kind for t in s.things}) > 1]
    if scenes and rng.random() < 0.85:
        kinds = [t.kind for t in rng.choice(scenes[-1:] if rng.random() < 0.7 else scenes).things]
        first, second = rng.sample(sorted(set(kinds)), 2)
        return first, second
    first = asker.draw_thing(coloured=0)[0]
    return first, rng.choice([k for k in KINDS if k != first])


def ask_relation(asker: Asker, intent: str) -> Asked:
    """Bigger than, left of."""
    rng = asker.rng
    first, second = draw_pair(asker)
    images, ref = asker.images, asker.ref
    if intent == "bigger":
        smaller = rng.random() < 0.35
        text = asker.word(intent, t=first, k2=second, cmp="smaller" if smaller else rng.choice(("bigger", "larger")))
        return Asked(text, checks.bigger(images, ref, first, second, smaller), intent, ref)
    side = rng.choice(SIDES)
    scene = next((s for s in asker.scenes() if s.find(first) and s.find(second)), None)
    if scene and rng.random() < 0.7:
        side = rng.choice(SIDES[:2] if scene.relation == "left" or len(scene.things) == 3 else SIDES[2:])
    text = asker.word(intent, k=first, k2=second, side=rng.choice(SIDE_WORDS[side]))
    if intent == "beside":
        return Asked(text, checks.beside(images, ref, first, side), intent, ref)
    return Asked(text, checks.is_beside(images, ref, first, side, second), intent, ref)


def ask_which(asker: Asker, intent: str) -> Asked:
    """Which image shows the star (the red star, a number, the number 77)."""
    rng, images = asker.rng, asker.images
    numbers = [i for i in images if i.scene and i.scene.form == "number"]
    asker.ref, thing = None, None
    if rng.random() < (0.25 if numbers else 0.05):
        noun, found = _number_shown(rng, numbers)
    else:
        thing = asker.draw_thing(coloured=0.3, present=0.85)
        noun, found = name_of(thing), [i.number for i in images if i.scene and i.scene.find(*thing)]
    at = f"the {noun}" if noun.startswith("number ") else with_article(noun)
    focus = thing if len(found) == 1 and thing else None
    return Asked(asker.word(intent, t=noun, at=at), checks.which(images, noun, found), intent, thing=focus)


def _number_shown(rng: random.Random, numbers: list[ImageBlock]) -> tuple[str, list[int]]:
    """Any number or a certain one, and the images that show it."""
    if numbers and rng.random() < 0.4:
        shown = rng.choice(numbers)
        assert shown.scene is not None
        return f"number {shown.scene.text}", [i.number for i in numbers if i.scene == shown.scene]
    return "number", [i.number for i in numbers]


def ask_compare(asker: Asker, intent: str) -> Asked:
    """Difference between two images: the last two, or two that are named."""
    rng, count = asker.rng, len(asker.images)
    asker.ref = None
    noun = rng.choice(("image", "picture"))
    first, second = max(count - 1, 1), max(count, 2)
    text = asker.word(intent)
    pair = choose(
        rng,
        f"(the two {noun}s|the two {noun}s|these two {noun}s|both {noun}s|the {noun}s|these {noun}s|them)",
    )
    if "{pair}" in text and (count > 2 or rng.random() < 0.3):
        first, second = rng.sample(range(1, count + 1), 2) if count > 1 else (1, 2)
        spoken = (
            f"{noun} {first} and {noun} {second}",
            f"{noun} {first} and {second}",
            f"{noun}s {first} and {second}",
        )
        pair = rng.choice(spoken)
        if rng.random() < 0.2:
            pair = f"the {ORDINALS[first - 1]} and the {ORDINALS[second - 1]} {noun}"
    table = {"compare": checks.compare, "same": checks.are_same, "different": checks.are_different}
    return Asked(text.replace("{pair}", pair), table[intent](asker.images, first, second), intent)


def ask_side(asker: Asker, intent: str) -> Asked:
    """What is on the left."""
    rng = asker.rng
    newest = asker.scenes()[-1:]
    sides = list(details.SPOKEN_SIDES)
    if newest and rng.random() < 0.75:
        sides = ["top", "bottom"] if newest[0].relation == "above" and len(newest[0].things) == 2 else ["left", "right"]
        sides += ["middle"] if len(newest[0].things) == 3 else []
    side = rng.choice(sides)
    text = asker.word(intent, where=rng.choice(details.SPOKEN_SIDES[side]))
    return Asked(text, details.at_side(asker.images, asker.ref, side), intent, asker.ref)


SPECIAL: dict[str, Callable[[Asker, str], Asked]] = {
    "colour": ask_attribute,
    "size": ask_attribute,
    "place": ask_attribute,
    "about": ask_attribute,
    "side": ask_side,
    "count_of": ask_count_of,
    "is_there": ask_is_there,
    "is_there_colour": ask_is_there,
    "is_colour": ask_is_colour,
    "is_background": ask_is_colour,
    "kind_of": ask_kind_of,
    "bigger": ask_relation,
    "beside": ask_relation,
    "is_beside": ask_relation,
    "which": ask_which,
    "compare": ask_compare,
    "same": ask_compare,
    "different": ask_compare,
}


def ask(
    rng: random.Random,
    images: list[ImageBlock],
    held_out: bool = False,
    intent: str = "",
    *,
    stranger: str = "",
    intents: Mapping[str, float] = INTENTS,
) -> Asked:
    """One question about the images with its answer.

    ``held_out`` takes the phrasings kept from training; ``stranger`` is a thing that no image shows.
    """
    if not intent:
        weights = [weight * fits(name, images) for name, weight in intents.items()]
        intent = rng.choices(list(intents), weights)[0]
    asker = Asker(rng, images, held_out, stranger=stranger)
    if intent not in UNREFERRED and images:
        roll = rng.random()
        if roll < (0.5 if len(images) > 1 else 0.1):
            asker.ref = rng.randint(1, len(images))
        elif roll > 0.985:
            asker.ref = min(len(images) + 1, len(ORDINALS))
    return SPECIAL.get(intent, ask_plain)(asker, intent)
