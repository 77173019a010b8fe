"""Keys of an entry that mean something for models of another kind only, or beside another key. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from periscope.config.schema import ModelEntry
from periscope.core import ModelKind, VisionMode

_FOR_TEXT_MODELS = "is for models that answer requests, and this one does not; remove it"
_FOR_CAPTIONERS = "is for models that only caption images, and this one answers requests; remove it"
_FOR_EMBEDDERS = "is for embedding models, and this one embeds no texts; remove it, or set kind: embedding"
_NOT_FOR_EMBEDDERS = "is for models that answer, and this one only embeds texts; remove it, or set kind: text"


def misplaced(entry: ModelEntry, captioners: set[str]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Pure: the keys of this entry that mean nothing for it, each with what is wrong."""
    is_captioner, is_embedder = entry.name in captioners, entry.kind == ModelKind.EMBEDDING.value
    if entry.isolated and not is_captioner:
        yield ("isolated",), _FOR_CAPTIONERS
    has_tiles = is_captioner or entry.capabilities.vision_mode is VisionMode.NATIVE
    if entry.params.max_image_tiles is not None and not has_tiles:
        yield ("params", "max_image_tiles"), _FOR_CAPTIONERS
    if is_captioner or is_embedder:
        yield from ((key, _FOR_TEXT_MODELS) for key in _keys_of_text_models(entry))
    if is_embedder and entry.capabilities.vision_mode is not VisionMode.DISABLED:
        yield ("capabilities", "vision_mode"), _NOT_FOR_EMBEDDERS
    if entry.params.kv_group_size is not None and entry.params.kv_bits is None:
        yield ("params", "kv_group_size"), "is for kv_bits, and there is none; remove it, or set kv_bits"
    for key in ("pooling", "matryoshka"):
        if getattr(entry.params, key) is not None and not is_embedder:
            yield ("params", key), _FOR_EMBEDDERS


def _keys_of_text_models(entry: ModelEntry) -> Iterator[tuple[str, ...]]:
    if entry.variants:
        yield ("variants",)
    if entry.warm:
        yield ("warm",)
    for key in ("chat_template", "tool_parser", "reasoning_parser", "kv_bits"):
        if getattr(entry.params, key) is not None:
            yield ("params", key)
