"""RowImages: the images of one row's prompt, from pixels to embeddings. Worker thread only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx

if TYPE_CHECKING:
    import numpy as np

    from periscope.core import Image
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.multimodal.network import ImageEmbeddings, VisionLanguageNetwork
    from periscope.engine.text.images import PlacedImage


class RowImages:
    """Owns what a row's images have become: their embeddings, once each has been encoded, and the prompt's positions.

    Embeddings are kept while the row lives, so that a preempted row is prefilled again without the vision encoder. They
    take a few hundredths of what the KV cache of the same tokens takes.

    Args:
        token_ids: the prompt, with the model's image tokens.
        images: in the order of the prompt.

    Attributes:
        rope_delta: how far the position of the row's next token is from the number of its tokens; set by `locate`.
    """

    def __init__(self, token_ids: Sequence[int], images: Sequence[PlacedImage]) -> None:
        self._token_ids = token_ids
        self._images = images
        self._encoded: dict[int, ImageEmbeddings] = {}  # by the start of the image
        self._positions: np.ndarray | None = None
        self.rope_delta = 0

    @property
    def keyed_tokens(self) -> list[int]:
        """The prompt's tokens, with a number that no token has, and no other image, for each token of an image.

        A kept state is found by these, so that a prompt with another image does not start from it.
        """
        tokens = list(self._token_ids)
        for placed in self._images:
            tokens[placed.start : placed.stop] = [image_key(placed.image)] * (placed.stop - placed.start)
        return tokens

    @property
    def unencoded(self) -> tuple[tuple[int, int], ...]:
        """The places of the images that have not been encoded yet, in order."""
        return tuple((placed.start, placed.stop) for placed in self._images if placed.start not in self._encoded)

    def locate(self, network: VisionLanguageNetwork) -> None:
        """Compute the positions of the prompt's tokens; blocks for a moment. Called before the row is prefilled."""
        self._positions, self.rope_delta = network.positions(self._token_ids, [placed.grid for placed in self._images])

    def encode(self, network: VisionLanguageNetwork, at: int) -> None:
        """Run the vision encoder over the image that the token `at` belongs to; blocks.

        Raises:
            Exception: whatever the processor, the model or the device raises.
        """
        placed = next(placed for placed in self._images if placed.start <= at < placed.stop)
        self._encoded[placed.start] = network.encode(placed.image, self._token_ids[placed.start : placed.stop])
        mx.clear_cache()

    def prefill(
        self, network: VisionLanguageNetwork, tokens: Sequence[int], start: int, stop: int, caches: LayerCaches
    ) -> None:
        """Build the forward pass over the row's tokens from `start` to `stop`; nothing is computed yet.

        Args:
            tokens: the row's, which go on behind the prompt if it was preempted.
        """
        chunk = [*self._token_ids[start:stop], *tokens[max(start, len(self._token_ids)) : stop]]
        encoded = []
        for placed in self._images:
            first, last = max(start, placed.start), min(stop, placed.stop)
            if first < last:
                part = self._encoded[placed.start].part(first - placed.start, last - placed.start)
                encoded.append((first - start, part))
        network.prefill(chunk, encoded, self._positions_of(start, stop), caches)

    def _positions_of(self, start: int, stop: int) -> mx.array | None:
        """`(3, 1, stop - start)`; behind the prompt they count on, the same in all three axes."""
        if self._positions is None:
            return None
        behind = max(stop - len(self._token_ids), 0)
        first = max(start, len(self._token_ids)) + self.rope_delta
        counted = mx.broadcast_to(mx.arange(first, first + behind), (3, behind))
        positions = mx.array(self._positions[:, start:stop]).astype(mx.int32)
        return mx.concatenate([positions, counted.astype(mx.int32)], axis=1)[:, None]


def image_key(image: Image) -> int:
    """Pure: a negative number that stands for these pixels."""
    named = f"{image.sha256} {image.width}x{image.height}"
    return -1 - (int.from_bytes(hashlib.sha256(named.encode()).digest()[:8]) >> 1)
