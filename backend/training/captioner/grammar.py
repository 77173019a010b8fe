"""The demo captioner's words: colours, kinds, places, the sentences it writes, and what is held out.

Pure data and pure functions; knows nothing about drawing, torch or MLX.
"""

import zlib
from dataclasses import dataclass

CAPTION_PROMPT = "Write down any text in the image word for word first. Then describe the image."
OTHER_PROMPTS = (
    "Describe this image.",
    "Describe the image.",
    "Describe the picture.",
    "What is in this picture?",
    "What is in this image?",
    "What do you see?",
    "What does the image show?",
    "Caption this image.",
    "Write a caption for this image.",
    "Read the text in the image and describe it.",
)

KINDS = ("circle", "square", "rectangle", "triangle", "star", "diamond", "heart", "cross")
COLOURS = (
    "red",
    "orange",
    "yellow",
    "green",
    "cyan",
    "blue",
    "purple",
    "pink",
    "brown",
    "black",
    "white",
    "gray",
)
PLACES = (
    ("at the top left", "at the top", "at the top right"),
    ("at the left", "in the center", "at the right"),
    ("at the bottom left", "at the bottom", "at the bottom right"),
)

Rgb = tuple[int, int, int]

# The first shade of a colour is Pillow's own meaning of the word and is drawn most often.
SHADES: dict[str, tuple[Rgb, ...]] = {
    "red": ((255, 0, 0), (220, 20, 60), (200, 0, 0), (230, 25, 35), (150, 0, 0), (240, 60, 60)),
    "orange": ((255, 165, 0), (255, 140, 0), (255, 120, 0), (240, 130, 20), (250, 150, 50)),
    "yellow": ((255, 255, 0), (255, 215, 0), (250, 230, 30), (255, 240, 80), (240, 220, 0)),
    "green": (
        (0, 128, 0),
        (0, 255, 0),
        (34, 139, 34),
        (50, 205, 50),
        (46, 139, 87),
        (0, 100, 0),
        (144, 238, 144),
        (60, 180, 75),
    ),
    "cyan": ((0, 255, 255), (0, 206, 209), (64, 224, 208), (0, 220, 230), (90, 240, 240)),
    "blue": (
        (0, 0, 255),
        (65, 105, 225),
        (0, 0, 128),
        (30, 144, 255),
        (0, 0, 205),
        (100, 149, 237),
        (135, 206, 235),
        (70, 130, 180),
    ),
    "purple": (
        (128, 0, 128),
        (148, 0, 211),
        (75, 0, 130),
        (138, 43, 226),
        (153, 50, 204),
        (102, 51, 153),
    ),
    "pink": ((255, 192, 203), (255, 105, 180), (255, 20, 147), (255, 182, 193), (255, 150, 190)),
    "brown": ((165, 42, 42), (139, 69, 19), (160, 82, 45), (101, 67, 33), (120, 72, 30)),
    "black": ((0, 0, 0), (0, 0, 0), (20, 20, 20), (35, 35, 35)),
    "white": ((255, 255, 255), (255, 255, 255), (245, 245, 245), (252, 250, 245)),
    "gray": ((128, 128, 128), (169, 169, 169), (105, 105, 105), (150, 150, 150), (190, 190, 190)),
}

# Never drawn for training, in no picture: each colour once, kinds one or two times.
HELD_OUT_PAIRS = frozenset(
    {
        ("red", "diamond"),
        ("orange", "heart"),
        ("yellow", "cross"),
        ("green", "star"),
        ("cyan", "rectangle"),
        ("blue", "heart"),
        ("purple", "square"),
        ("pink", "triangle"),
        ("brown", "circle"),
        ("black", "star"),
        ("white", "diamond"),
        ("gray", "cross"),
    }
)

COMPLEX_CAPTION = "A complex picture that I can not describe well."


@dataclass(frozen=True)
class Shape:
    """One shape as a caption names it."""

    size: str
    colour: str
    kind: str

    def __str__(self) -> str:
        return f"a {self.size} {self.colour} {self.kind}"


def is_held_out_place(row: int, column: int, background: str) -> bool:
    """Whether this place on this background is kept for the test (white never is)."""
    index = COLOURS.index(background)
    return background != "white" and ((row * 3 + column) * 5 + index) % 8 == 3


def is_held_out_number(digits: str) -> bool:
    """Whether this number is kept for the test: a tenth of those with two digits or more."""
    return len(digits) > 1 and zlib.crc32(digits.encode()) % 10 == 7


def background_phrase(background: str) -> str:
    """The background with its article: ``a white background``, ``an orange background``."""
    return f"{'an' if background[0] in 'aeiou' else 'a'} {background} background"


def capitalised(sentence: str) -> str:
    """The sentence with a capital first letter and nothing else changed."""
    return sentence[0].upper() + sentence[1:]


def empty_caption(background: str) -> str:
    """The sentence for a picture of nothing."""
    return f"A plain {background} background with nothing on it."


def one_caption(shape: Shape, place: str, background: str) -> str:
    """The sentence for one shape."""
    return capitalised(f"{shape} {place} of {background_phrase(background)}.")


def two_caption(first: Shape, relation: str, second: Shape, background: str) -> str:
    """The sentence for two shapes; relation is ``left of`` or ``above``."""
    return f"Two shapes on {background_phrase(background)}: {first} {relation} {second}."


def three_caption(shapes: tuple[Shape, Shape, Shape], background: str) -> str:
    """The sentence for three shapes, named from left to right."""
    first, second, third = shapes
    return f"Three shapes on {background_phrase(background)}: {first}, {second} and {third}."


def number_caption(digits: str, colour: str, place: str, background: str) -> str:
    """The sentence for a number of one to four digits."""
    return f'Text "{digits}" in {colour} {place} of {background_phrase(background)}.'


def size_word(extent: float) -> str:
    """The size word of a shape; extent is its longer side over the canvas's shorter side."""
    if extent < 0.305:
        return "small"
    return "medium" if extent < 0.53 else "large"


def place_index(fraction: float) -> int:
    """0, 1 or 2: the third of the canvas in which a centre at this fraction lies."""
    if fraction < 0.38:
        return 0
    return 1 if fraction <= 0.62 else 2
