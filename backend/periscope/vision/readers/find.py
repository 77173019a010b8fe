"""Finds this machine's text reader: Apple's Vision on a Mac, RapidOCR elsewhere, or none."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from periscope.errors import ConfigError
from periscope.vision.readers.apple_vision import AppleVisionReader
from periscope.vision.readers.rapidocr import RapidOCRReader
from periscope.vision.readers.reader import TextReader

INSTALL: Final = "pip install 'mlx-periscope[ocr]'"


class ReaderKind(StrEnum):
    """The readers that `vision_proxy.reader` names. `AUTO` takes the first of the others that is installed."""

    AUTO = "auto"
    APPLE_VISION = "apple_vision"
    RAPIDOCR = "rapidocr"
    NONE = "none"


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def find_reader(
    kind: ReaderKind,
    languages: tuple[str, ...] = (),
    *,
    platform: str = sys.platform,
    is_installed: Callable[[str], bool] = _is_installed,
) -> TextReader | None:
    """The reader of this kind. Nothing is imported or loaded yet.

    Args:
        languages: BCP 47 tags, for Apple's Vision. The models of RapidOCR's wheel read Latin and Chinese script.

    Raises:
        ConfigError: the named reader cannot run on this machine.
    """
    can_apple = platform == "darwin" and is_installed("ocrmac")
    can_rapidocr = is_installed("rapidocr") and is_installed("onnxruntime")
    match kind:
        case ReaderKind.NONE:
            return None
        case ReaderKind.AUTO:
            return AppleVisionReader(languages) if can_apple else RapidOCRReader() if can_rapidocr else None
        case ReaderKind.APPLE_VISION:
            if platform != "darwin":
                raise ConfigError(("`reader: apple_vision` runs on macOS only. Set `reader: auto` or `rapidocr`.",))
            if not can_apple:
                raise ConfigError((f"`reader: apple_vision` needs the package `ocrmac`: {INSTALL}",))
            return AppleVisionReader(languages)
        case ReaderKind.RAPIDOCR:
            if not can_rapidocr:
                raise ConfigError(("`reader: rapidocr` needs two packages: pip install rapidocr onnxruntime",))
            return RapidOCRReader()
