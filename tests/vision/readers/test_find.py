"""Which reader a setting means on which machine."""

from __future__ import annotations

import pytest

from periscope.errors import ConfigError
from periscope.vision.readers.find import ReaderKind, find_reader

BOTH = frozenset({"rapidocr", "onnxruntime", "ocrmac"})
NOTHING: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("kind", "platform", "installed", "name"),
    [
        ("auto", "darwin", BOTH, "apple_vision"),
        ("auto", "darwin", BOTH - {"ocrmac"}, "rapidocr"),
        ("auto", "linux", BOTH, "rapidocr"),
        ("auto", "linux", {"rapidocr"}, None),
        ("auto", "linux", NOTHING, None),
        ("none", "darwin", BOTH, None),
        ("rapidocr", "darwin", BOTH, "rapidocr"),
        ("apple_vision", "darwin", BOTH, "apple_vision"),
    ],
)
def test_the_reader_of_a_machine(kind: str, platform: str, installed: frozenset[str], name: str | None) -> None:
    """Apple's on a Mac, RapidOCR elsewhere, none where nothing is installed."""
    reader = find_reader(ReaderKind(kind), platform=platform, is_installed=installed.__contains__)
    assert (reader and reader.name) == name


@pytest.mark.parametrize(
    ("kind", "platform", "says"),
    [
        ("apple_vision", "linux", "macOS only"),
        ("apple_vision", "darwin", r"pip install 'mlx-periscope\[ocr\]'"),
        ("rapidocr", "linux", "pip install rapidocr onnxruntime"),
    ],
)
def test_a_reader_that_cannot_run_is_refused_with_the_fix(kind: str, platform: str, says: str) -> None:
    """Asked for by name, it is never left out silently."""
    with pytest.raises(ConfigError, match=says):
        find_reader(ReaderKind(kind), platform=platform, is_installed=NOTHING.__contains__)
