"""RapidOCR as a text reader: PP-OCR models on onnxruntime's CPU backend. Its wheel contains the models."""

from __future__ import annotations

import logging
import os
from importlib.metadata import version
from typing import Any, Final

import numpy as np

from periscope.core import Image
from periscope.vision.readers.condensed import Condensed, condensed
from periscope.vision.readers.reader import TextBox

#: Half of the machine's cores; the other half is for decoding text.
_NUM_THREADS: Final = max(1, (os.cpu_count() or 2) // 2)
#: The detector works at the picture's own size up to this side; it would scale small pictures up by default, which
#: takes a second of CPU time for an icon.
_MAX_SIDE_PX: Final = 2000
#: Part of every cache key: raise it when the same picture gives other runs of text.
_METHOD: Final = 2
#: The score from which a sign that stands alone is taken for one. Drawn shapes are read as `O`, `8` or `1` with up to
#: 0.94, digits and most letters with more.
_SURE: Final = 0.95
_PARAMS: Final = {
    "Global.log_level": "critical",
    "Global.use_cls": False,  # it finds only upside-down lines, and mistakes some upright ones for such
    "Det.limit_type": "max",
    "Det.limit_side_len": _MAX_SIDE_PX,
    "EngineConfig.onnxruntime.intra_op_num_threads": _NUM_THREADS,
    "EngineConfig.onnxruntime.inter_op_num_threads": 1,
}


class RapidOCRReader:
    """Owns RapidOCR's sessions, made at the first picture (about a second). Used by one thread at a time."""

    name = "rapidocr"

    def __init__(self) -> None:
        self._engine: Any = None

    @property
    def revision(self) -> str:
        """The package's version, which decides its models, the size at which the detector works, and how it is used."""
        return f"{version('rapidocr')}/{_MAX_SIDE_PX}/{_METHOD}"

    def read(self, image: Image) -> tuple[TextBox, ...]:
        """Runs of text with their boxes; see `TextReader`."""
        if self._engine is None:
            self._engine = _new_engine()
        dense = condensed(np.frombuffer(image.rgb, np.uint8).reshape(image.height, image.width, 3))
        found = self._engine(np.ascontiguousarray(dense.pixels[:, :, ::-1]))
        if found.boxes is None or not found.txts or not any(map(_is_text, found.txts, found.scores)):
            return ()
        return tuple(_box(text, corners, dense) for text, corners in zip(found.txts, found.boxes, strict=True))


def _new_engine() -> Any:
    from rapidocr import RapidOCR

    engine = RapidOCR(params=_PARAMS)
    # It adds a handler of its own to its logger; the server's log has one format.
    log = logging.getLogger("RapidOCR")
    log.handlers.clear()
    log.propagate = True
    return engine


def _is_text(run: str, score: float) -> bool:
    """Pure: whether a run is more than one sign, or surely that one. A picture without such a run has no text.

    Beside other text a sign is part of it, whatever its score.
    """
    return len(run.strip()) > 1 or score >= _SURE


def _box(text: str, corners: Any, dense: Condensed) -> TextBox:
    """Corners in the picture that was read, shape (4, 2), as an upright box in the whole one."""
    return TextBox(text, *dense.place(*corners.min(axis=0).tolist()), *dense.place(*corners.max(axis=0).tolist()))
