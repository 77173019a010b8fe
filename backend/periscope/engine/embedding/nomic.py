"""Nomic's BERT (nomic-embed-text-v1 and v1.5): rotary positions, a gated feed-forward layer, norms after each step.

Source: transformers' `NomicBertModel` and its table of the checkpoint's names. Worker thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx import nn

from periscope.core import JSONObject
from periscope.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

#: Settings that change what is computed -> the only value that is computed here.
_FIXED: JSONObject = {
    "activation_function": "swiglu",
    "prenorm": False,
    "use_rms_norm": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "moe_every_n_layers": 0,
    "parallel_block": False,
}


@dataclass(frozen=True, slots=True)
class NomicBertArgs:
    """The sizes of the network."""

    vocab_size: int
    n_embd: int
    n_head: int
    n_inner: int
    n_layer: int
    type_vocab_size: int = 2
    layer_norm_epsilon: float = 1e-12
    rotary_emb_base: float = 1000.0

    @classmethod
    def from_dict(cls, config: JSONObject) -> NomicBertArgs:
        """The sizes in a config.json."""
        return cls(**{key: value for key, value in config.items() if key in cls.__dataclass_fields__})


def classes(path: Path, config: JSONObject) -> tuple[type, type]:
    """The classes with which mlx-lm's loader makes the network.

    Raises:
        ModelLoadError: the config asks for a variant that is not computed here.
    """
    if not config.get("n_embd"):
        raise ModelLoadError(
            f"{path.name} was saved by transformers 5, which renames the weights of nomic_bert. Use the original "
            "repository, such as nomic-ai/nomic-embed-text-v1.5."
        )
    for key, known in _FIXED.items():
        if config.get(key, known) != known:
            raise ModelLoadError(
                f"{path.name} has {key} {config[key]!r}, and only {known!r} is computed for nomic_bert. Choose another "
                "embedding model."
            )
    return NomicBert, NomicBertArgs


class _Embeddings(nn.Module):
    def __init__(self, args: NomicBertArgs) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(args.vocab_size, args.n_embd)
        if args.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(args.type_vocab_size, args.n_embd)

    def __call__(self, ids: mx.array) -> mx.array:
        states = self.word_embeddings(ids)
        return states + self.token_type_embeddings(mx.zeros_like(ids)) if "token_type_embeddings" in self else states


class _Attention(nn.Module):
    def __init__(self, args: NomicBertArgs) -> None:
        super().__init__()
        self.num_heads = args.n_head
        self.head_size = args.n_embd // args.n_head
        self.Wqkv = nn.Linear(args.n_embd, 3 * args.n_embd, bias=False)
        self.out_proj = nn.Linear(args.n_embd, args.n_embd, bias=False)
        self.rope = nn.RoPE(self.head_size, base=args.rotary_emb_base)

    def __call__(self, states: mx.array, mask: mx.array) -> mx.array:
        num_texts, num_tokens, size = states.shape
        packed = self.Wqkv(states).reshape(num_texts, num_tokens, 3, self.num_heads, self.head_size)
        queries, keys, values = packed.transpose(2, 0, 3, 1, 4)
        mixed = mx.fast.scaled_dot_product_attention(
            self.rope(queries), self.rope(keys), values, scale=self.head_size**-0.5, mask=mask
        )
        return self.out_proj(mixed.transpose(0, 2, 1, 3).reshape(num_texts, num_tokens, size))


class _FeedForward(nn.Module):
    def __init__(self, args: NomicBertArgs) -> None:
        super().__init__()
        self.fc11 = nn.Linear(args.n_embd, args.n_inner, bias=False)
        self.fc12 = nn.Linear(args.n_embd, args.n_inner, bias=False)
        self.fc2 = nn.Linear(args.n_inner, args.n_embd, bias=False)

    def __call__(self, states: mx.array) -> mx.array:
        return self.fc2(self.fc11(states) * nn.silu(self.fc12(states)))


class _Layer(nn.Module):
    def __init__(self, args: NomicBertArgs) -> None:
        super().__init__()
        self.attn = _Attention(args)
        self.mlp = _FeedForward(args)
        self.norm1 = nn.LayerNorm(args.n_embd, eps=args.layer_norm_epsilon)
        self.norm2 = nn.LayerNorm(args.n_embd, eps=args.layer_norm_epsilon)

    def __call__(self, states: mx.array, mask: mx.array) -> mx.array:
        states = self.norm1(states + self.attn(states, mask))
        return self.norm2(states + self.mlp(states))


class _Encoder(nn.Module):
    def __init__(self, args: NomicBertArgs) -> None:
        super().__init__()
        self.layers = [_Layer(args) for _ in range(args.n_layer)]


class NomicBert(nn.Module):
    """The whole encoder, by the names that the checkpoint has."""

    def __init__(self, args: NomicBertArgs) -> None:
        super().__init__()
        self.embeddings = _Embeddings(args)
        self.emb_ln = nn.LayerNorm(args.n_embd, eps=args.layer_norm_epsilon)
        self.encoder = _Encoder(args)

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        """Hidden states of shape (texts, tokens, size); `mask` of shape (texts, tokens) is false for padding."""
        states = self.emb_ln(self.embeddings(ids))
        for layer in self.encoder.layers:
            states = layer(states, mask[:, None, None, :])
        return states

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """The weights without those of heads."""
        named = {name.removeprefix("bert."): array for name, array in weights.items()}
        return {name: array for name, array in named.items() if not name.startswith(("cls.", "pooler."))}
