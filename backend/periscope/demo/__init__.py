"""The embedded demo pair: two tiny models, trained by the recipes in `training` and shipped with the package.

`local_path: embedded:text` and `embedded:captioner` in models.yaml mean these folders. They load through the same
code as any other model.
"""

from __future__ import annotations

from pathlib import Path

_WEIGHTS = Path(__file__).resolve().parent / "weights"

#: What a `local_path` starts with when the model is inside the package.
EMBEDDED = "embedded:"
#: What models.yaml calls them -> the folder with config, weights and tokenizer.
EMBEDDED_MODELS = {"embedded:text": _WEIGHTS / "text", "embedded:captioner": _WEIGHTS / "captioner"}
