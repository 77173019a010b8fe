"""The fonts of the demo captioner's numbers: which are trained, which are kept for the test.

Debian packages: fonts-dejavu fonts-liberation fonts-freefont-ttf fonts-roboto fonts-open-sans fonts-lato
fonts-noto-core fonts-inconsolata fonts-hack fonts-cantarell fonts-firacode fonts-crosextra-carlito
fonts-crosextra-caladea fonts-comfortaa fonts-urw-base35. Where one is missing Pillow's own font is used.
"""

import random
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_FONT_ROOT = Path("/usr/share/fonts")
_TRAINING = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
    "DejaVuSansCondensed.ttf",
    "LiberationSans-Regular.ttf",
    "LiberationSans-Bold.ttf",
    "LiberationSerif-Regular.ttf",
    "LiberationSerif-Bold.ttf",
    "LiberationMono-Regular.ttf",
    "LiberationSansNarrow-Regular.ttf",
    "LiberationSans-Italic.ttf",
    "FreeSans.ttf",
    "FreeSansBold.ttf",
    "FreeSerif.ttf",
    "FreeMono.ttf",
    "FreeMonoBold.ttf",
    "Roboto-Regular.ttf",
    "Roboto-Bold.ttf",
    "Roboto-Light.ttf",
    "RobotoCondensed-Regular.ttf",
    "Lato-Regular.ttf",
    "Lato-Bold.ttf",
    "Lato-Black.ttf",
    "NotoSans-Regular.ttf",
    "NotoSans-Bold.ttf",
    "NotoSerif-Regular.ttf",
    "Hack-Regular.ttf",
    "Hack-Bold.ttf",
    "Cantarell-Regular.otf",
    "Cantarell-Bold.otf",
    "FiraCode-Regular.ttf",
    "FiraCode-Bold.ttf",
    "NimbusSans-Regular.otf",
    "NimbusSans-Bold.otf",
    "NimbusRoman-Regular.otf",
    "NimbusMonoPS-Bold.otf",
    "P052-Roman.otf",
    "URWBookman-Light.otf",
    "URWGothic-Book.otf",
    "URWGothic-Demi.otf",
    "C059-Roman.otf",
    "C059-Bold.otf",
    "Comfortaa-Regular.ttf",
    "Comfortaa-Bold.ttf",
)
_HELD_OUT = (
    "OpenSans-Regular.ttf",
    "OpenSans-Bold.ttf",
    "Carlito-Regular.ttf",
    "Carlito-Bold.ttf",
    "Caladea-Regular.ttf",
    "Caladea-Bold.ttf",
    "NimbusSansNarrow-Regular.otf",
    "LiberationMono-Bold.ttf",
)
_COMMON = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "LiberationSans-Regular.ttf",
    "LiberationSans-Bold.ttf",
)


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    return {p.name: str(p) for p in _FONT_ROOT.rglob("*") if p.suffix in {".ttf", ".otf"}}


def font_paths() -> tuple[str, ...]:
    """Paths of the training fonts that are installed."""
    return tuple(path for name in _TRAINING if (path := _installed().get(name)))


@lru_cache(maxsize=4096)
def load_font(name: str, size_px: int) -> Font:
    """The named font, or Pillow's own where the name is empty or not installed."""
    path = _installed().get(name)
    return ImageFont.truetype(path, size_px) if path else ImageFont.load_default(size_px)


def pick_font_name(rng: random.Random, *, held_out: bool) -> str:
    """A font to draw a number with; the empty name is Pillow's own."""
    if held_out:
        return rng.choice(_HELD_OUT)
    draw = rng.random()
    if draw < 0.2:
        return ""
    return rng.choice(_COMMON) if draw < 0.4 else rng.choice(_TRAINING)
