"""The demo captioner in PyTorch: mlx-vlm's qwen3_vl at toy size, for training only.

Parameter names are mlx-vlm's. Batched over pictures of one patch grid, which is all that training needs.
Source of the architecture: mlx-vlm 0.7.10, `models/qwen3_vl/{vision,language}.py`.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.captioner.data import MERGE, PATCH_PX


@dataclass(frozen=True)
class Dimensions:
    """Sizes of both towers."""

    vocab_size: int
    hidden: int = 128
    vision_layers: int = 3
    vision_heads: int = 4
    vision_mlp: int = 448
    positions_per_side: int = 10
    text_layers: int = 3
    text_heads: int = 4
    text_kv_heads: int = 2
    head_dim: int = 32
    text_mlp: int = 384
    rope_theta: float = 10_000.0
    mrope_section: tuple[int, int, int] = (6, 5, 5)
    eps: float = 1e-6


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _attention(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Tensor:
    # float32 also under autocast: torch 2.13's bf16 backward of it is eight times slower on CPU.
    with torch.autocast("cpu", enabled=False):
        return functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), is_causal=is_causal)


class _VisionAttention(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.heads = d.vision_heads
        self.qkv = nn.Linear(d.hidden, d.hidden * 3)
        self.proj = nn.Linear(d.hidden, d.hidden)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        qkv = self.qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        query, key = _rotated(query, cos, sin), _rotated(key, cos, sin)
        out = _attention(query, key, value, is_causal=False)
        return self.proj(out.transpose(1, 2).reshape(batch, length, hidden))


class _VisionMlp(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.linear_fc1 = nn.Linear(d.hidden, d.vision_mlp)
        self.linear_fc2 = nn.Linear(d.vision_mlp, d.hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_fc2(functional.gelu(self.linear_fc1(x), approximate="tanh"))


class _VisionBlock(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(d.hidden, eps=1e-6)
        self.norm2 = nn.LayerNorm(d.hidden, eps=1e-6)
        self.attn = _VisionAttention(d)
        self.mlp = _VisionMlp(d)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class _Merger(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        wide = d.hidden * MERGE**2
        self.norm = nn.LayerNorm(d.hidden, eps=1e-6)
        self.linear_fc1 = nn.Linear(wide, wide)
        self.linear_fc2 = nn.Linear(wide, d.hidden)

    def forward(self, x: Tensor) -> Tensor:
        wide = self.linear_fc1.in_features
        return self.linear_fc2(functional.gelu(self.linear_fc1(self.norm(x).reshape(x.shape[0], -1, wide))))


def _merged_coordinates(rows: int, columns: int) -> Tensor:
    """Row and column of each patch in the processor's order: (rows * columns, 2)."""
    grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
    cells = grid.view(rows // MERGE, MERGE, columns // MERGE, MERGE, 2)
    return cells.permute(0, 2, 1, 3, 4).reshape(-1, 2)


@lru_cache(maxsize=64)
def _vision_rope(rows: int, columns: int, head_dim: int) -> tuple[Tensor, Tensor]:
    half = head_dim // 2
    inverse = 1.0 / (10_000.0 ** (torch.arange(0, half, 2, dtype=torch.float32) / half))
    angles = (_merged_coordinates(rows, columns)[..., None].float() * inverse).flatten(1)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


@lru_cache(maxsize=64)
def _position_weights(rows: int, columns: int, side: int) -> Tensor:
    """Bilinear weights of the learned positions: (rows * columns, side * side)."""

    def axis(count: int) -> Tensor:
        where = torch.linspace(0, side - 1, count)
        low = where.floor().long()
        high = (low + 1).clamp(max=side - 1)
        part = (where - low)[:, None]
        return functional.one_hot(low, side) * (1 - part) + functional.one_hot(high, side) * part

    weights = torch.einsum("ra,cb->rcab", axis(rows), axis(columns))
    order = _merged_coordinates(rows, columns)
    return weights[order[:, 0], order[:, 1]].reshape(rows * columns, side * side)


class VisionTower(nn.Module):
    """Patches to merged image tokens; also returns the patch features, for the auxiliary losses."""

    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.dimensions = d
        self.patch_embed = nn.Linear(3 * PATCH_PX**2, d.hidden)
        self.pos_embed = nn.Embedding(d.positions_per_side**2, d.hidden)
        self.blocks = nn.ModuleList(_VisionBlock(d) for _ in range(d.vision_layers))
        self.merger = _Merger(d)

    def forward(self, pixels: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Patch features (batch, patches, hidden) and image tokens (batch, patches / 4, hidden)."""
        d = self.dimensions
        positions = _position_weights(rows, columns, d.positions_per_side) @ self.pos_embed.weight
        cos, sin = _vision_rope(rows, columns, d.hidden // d.vision_heads)
        x = self.patch_embed(pixels) + positions
        for block in self.blocks:
            x = block(x, cos, sin)
        return x, self.merger(x)


class _TextAttention(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.d = d
        self.q_proj = nn.Linear(d.hidden, d.text_heads * d.head_dim, bias=False)
        self.k_proj = nn.Linear(d.hidden, d.text_kv_heads * d.head_dim, bias=False)
        self.v_proj = nn.Linear(d.hidden, d.text_kv_heads * d.head_dim, bias=False)
        self.o_proj = nn.Linear(d.text_heads * d.head_dim, d.hidden, bias=False)
        self.q_norm = nn.RMSNorm(d.head_dim, eps=d.eps)
        self.k_norm = nn.RMSNorm(d.head_dim, eps=d.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        batch, length, _ = x.shape
        shape = (batch, length, -1, self.d.head_dim)
        query = _rotated(self.q_norm(self.q_proj(x).view(shape)).transpose(1, 2), cos, sin)
        key = _rotated(self.k_norm(self.k_proj(x).view(shape)).transpose(1, 2), cos, sin)
        value = self.v_proj(x).view(shape).transpose(1, 2)
        groups = self.d.text_heads // self.d.text_kv_heads
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        out = _attention(query, key, value, is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class _TextMlp(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(d.hidden, d.text_mlp, bias=False)
        self.up_proj = nn.Linear(d.hidden, d.text_mlp, bias=False)
        self.down_proj = nn.Linear(d.text_mlp, d.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))


class _TextLayer(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.self_attn = _TextAttention(d)
        self.mlp = _TextMlp(d)
        self.input_layernorm = nn.RMSNorm(d.hidden, eps=d.eps)
        self.post_attention_layernorm = nn.RMSNorm(d.hidden, eps=d.eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class _TextModel(nn.Module):
    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(d.vocab_size, d.hidden)
        self.layers = nn.ModuleList(_TextLayer(d) for _ in range(d.text_layers))
        self.norm = nn.RMSNorm(d.hidden, eps=d.eps)


@lru_cache(maxsize=4096)
def _text_rope(before: int, rows: int, columns: int, length: int, d: Dimensions) -> tuple[Tensor, Tensor]:
    """Cosines and sines of a sequence whose image tokens begin at `before`; interleaved M-RoPE."""
    high, wide = rows // MERGE, columns // MERGE
    image = torch.stack(
        (
            torch.zeros(high * wide),
            torch.arange(high).repeat_interleave(wide).float(),
            torch.arange(wide).repeat(high).float(),
        )
    )
    rest = length - before - high * wide
    start = torch.arange(before).float().expand(3, -1)
    end = (torch.arange(rest) + before + max(high, wide)).float().expand(3, -1)
    positions = torch.cat((start, image + before, end), dim=1)
    inverse = 1.0 / (d.rope_theta ** (torch.arange(0, d.head_dim, 2).float() / d.head_dim))
    axis = torch.zeros(d.head_dim // 2, dtype=torch.long)
    axis[1 : d.mrope_section[1] * 3 : 3] = 1
    axis[2 : d.mrope_section[2] * 3 : 3] = 2
    angles = positions[axis].T * inverse
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


class Captioner(nn.Module):
    """Both towers. Not thread-safe, like every torch module in training."""

    def __init__(self, d: Dimensions) -> None:
        super().__init__()
        self.dimensions = d
        self.vision_tower = VisionTower(d)
        self.language_model = nn.Module()
        self.language_model.model = _TextModel(d)
        self.apply(_initialise)

    @property
    def text(self) -> _TextModel:
        """The language model without its head, which is tied to the embeddings."""
        model = self.language_model.model
        assert isinstance(model, _TextModel)
        return model

    def word_logits(self, features: Tensor) -> Tensor:
        """What the language head says of features that no layer has seen (the logit lens)."""
        return functional.linear(self.text.norm(features), self.text.embed_tokens.weight)

    def answer_logits(
        self, tokens: Tensor, image: Tensor, before: int, grid: tuple[int, int], answer_from: int
    ) -> Tensor:
        """Logits from position `answer_from` on; the image tokens begin at `before`."""
        text = self.text
        embedded = text.embed_tokens(tokens)
        after = before + image.shape[1]
        x = torch.cat((embedded[:, :before], image.to(embedded.dtype), embedded[:, after:]), dim=1)
        cos, sin = _text_rope(before, *grid, x.shape[1], self.dimensions)
        for layer in text.layers:
            x = layer(x, cos, sin)
        return self.word_logits(x[:, answer_from:])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=0.05)
