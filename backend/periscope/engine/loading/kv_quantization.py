"""KVQuantization: how the numbers of KV caches are stored in fewer bits, and what they take then. Pure: no MLX.

Source: mlx's affine mode: a group of neighbouring numbers of one token and head shares a scale and a bias, which have
the type of the model's activations.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from periscope.errors import ModelLoadError

#: Sizes of groups that are tried in this order where none is configured. mlx has 128, too, which is coarser.
_GROUP_SIZES = (64, 32)


@dataclass(frozen=True, slots=True)
class KVQuantization:
    """Keys and values in `bits` bits each, with a scale and a bias per `group_size` of them."""

    bits: int
    group_size: int

    @classmethod
    def of(cls, bits: int, group_size: int | None, head_dims: Iterable[int]) -> KVQuantization:
        """The quantisation of a model with these head dimensions.

        Args:
            group_size: None = 64, or 32 where the head dimensions are no multiples of 64.

        Raises:
            ModelLoadError: a head does not consist of whole groups.
        """
        dims = sorted({*head_dims})
        sizes = _GROUP_SIZES if group_size is None else (group_size,)
        for size in sizes:
            if all(dim % size == 0 for dim in dims):
                return cls(bits, size)
        advice = "Remove `kv_bits`" + (
            "." if group_size is None else f", or set `kv_group_size` to a smaller one of {_choices(_GROUP_SIZES)}."
        )
        raise ModelLoadError(
            f"`kv_bits` needs heads of whole groups of {_choices(sizes)} numbers, and this model has heads of "
            f"{', '.join(map(str, dims))}. {advice}"
        )

    def nbytes(self, num_numbers: int, item_bytes: int) -> int:
        """Bytes of keys and values that would take `num_numbers * item_bytes` as they are; whole groups."""
        return num_numbers * self.bits // 8 + num_numbers // self.group_size * 2 * item_bytes


def _choices(sizes: Iterable[int]) -> str:
    return " or ".join(map(str, sizes))
