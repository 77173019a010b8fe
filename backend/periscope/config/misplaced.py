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
    if not is_captioner:
        yield from ((key, _FOR_CAPTIONERS) for key in _keys_of_captioners(entry))
    if is_captioner or is_embedder:
        yield from ((key, _FOR_TEXT_MODELS) for key in _keys_of_text_models(entry))
    if not is_embedder:
        yield from ((key, _FOR_EMBEDDERS) for key in _given(entry, "pooling", "matryoshka"))
    elif entry.capabilities.vision_mode is not VisionMode.DISABLED:
        yield ("capabilities", "vision_mode"), _NOT_FOR_EMBEDDERS
    if entry.params.kv_group_size is not None and entry.params.kv_bits is None:
        yield ("params", "kv_group_size"), "is for kv_bits, and there is none; remove it, or set kv_bits"


def _keys_of_captioners(entry: ModelEntry) -> Iterator[tuple[str, ...]]:
    if entry.isolated:
        yield ("isolated",)
    if entry.capabilities.vision_mode is not VisionMode.NATIVE:  # which has tiles, too
        yield from _given(entry, "max_image_tiles")


def _keys_of_text_models(entry: ModelEntry) -> Iterator[tuple[str, ...]]:
    if entry.variants:
        yield ("variants",)
    if entry.warm:
        yield ("warm",)
    yield from _given(entry, "chat_template", "tool_parser", "reasoning_parser", "kv_bits")


def _given(entry: ModelEntry, *keys: str) -> Iterator[tuple[str, ...]]:
    """The keys of `params`, of these, that the entry has."""
    return (("params", key) for key in keys if getattr(entry.params, key) is not None)
