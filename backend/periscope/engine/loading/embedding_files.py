"""EmbeddingFiles: what the files of an embedding model say of the way from hidden states to vectors. No MLX.

Any thread; blocks for a few small reads.
Source: the layout of sentence-transformers (`modules.json`, `1_Pooling/config.json`, `sentence_bert_config.json`,
`config_sentence_transformers.json`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from periscope.core import JSONObject, Pooling
from periscope.engine.loading.kv_shape import count_of, text_config_of
from periscope.engine.loading.loader import context_length_of
from periscope.errors import ModelLoadError

#: A text is computed in one forward pass, so a model takes no longer ones than this unless `context_length` says so.
MAX_TEXT_TOKENS = 8192
#: Most tokens of one forward pass, padding included; a single longer text has one of its own. More keep no GPU busier.
BATCH_TOKENS = 2048
#: Architectures that attend to all of a text, for which padding is masked. The others are causal and need no mask,
#: unless their configuration says that they attend in both directions.
ENCODERS = frozenset({"bert", "camembert", "modernbert", "nomic_bert", "roberta", "xlm-roberta"})
#: Positions of these begin behind the id of the padding token.
_OFFSET_POSITIONS = frozenset({"camembert", "roberta", "xlm-roberta"})
#: Sizes of heads for which MLX 0.32 has a fused kernel of attention on Metal.
_FUSED_HEAD_SIZES = frozenset({64, 80, 128})
_POOLINGS: Mapping[str, Pooling] = {
    "cls": Pooling.CLS,
    "mean": Pooling.MEAN,
    "lasttoken": Pooling.LAST,
    "pooling_mode_cls_token": Pooling.CLS,
    "pooling_mode_mean_tokens": Pooling.MEAN,
    "pooling_mode_lasttoken": Pooling.LAST,
}
#: Families whose vectors were trained to be cut (Matryoshka representation learning), though their files do not say so.
_MATRYOSHKA = re.compile(
    r"qwen3-embedding|embeddinggemma|nomic-embed-text-v(1\.5|2)|mxbai-embed-(large|2d)|arctic-embed-(m-v1\.5|[ml]-v2)"
    r"|modernbert-embed|jina-embeddings-v[345]",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class DenseModule:
    """A linear layer after the pooling. `folder` holds its `model.safetensors`."""

    folder: Path
    in_features: int
    out_features: int
    has_bias: bool
    has_tanh: bool


@dataclass(frozen=True, slots=True)
class EmbeddingFiles:
    """How a text becomes a vector, as far as the files say it.

    Attributes:
        pooling: None = the files do not say.
        max_tokens: of one text, special tokens included.
        is_lowered: texts are put in lower case before they are tokenised.
        prompts: by name, what goes before a text.
        default_prompt: the name of the one that goes before a text for which none is named.
        is_matryoshka: vectors may be cut to fewer dimensions.
    """

    max_tokens: int
    pooling: Pooling | None = None
    dense: tuple[DenseModule, ...] = ()
    is_normalized: bool = True
    is_lowered: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    is_matryoshka: bool = False

    @property
    def dense_bytes(self) -> int:
        """Bytes of the Dense modules, which are computed in float32."""
        return 4 * sum(module.in_features * module.out_features for module in self.dense)

    @classmethod
    def read(cls, path: Path, config: JSONObject, *, context_length: int | None = None) -> EmbeddingFiles:
        """Read the files of one model.

        Args:
            path: the model's folder.
            config: its config.json.
            context_length: in place of `MAX_TEXT_TOKENS`.

        Raises:
            ModelLoadError: a module is of a kind that is not computed here, or a file cannot be read.
        """
        modules = _json(path / "modules.json", list)
        settings = _json(path / "sentence_bert_config.json", dict) or {}
        told = _json(path / "config_sentence_transformers.json", dict) or {}
        prompts = {str(name): str(text) for name, text in (told.get("prompts") or {}).items()}
        default = told.get("default_prompt_name")
        pooling, dense, is_normalized = _read_modules(path, modules or [])
        return cls(
            max_tokens=_max_tokens(path, config, settings, context_length),
            pooling=pooling if modules else _read_pooling(path / "1_Pooling"),
            dense=dense,
            is_normalized=is_normalized if modules else True,
            is_lowered=settings.get("do_lower_case") is True,
            prompts=prompts,
            default_prompt=default if default in prompts else None,
            is_matryoshka=_is_matryoshka(path, config),
        )


def _read_modules(path: Path, modules: list[Any]) -> tuple[Pooling | None, tuple[DenseModule, ...], bool]:
    """Pooling, layers after it, and whether the vectors are normalised, in the order in which they are applied."""
    pooling: Pooling | None = None
    dense: list[DenseModule] = []
    is_normalized = False
    for module in modules:
        folder = path / str(module.get("path", ""))
        match str(module.get("type", "")).rpartition(".")[2]:
            case "Transformer" | "Dropout":
                pass
            case "Pooling":
                pooling = _read_pooling(folder)
            case "Dense" if not is_normalized:
                dense.append(_read_dense(folder))
            case "Normalize":
                is_normalized = True
            case other:
                raise ModelLoadError(
                    f"{path.name} has a module {other} (modules.json), which is not computed here. Known are "
                    "Transformer, Pooling, Dense and then Normalize. Choose another embedding model."
                )
    return pooling, tuple(dense), is_normalized


def _read_pooling(folder: Path) -> Pooling | None:
    settings = _json(folder / "config.json", dict)
    if settings is None:
        return None
    if isinstance(name := settings.get("pooling_mode"), str):
        asked = [name]
    else:
        asked = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    known = [found for each in asked if (found := _POOLINGS.get(each))]
    if len(asked) != 1 or not known or settings.get("include_prompt") is False:
        said = ", ".join(asked) or "nothing"
        raise ModelLoadError(
            f"{folder.parent.name} pools in a way that is not computed here ({said}; one of cls, mean and lasttoken "
            "is, over all tokens). Choose another embedding model."
        )
    return known[0]


def _read_dense(folder: Path) -> DenseModule:
    settings = _json(folder / "config.json", dict) or {}
    activation = str(settings.get("activation_function", "Identity")).rpartition(".")[2]
    num_in, num_out = count_of(settings, "in_features"), count_of(settings, "out_features")
    if (
        activation not in {"Identity", "Tanh"}
        or not num_in
        or not num_out
        or not (folder / "model.safetensors").is_file()
    ):
        raise ModelLoadError(
            f"The Dense module {folder.name} of {folder.parent.name} cannot be used: it needs a model.safetensors, its "
            f"sizes in config.json, and the activation Identity or Tanh (it has {activation})."
        )
    has_bias, has_tanh = settings.get("bias") is not False, activation == "Tanh"
    return DenseModule(folder, num_in, num_out, has_bias=has_bias, has_tanh=has_tanh)


def _max_tokens(path: Path, config: JSONObject, settings: JSONObject, context_length: int | None) -> int:
    """The least of what the positions, the training and the tokenizer allow, and of what is set."""
    trained = [count_of(config, "max_trained_positions"), count_of(config, "n_positions")]
    positions = next(filter(None, trained), 0) or context_length_of(config, None)
    if config.get("model_type") in _OFFSET_POSITIONS:
        positions -= count_of(config, "pad_token_id") + 1
    tokenizer = _json(path / "tokenizer_config.json", dict) or {}
    limits = [positions, context_length or MAX_TEXT_TOKENS, count_of(settings, "max_seq_length")]
    return min(limit for limit in (*limits, count_of(tokenizer, "model_max_length")) if limit > 0)


def _is_matryoshka(path: Path, config: JSONObject) -> bool:
    told = config.get("is_matryoshka") is True or bool(config.get("matryoshka_dimensions"))
    # In the hub's cache the repository's name is that of a folder further up: models--owner--name/snapshots/commit.
    return told or any(_MATRYOSHKA.search(name) for name in path.parts[-3:])


def _json(file: Path, kind: type[list[Any] | dict[str, Any]]) -> Any:
    """The file's value; None if there is no such file."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{file} cannot be read ({error}). Fetch the model again.") from None
    is_right = isinstance(value, kind) and not (
        isinstance(value, list) and any(not isinstance(each, dict) for each in value)
    )
    if not is_right:
        raise ModelLoadError(f"{file} does not hold what it should. Fetch the model again.")
    return value


def working_bytes(config: JSONObject, max_tokens: int) -> int:
    """Pure: about what one forward pass takes beside the weights.

    A dozen hidden states and three of the feed-forward layer for each token, in float32, and for encoders the attention
    mask, twice; MLX holds all scores, too, where it has no fused kernel for the size of a head.
    """
    text = text_config_of(config)
    hidden = count_of(text, "hidden_size") or count_of(text, "n_embd")
    num_heads = count_of(text, "num_attention_heads") or count_of(text, "n_head") or 1
    inner = count_of(text, "intermediate_size") or count_of(text, "n_inner") or 4 * hidden
    head_size = count_of(text, "head_dim") or hidden // num_heads
    num_tokens = max(BATCH_TOKENS, max_tokens)
    is_masked = config.get("model_type") in ENCODERS or attends_both_ways(config)
    num_matrices = (2 if is_masked else 0) + (0 if head_size in _FUSED_HEAD_SIZES else num_heads)
    return 4 * num_tokens * (12 * hidden + 3 * inner + num_matrices * max_tokens)


def attends_both_ways(config: JSONObject) -> bool:
    """Pure: whether a model of a causal architecture is said to attend in both directions."""
    return bool(config.get("use_bidirectional_attention")) or config.get("is_causal") is False
