"""KVShape: the size of a conversation's caches, estimated from config.json. Pure: no files, no weights, no MLX.

The keys are those of the families' own configs, and the shapes those of the caches that mlx-lm 0.32 makes for them. The
estimate serves until the model is loaded; then `KVFootprint` measures the caches themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from periscope.core import JSONObject
from periscope.engine.device.memory import BLOCK_TOKENS
from periscope.engine.loading.kv_quantization import KVQuantization

#: What a family's configs leave out because transformers has it as a default; mlx-lm's default is the same or none.
FAMILY_DEFAULTS: Mapping[str, JSONObject] = {
    "gemma3_text": {
        "head_dim": 256,
        "max_position_embeddings": 131072,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "sliding_window_pattern": 6,
    },
}
#: Architectures whose compressed states (`kv_lora_rank`) mlx-lm caches as they are. Others are cached expanded.
_KEPT_COMPRESSED = frozenset({"deepseek_v3", "glm4_moe_lite", "joyai_llm_flash", "kimi_k2", "mistral4"})
#: Llama 4: one in this many layers attends to all tokens, the others to chunks of `attention_chunk_size`.
_CHUNK_PATTERN = 4


class _Kind(StrEnum):
    """What a layer caches: all tokens, those in a sliding window, those in a chunk, or a state of fixed size."""

    FULL = "full"
    WINDOW = "window"
    CHUNK = "chunk"
    STATE = "state"


@dataclass(frozen=True, slots=True)
class KVShape:
    """The layers of a model that have caches of their own, by what they cache.

    Attributes:
        kinds: one per layer.
        token_numbers: numbers per token, by kind of layer.
        state_numbers: numbers of a layer with a state, whatever the length.
        window_tokens: tokens in a sliding window and in a chunk; 0 = no bound.
        head_dim: numbers in a head's keys of one token, in the layers that cache all tokens.
    """

    kinds: Sequence[_Kind]
    token_numbers: Mapping[_Kind, int]
    state_numbers: int
    window_tokens: Mapping[_Kind, int]
    head_dim: int

    @classmethod
    def of(cls, model_config: JSONObject) -> KVShape | None:
        """The shape that a config describes; None when the config does not say enough."""
        text = text_config_of(model_config)
        token_numbers = _token_numbers(text)
        kinds = _kinds(text)
        if not kinds or not token_numbers:
            return None
        windows = {_Kind.WINDOW: count_of(text, "sliding_window"), _Kind.CHUNK: count_of(text, "attention_chunk_size")}
        numbers = dict.fromkeys((_Kind.FULL, _Kind.WINDOW, _Kind.CHUNK), token_numbers)
        numbers[_Kind.FULL] = _global_token_numbers(text) or token_numbers
        head_dim = count_of(text, "global_head_dim") or _head_dim(text)
        return cls(kinds, numbers, _state_numbers(text), windows, head_dim)

    def nbytes(self, num_tokens: int, item_bytes: int, quantization: KVQuantization | None = None) -> int:
        """Bytes of all caches of a conversation of `num_tokens` tokens.

        Args:
            item_bytes: of one number as it is.
            quantization: of the layers that cache all tokens.
        """
        total = 0
        for kind in self.kinds:
            num_numbers = self._of_layer(kind, num_tokens)
            if quantization is not None and kind is _Kind.FULL:
                total += quantization.nbytes(num_numbers, item_bytes)
            else:
                total += num_numbers * item_bytes
        return total

    def _of_layer(self, kind: _Kind, num_tokens: int) -> int:
        if kind is _Kind.STATE:
            return self.state_numbers
        num_slots = -(-num_tokens // BLOCK_TOKENS) * BLOCK_TOKENS
        window = self.window_tokens.get(kind, 0)
        if window:  # a chunked cache grows up to two blocks beyond the chunk before it is trimmed
            num_slots = min(num_slots, window + (2 * BLOCK_TOKENS if kind is _Kind.CHUNK else 0))
        return num_slots * self.token_numbers[kind]


def text_config_of(model_config: JSONObject) -> JSONObject:
    """The part of a config that describes the text model, with its family's defaults filled in."""
    nested = model_config.get("text_config")
    text = nested if isinstance(nested, dict) else model_config
    return FAMILY_DEFAULTS.get(str(text.get("model_type")), {}) | text


def _token_numbers(text: JSONObject) -> int:
    """Per token of one layer: keys and values, or compressed state and rotated part of the keys; 0 = unknown."""
    if "kv_lora_rank" in text:
        rotated = count_of(text, "qk_rope_head_dim")
        is_kept = rotated and text.get("model_type") in _KEPT_COMPRESSED
        return count_of(text, "kv_lora_rank") + rotated if is_kept else 0
    kv_heads = count_of(text, "num_key_value_heads") or count_of(text, "num_attention_heads")
    return 2 * kv_heads * _head_dim(text)


def _head_dim(text: JSONObject) -> int:
    """Numbers in a head's keys of one token; of the rotated part alone where the rest is cached compressed."""
    if "kv_lora_rank" in text:
        return count_of(text, "qk_rope_head_dim")
    return count_of(text, "head_dim") or count_of(text, "hidden_size") // max(count_of(text, "num_attention_heads"), 1)


def _global_token_numbers(text: JSONObject) -> int:
    """Per token of a layer without a window, if such layers have other heads (Gemma 4); else 0."""
    kv_heads = count_of(text, "num_global_key_value_heads") if text.get("attention_k_eq_v") is True else 0
    return 2 * (kv_heads or count_of(text, "num_key_value_heads")) * count_of(text, "global_head_dim")


def _state_numbers(text: JSONObject) -> int:
    """Numbers in the state of one layer of linear attention or Mamba 2, that of its convolution included."""
    keys = count_of(text, "linear_num_key_heads") * count_of(text, "linear_key_head_dim")
    values = count_of(text, "linear_num_value_heads") * count_of(text, "linear_value_head_dim")
    linear = values * count_of(text, "linear_key_head_dim")
    linear += (2 * keys + values) * max(count_of(text, "linear_conv_kernel_dim") - 1, 0)
    inner, state = count_of(text, "mamba_n_heads") * count_of(text, "mamba_d_head"), count_of(text, "mamba_d_state")
    mamba = inner * state
    mamba += (inner + 2 * count_of(text, "mamba_n_groups") * state) * max(count_of(text, "mamba_d_conv") - 1, 0)
    return linear + mamba


def _kinds(text: JSONObject) -> Sequence[_Kind]:
    """Kinds of the layers that have caches; the last `num_kv_shared_layers` use those of earlier layers."""
    num_layers = count_of(text, "num_hidden_layers")
    listed = text.get("layer_types")
    if isinstance(listed, list) and listed and text.get("model_type") != "llama4_text":
        kinds = [_listed_kind(str(name)) for name in listed]
    else:
        kinds = [_kind_at(text, index) for index in range(num_layers)]
    return kinds[: len(kinds) - count_of(text, "num_kv_shared_layers")]


def _listed_kind(name: str) -> _Kind:
    if "attention" not in name or "linear" in name:
        return _Kind.STATE
    return _Kind.WINDOW if "sliding" in name else _Kind.FULL


def _kind_at(text: JSONObject, index: int) -> _Kind:
    """The kind of a layer where the config lists none: the last layer of every pattern attends to all tokens."""
    for key, kind in (("full_attention_interval", _Kind.STATE), ("sliding_window_pattern", _Kind.WINDOW)):
        if pattern := count_of(text, key):
            return _Kind.FULL if (index + 1) % pattern == 0 else kind
    has_chunks = text.get("model_type") == "llama4_text" and count_of(text, "attention_chunk_size")
    return _Kind.CHUNK if has_chunks and (index + 1) % _CHUNK_PATTERN else _Kind.FULL


def count_of(config: JSONObject, key: str) -> int:
    """The positive whole number under a key of a config; 0 when there is none."""
    value = config.get(key)
    return value if type(value) is int and value > 0 else 0
