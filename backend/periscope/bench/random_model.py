"""A text model of a realistic shape with random weights, so that a benchmark needs no download.

Every token that can be sampled is a word with a space before it. So an answer that is sent back in a conversation is
tokenised into the tokens that were generated, as with a trained model, and the prompt cache finds them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from periscope.bench.words import WORDS
from periscope.core import JSONObject

#: A space in the byte-level alphabet.
_SPACE = "Ġ"
_SYLLABLES = tuple(consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou")
_ROLES = ("system", "user", "assistant", "tool")
_CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|> {{ m.role }} {{ m.content | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant{% endif %}"
)
#: Standard deviation of the weights: large enough that greedy output does not repeat one token.
_NOISE = 0.25
#: Scale of the embeddings of single bytes and control tokens: keeps their logits near 0, so that others are larger.
_NEVER_SAMPLED = 0.01


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a Qwen3 architecture. `vocab_size` is the tokenizer's too."""

    hidden: int = 512
    layers: int = 8
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 64
    mlp: int = 1536
    vocab_size: int = 16384
    context_length: int = 8192


def write_random_model(folder: Path, shape: Shape = Shape(), *, seed: int = 0) -> Path:
    """Write weights (float32), config and tokenizer into `folder`; the same seed gives the same model.

    Uses MLX on the calling thread, which must end with `mx.clear_streams()`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    never_sampled = _write_tokenizer(folder, shape.vocab_size)
    config = _config(shape)
    (folder / "config.json").write_text(json.dumps(config))
    model = qwen3.Model(qwen3.ModelArgs.from_dict(config))
    mx.random.seed(seed)
    weights: dict[str, mx.array] = {
        name: array if "norm" in name else mx.random.normal(array.shape) * _NOISE
        for name, array in tree_flatten(model.parameters())
    }
    weights["model.embed_tokens.weight"][mx.array(never_sampled)] *= _NEVER_SAMPLED
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def _config(shape: Shape) -> JSONObject:
    return {
        "model_type": "qwen3",
        "hidden_size": shape.hidden,
        "num_hidden_layers": shape.layers,
        "intermediate_size": shape.mlp,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "rms_norm_eps": 1e-6,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.context_length,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "eos_token_id": shape.vocab_size - 1,
    }


def _write_tokenizer(folder: Path, vocab_size: int) -> list[int]:
    """Byte-level BPE whose merges grow words letter by letter; returns the ids that are no word with a space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    wanted = vocab_size - len(alphabet) - len(_CONTROL_TOKENS)
    merges = list(itertools.islice(_merges(_ROLES + WORDS), wanted))
    tokens = [*alphabet, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(_CONTROL_TOKENS))
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": _CONTROL_TOKENS[1],
        "chat_template": _CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    assert tokenizer.get_vocab_size() == vocab_size  # noqa: S101 - `_merges` has more than enough words
    return [*range(len(alphabet)), vocab_size - 2, vocab_size - 1]


def _merges(first: Sequence[str]) -> Iterator[tuple[str, str]]:
    """One merge per prefix of a word: first the given words, then millions of made-up ones."""
    made_up = ("".join(parts) for n in (2, 3, 4) for parts in itertools.product(_SYLLABLES, repeat=n))
    seen: set[str] = set()
    for word in itertools.chain(first, made_up):
        for end in range(len(word)):
            if (token := _SPACE + word[: end + 1]) not in seen:
                seen.add(token)
                yield _SPACE + word[:end], word[end]
