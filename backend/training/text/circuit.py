"""Gives the untrained demo text model a head start: an induction circuit written into its first two layers.

A tiny model spends most of a short training run on a plateau before it learns to copy. Here layer 0 gets a head
that looks at the token before, layer 1 two heads that look for an earlier place where the same token stood and
pass on what followed it there. Training starts from these weights and changes all of them.
Source of the idea: Olsson et al., "In-context learning and induction heads" (2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from training.text.model import TextModel

TOKEN_DIMS = slice(1, 128)  # of the residual stream: the token itself; dimension 0 is constant
BEFORE_DIMS = slice(128, 192)  # what the token before was
POSITION_PAIRS = (0, 1, 2, 3)  # rotary pairs of high frequency tell neighbours apart
POSITION_SHARES = (3.0, 2.0, 1.0, 1.0)
FIRST_CONTENT_PAIR = 6  # rotary pairs of low frequency compare content over a distance
CONSTANT, TOKEN_STD, QUIET = 4.0, 0.1, 0.03
POSITION_SHARPNESS, CONTENT_SHARPNESS = 3.5, 2.5
MATCH_GAIN, COPY_GAIN = 1.0, 8.0


def projection(rows: int, columns: int) -> Tensor:
    """Random rows that are orthogonal and of length one."""
    q, _ = torch.linalg.qr(torch.randn(columns, rows))
    return q.T


@torch.no_grad()
def write_circuit(model: TextModel) -> None:
    """Overwrites embedding and attention of layers 0 and 1; quietens what else writes to the residual stream."""
    config = model.config
    embedding = model.model.embed_tokens.weight
    embedding.zero_()
    embedding[:, TOKEN_DIMS] = torch.randn(embedding.shape[0], 127) * TOKEN_STD
    embedding[:, 0] = CONSTANT * TOKEN_STD
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight.mul_(QUIET)
        layer.mlp.down_proj.weight.mul_(QUIET)
    dim, span = config.head_dim, config.num_attention_heads // config.num_key_value_heads
    content = [d for d in range(dim) if d % (dim // 2) >= FIRST_CONTENT_PAIR]
    keys = [projection(len(content), 127) for _ in range(config.num_key_value_heads)]
    for group in range(config.num_key_value_heads):
        write_before_head(model, group, group * span, keys[group])
        write_copy_head(model, group, group * span, content)


def write_before_head(model: TextModel, group: int, head: int, key: Tensor) -> None:
    """Layer 0: attend to the token before and note its key in ``BEFORE_DIMS``."""
    attention, dim = model.model.layers[0].self_attn, model.config.head_dim
    half, size = dim // 2, key.shape[0]
    query_rows = slice(head * dim, (head + 1) * dim)
    key_rows = slice(group * dim, (group + 1) * dim)
    for rows, weight, turn in ((query_rows, attention.q_proj.weight, 0.0), (key_rows, attention.k_proj.weight, 1.0)):
        weight[rows] *= 0.02
        for pair, share in zip(POSITION_PAIRS, POSITION_SHARES, strict=True):
            angle = turn * model.config.rope_theta ** (-pair / half)
            weight[rows.start + pair, 0] = share**0.5 * torch.cos(torch.tensor(angle))
            weight[rows.start + pair + half, 0] = share**0.5 * torch.sin(torch.tensor(angle))
    for norm in (attention.q_norm.weight, attention.k_norm.weight):
        for pair in POSITION_PAIRS:
            norm[pair] = norm[pair + half] = POSITION_SHARPNESS
    attention.v_proj.weight[key_rows] = 0
    attention.v_proj.weight[key_rows.start : key_rows.start + size, TOKEN_DIMS] = key
    start = BEFORE_DIMS.start + group * dim
    attention.o_proj.weight[:, query_rows] = 0
    for index in range(size):
        attention.o_proj.weight[start + index, query_rows.start + index] = 1.5 * TOKEN_STD
    # the group's keys, by which layer 1 will compare the present token with the noted one
    other = model.model.layers[1].self_attn
    content = [d for d in range(dim) if d % half >= FIRST_CONTENT_PAIR]
    other.k_proj.weight[key_rows] *= 0.02
    other.q_proj.weight[query_rows] *= 0.02
    for index, place in enumerate(content):
        other.k_proj.weight[key_rows.start + place, start + index] = MATCH_GAIN
        other.q_proj.weight[query_rows.start + place, TOKEN_DIMS] = key[index]


def write_copy_head(model: TextModel, group: int, head: int, content: list[int]) -> None:
    """Layer 1: pass on half of the token that stood after the match."""
    attention, dim = model.model.layers[1].self_attn, model.config.head_dim
    for norm in (attention.q_norm.weight, attention.k_norm.weight):
        norm[content] = CONTENT_SHARPNESS
    value = projection(dim, 127)
    rows = slice(group * dim, (group + 1) * dim)
    attention.v_proj.weight[rows] = 0
    attention.v_proj.weight[rows, TOKEN_DIMS] = value
    columns = slice(head * dim, (head + 1) * dim)
    attention.o_proj.weight[:, columns] = 0
    attention.o_proj.weight[TOKEN_DIMS, columns] = value.T * COPY_GAIN * TOKEN_STD
