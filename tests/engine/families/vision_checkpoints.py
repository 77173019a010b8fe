"""Random-weight checkpoints of the vision-language families, written as their repositories are; made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from mlx_vlm.utils import get_model_and_args, update_module_configs
from tokenizers import Tokenizer

from tests.engine.families.vision_shapes import VisionFamily
from tests.tiny_models import write_tokenizer

_GROUP_SIZE = 32


def write_vision_checkpoint(folder: Path, family: VisionFamily, *, seed: int = 0, is_quantised: bool = False) -> Path:
    """In float32, under the names that mlx-vlm's conversion gives the weights.

    Args:
        is_quantised: in 4 bits, but for the eyes, as the repositories that people download for their Macs.
    """
    vocab_size = write_tokenizer(folder, family.chat_template, family.tokens)
    _add_to(folder / "tokenizer_config.json", _named(family))
    for name, content in family.files.items():
        _add_to(folder / name, dict(content))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    token_ids = {token: tokenizer.encode(token).ids[0] for token in ("<|im_end|>", *family.tokens)}
    config = family.config_for(vocab_size, token_ids)
    mx.random.seed(seed)
    model = _model_of(config)
    parameters = tree_flatten(model.parameters())
    model.update(tree_unflatten([(name, mx.random.normal(a.shape) * _noise(name, family)) for name, a in parameters]))
    if is_quantised:
        nn.quantize(model.language_model, _GROUP_SIZE, 4)
        config["quantization"] = {"group_size": _GROUP_SIZE, "bits": 4}
    _add_to(folder / "config.json", config)
    weights = dict(tree_flatten(model.parameters()))
    mx.eval(list(weights.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def _named(family: VisionFamily) -> dict[str, Any]:
    """`bos_token` is a setting of every tokenizer; all else are further tokens."""
    named = dict(family.named_tokens)
    first = {"bos_token": named.pop("bos_token")} if "bos_token" in named else {}
    return first | ({"extra_special_tokens": named} if named else {})


def _noise(name: str, family: VisionFamily) -> float:
    """Small embeddings, so that no model says its last token again for ever: Gemma's are its head, too."""
    return family.noise / 4 if "embed_tokens" in name else family.noise


def _model_of(config: dict[str, Any]) -> Any:
    """As mlx-vlm's loader builds the model, none of it computed."""
    config = json.loads(json.dumps(config))
    module, _ = get_model_and_args(config)
    config.setdefault("text_config", config.pop("llm_config", {}))
    settings = module.ModelConfig.from_dict(config)
    return module.Model(update_module_configs(settings, module, config, ["text", "vision"]))


def _add_to(file: Path, content: dict[str, Any]) -> None:
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | content))
