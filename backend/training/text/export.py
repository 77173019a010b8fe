"""Writes the folder of the demo text model that ``mlx_lm.load`` reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from training.text.model import TextModel
from training.text.template import CHAT_TEMPLATE


def export(model: TextModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes all files to a temporary folder beside ``folder``, then moves each into place (atomic per file)."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    eos, pad = tokenizer.token_to_id("<|im_end|>"), tokenizer.token_to_id("<|endoftext|>")
    assert eos is not None and pad is not None, "the tokenizer lacks its own end tokens"  # noqa: PT018
    weights = {name: p.detach().to(torch.float32).contiguous() for name, p in model.named_parameters()}
    save_file(weights, str(part / "model.safetensors"), metadata={"format": "mlx"})
    tokenizer.save(str(part / "tokenizer.json"))
    write(part / "config.json", model.config.to_json(eos, pad))
    write(part / "generation_config.json", {"eos_token_id": [eos, pad], "pad_token_id": pad, "do_sample": False})
    write(part / "tokenizer_config.json", tokenizer_config(model.config.max_position_embeddings))
    folder.mkdir(parents=True, exist_ok=True)
    for path in part.iterdir():
        path.chmod(0o644)
        path.replace(folder / path.name)
    part.rmdir()


def tokenizer_config(longest: int) -> dict[str, Any]:
    """tokenizer_config.json with the chat template; the tool parser is named for mlx-lm."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "bos_token": None,
        "unk_token": None,
        "add_bos_token": False,
        "model_max_length": longest,
        "clean_up_tokenization_spaces": False,
        "tool_parser_type": "json_tools",
        "chat_template": CHAT_TEMPLATE,
    }


def write(path: Path, value: dict[str, Any]) -> None:
    """One JSON file."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
