"""VisionLanguageNetwork: mlx-vlm's model of one family, as a batch calls a language model. Worker thread only.

Contains all that depends on mlx-vlm's versions on the way of an image into a batch. Families differ in what they make
of an image besides embeddings; `ImageEmbeddings` holds what can be cut and joined token by token, and a family that
needs more is refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models import cache as lm_caches
from mlx_vlm.models.cache import make_prompt_cache

from periscope.engine.multimodal.processor import SAMPLE_IMAGE
from periscope.errors import GenerationFailed, ModelLoadError

if TYPE_CHECKING:
    from periscope.core import Image
    from periscope.engine.multimodal.processor import ImageProcessor

_ADVICE = "Use the model as the captioner of a text model instead (`vision_mode: proxy`)."
#: The same logits computed twice, among other tokens, differ by no more than this part of the largest.
_MAX_ROUNDING = 0.01
#: What `get_input_embeddings` returns for each token; the second is Gemma 4's.
_FEATURES = frozenset({"inputs_embeds", "per_layer_inputs"})
#: What it may return besides these and what is added to the first layers' outputs: a mask that mlx-vlm 0.7 does not
#: use, and positions, which are computed for the whole prompt.
_UNUSED_FEATURES = frozenset({"attention_mask_4d", "position_ids", "rope_deltas"})


@dataclass(frozen=True, slots=True)
class ImageEmbeddings:
    """What a language model is given in place of an image's tokens, or of a part of them.

    Attributes:
        features: by the names of the model's arguments, each `(1, num_tokens, ...)`; `inputs_embeds` among them.
        is_visual: `(num_tokens,)`, which of them are image tokens; the others separate the image's tiles.
        layers: one `(num_image_tokens, hidden)` for each of the first layers, added to its output (deepstack).
    """

    features: Mapping[str, mx.array]
    is_visual: np.ndarray
    layers: tuple[mx.array, ...] = ()

    def part(self, start: int, stop: int) -> ImageEmbeddings:
        """The embeddings of the tokens from `start` to `stop`; lazy."""
        first, last = (int(self.is_visual[:end].sum()) for end in (start, stop))
        layers = tuple(layer[first:last] for layer in self.layers)
        features = {name: value[:, start:stop] for name, value in self.features.items()}
        return ImageEmbeddings(features, self.is_visual[start:stop], layers)

    def with_other_rest(self) -> ImageEmbeddings:
        """Another image whose first token is the same; lazy."""
        features = {
            name: mx.concatenate([value[:, :1], -value[:, 1:]], axis=1) for name, value in self.features.items()
        }
        return ImageEmbeddings(features, self.is_visual, self.layers)


class VisionLanguageNetwork(nn.Module):
    """Owns the weights of a vision-language model; shows itself to the batch as a language model with mlx-lm's caches.

    Positions are an argument of every forward pass. mlx-vlm 0.7 would keep those of the newest prompt in the model
    itself, which is right for one request at a time only.

    Args:
        model: mlx-vlm's.
        images: preprocesses images for it.
    """

    def __init__(self, model: Any, images: ImageProcessor) -> None:
        super().__init__()
        self.model = model
        self._images = images
        self._token_id = images.image_token_id
        self._has_grids = hasattr(model.language_model, "get_rope_index")

    def make_cache(self) -> list[Any]:
        """The caches of one sequence, of mlx-lm's classes, which batches can put side by side.

        Raises:
            ModelLoadError: the model needs a kind that mlx-lm has no counterpart of.
        """
        return [_as_mlx_lm(made) for made in make_prompt_cache(self.model.language_model)]

    def __call__(
        self,
        tokens: mx.array,
        cache: list[Any],
        *,
        rope_deltas: Sequence[int] | None = None,
        positions: mx.array | None = None,
        **features: Any,
    ) -> mx.array:
        """Logits `(rows, length, vocabulary)` of tokens `(rows, length)`.

        Args:
            rope_deltas: how far each row's next position is from the number of its tokens; None = not at all.
            positions: `(3, rows, length)`, of a prompt with images.
            features: what stands in place of the tokens' own embeddings.
        """
        if self._has_grids:
            features["position_ids"] = (
                _positions_from(_offset_of(cache), tokens.shape, rope_deltas) if positions is None else positions
            )
        logits: mx.array = self.model.language_model(tokens, cache=cache, **features).logits
        return logits

    def check_vision(self) -> None:
        """Run the vision encoder and a forward pass over a small gray image; blocks.

        Raises:
            ModelLoadError: this family's images cannot be put into a batch.
        """
        try:
            is_finite, is_causal = self._sample_facts()
        except ModelLoadError:
            raise
        except Exception as error:
            is_known = isinstance(error, GenerationFailed)
            reason = str(error) if is_known else f"The vision encoder does not work ({type(error).__name__}: {error})."
            raise ModelLoadError(f"{reason} {_ADVICE}") from error
        if not is_finite:
            raise ModelLoadError("The model gives no numbers for an image. Its files may be damaged: pull it again.")
        if not is_causal:
            raise ModelLoadError(
                "The attention of this architecture is not causal within an image, so that its prompts cannot be "
                f"computed in chunks. {_ADVICE}"
            )

    def _sample_facts(self) -> tuple[bool, bool]:
        """Whether the sample's logits are numbers, and whether they are the same whatever the rest of the image is."""
        image = self.encode(SAMPLE_IMAGE, self._images.sample_ids)
        logits, with_other_rest = self._sample_logits(image), self._sample_logits(image.with_other_rest())
        is_causal = mx.abs(logits - with_other_rest).max() <= _MAX_ROUNDING * mx.abs(logits).max()
        return bool(mx.isfinite(logits).all().item()), bool(is_causal.item())

    def _sample_logits(self, image: ImageEmbeddings) -> mx.array:
        """The logits after the first token of an image in a short prompt; lazy."""
        prompt = [0, *self._images.sample_ids, 0]
        found, _ = self.positions(prompt, [self._images.sample.grid])
        positions = None if found is None else mx.array(found)[:, None]
        return self.prefill(prompt, [(1, image)], positions, self.make_cache())[:, 1]

    def encode(self, image: Image, token_ids: Sequence[int]) -> ImageEmbeddings:
        """Run the vision encoder over one image; blocks until it is computed.

        Args:
            token_ids: of the image's place in the prompt.

        Raises:
            GenerationFailed: this family needs more than `ImageEmbeddings` holds.
            Exception: whatever the processor, the model or the device raises.
        """
        inputs = self._images.inputs(image)
        ids = mx.array([list(token_ids)])
        pixels = inputs.pop("pixel_values")
        found = self.model.get_input_embeddings(ids, pixels, mask=mx.ones_like(ids), **inputs).to_dict()
        made = {name: value for name, value in found.items() if value is not None}
        layers = tuple(made.pop("deepstack_visual_embeds", ()))
        made.pop("visual_pos_masks", None)
        features = {name: made.pop(name) for name in _FEATURES & made.keys()}
        if unknown := made.keys() - _UNUSED_FEATURES:
            raise GenerationFailed(
                f"This architecture needs {', '.join(sorted(unknown))} beside an image's embeddings, which the batch "
                "does not carry."
            )
        if any(value.shape[1] != len(token_ids) for value in features.values()):
            raise GenerationFailed(
                "mlx-vlm makes another number of embeddings than tokens of an image for this architecture."
            )
        mx.eval(*features.values(), *layers)
        return ImageEmbeddings(features, np.asarray(token_ids) == self._token_id, layers)

    def prefill(
        self,
        token_ids: Sequence[int],
        encoded: Sequence[tuple[int, ImageEmbeddings]],
        positions: mx.array | None,
        cache: list[Any],
    ) -> mx.array:
        """Build the forward pass over a chunk of a prompt, images in it included; lazy.

        Args:
            token_ids: of the chunk.
            encoded: parts of images and where in the chunk they begin, in order.
            positions: `(3, 1, length)`; None = counted on from the caches.
        """
        tokens = mx.array([list(token_ids)])
        if not encoded:
            return self(tokens, cache, positions=positions)
        pieces: list[Mapping[str, mx.array]] = []
        is_visual, at = np.zeros(len(token_ids), dtype=np.bool_), 0
        for start, image in encoded:
            if start > at:
                pieces.append(self._embedded(tokens[:, at:start]))
            at = start + len(image.is_visual)
            is_visual[start:at] = image.is_visual
            pieces.append(image.features)
        if at < len(token_ids):
            pieces.append(self._embedded(tokens[:, at:]))
        features: dict[str, Any] = {
            name: mx.concatenate([piece[name] for piece in pieces], axis=1) for name in pieces[0]
        }
        parts_of_layers = zip(*(image.layers for _, image in encoded), strict=True)
        if layers := [mx.concatenate(list(parts)) for parts in parts_of_layers]:
            features |= {"visual_pos_masks": mx.array(is_visual[None]), "deepstack_visual_embeds": layers}
        return self(tokens, cache, positions=positions, **features)

    def _embedded(self, tokens: mx.array) -> Mapping[str, mx.array]:
        made = self.model.get_input_embeddings(tokens, None).to_dict()
        return {name: made[name] for name in _FEATURES if made[name] is not None}

    def positions(self, token_ids: Sequence[int], grids: Sequence[tuple[int, ...]]) -> tuple[np.ndarray | None, int]:
        """Positions `(3, num_tokens)` of a prompt with images, and how far the next one is from `num_tokens`.

        None and 0 for families whose positions count tokens. Blocks.
        """
        if not self._has_grids:
            return None, 0
        found, delta = self.model.language_model.get_rope_index(mx.array([list(token_ids)]), mx.array(list(grids)))
        return np.asarray(found)[:, 0], int(delta.item())


def _offset_of(cache: Sequence[Any]) -> Any:
    """How many tokens the caches hold, of each row; states of fixed size do not know it."""
    return next(layer.offset for layer in cache if hasattr(layer, "offset"))


def _positions_from(offset: Any, shape: tuple[int, ...], rope_deltas: Sequence[int] | None) -> mx.array:
    """Positions of text, the same in all three axes, counted on from what the caches hold."""
    rows, length = shape
    first = mx.broadcast_to(mx.array(offset).reshape(-1, 1), (rows, 1))
    if rope_deltas is not None:
        first = first + mx.array(list(rope_deltas))[:, None]
    return mx.broadcast_to(first + mx.arange(length), (3, rows, length))


def _as_mlx_lm(made: Any) -> Any:
    match type(made).__name__:
        case "KVCache":
            return lm_caches.KVCache()
        case "RotatingKVCache":
            return lm_caches.RotatingKVCache(max_size=made.max_size, keep=made.keep)
        case "ArraysCache":  # its merge and extract are those of mlx-lm, and its models call more of it
            return made
        case other:
            raise ModelLoadError(
                f"This architecture keeps its state in a {other}, which the batch does not know. {_ADVICE}"
            )
