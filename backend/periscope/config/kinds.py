"""Which entries are embedding models: where models.yaml does not say it, by their files, else by their name.

Only small files are read, and none of a model that is not on this disk; the hub is never asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from periscope.config.document import Document, Origin
from periscope.config.keys import Loc
from periscope.config.resolve import absolute
from periscope.core import ModelKind
from periscope.demo import EMBEDDED

#: As in Qwen3-Embedding-0.6B, nomic-embed-text-v1.5 and embeddinggemma-300m.
_NAMED_SO = re.compile(r"embed(?!ded)", re.IGNORECASE)
#: Networks without a head. Not every name that ends so is one: InternVLChatModel answers.
_HEADLESS: Final = frozenset(
    f"{family}Model"
    for family in (
        *("Bert", "Camembert", "ModernBert", "NomicBert", "Roberta", "XLMRoberta"),
        *("Gemma2", "Gemma3Text", "Llama", "Mistral", "Qwen2", "Qwen3"),
    )
)


def lay_kinds(document: Document, env: Mapping[str, str], *, folder: Path, home: Path) -> None:
    """Set `kind: embedding` for the entries that say nothing of their kind and are embedding models."""
    tree = document.tree
    entries = tree.get("models") if isinstance(tree, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if isinstance(entry, dict) and entry.get("kind") is None and _embeds(entry, env, folder, home):
            entry["kind"] = ModelKind.EMBEDDING.value
            place: Loc = ("models", index, "kind")
            document.origins[place] = Origin("derived")
            document.empty.discard(place)


def _embeds(entry: dict[str, Any], env: Mapping[str, str], folder: Path, home: Path) -> bool:
    local, hub_id = entry.get("local_path"), entry.get("hf_id")
    if isinstance(local, str) and not local.startswith(EMBEDDED):
        path = absolute(local, folder)
        return _NAMED_SO.search(path.name) is not None or embeds(path)
    if not isinstance(hub_id, str):
        return False
    snapshot = _snapshot(hub_id, str(entry.get("revision") or "main"), env, home)
    return _NAMED_SO.search(hub_id.rpartition("/")[2]) is not None or (snapshot is not None and embeds(snapshot))


def embeds(path: Path) -> bool:
    """Whether the files in this folder are those of an embedding model.

    They are if sentence-transformers pools their hidden states, or if their network has no head (`BertModel`, not
    `BertForSequenceClassification`).
    """
    modules = _read(path / "modules.json")
    if isinstance(modules, list):
        return any(isinstance(each, dict) and str(each.get("type")).endswith(".Pooling") for each in modules)
    config = _read(path / "config.json")
    architectures = config.get("architectures") if isinstance(config, dict) else None
    return isinstance(architectures, list) and not _HEADLESS.isdisjoint(map(str, architectures))


def _snapshot(hub_id: str, revision: str, env: Mapping[str, str], home: Path) -> Path | None:
    """The model's folder in the hub's cache, by its layout: the library takes a quarter of a second to import."""
    caches = env.get("XDG_CACHE_HOME") or str(home / ".cache")
    hub_home = env.get("HF_HOME") or f"{caches}/huggingface"
    repository = absolute(env.get("HF_HUB_CACHE") or f"{hub_home}/hub", home) / f"models--{hub_id.replace('/', '--')}"
    try:
        commit = (repository / "refs" / revision).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        commit = revision
    folder = repository / "snapshots" / commit
    return folder if folder.is_dir() else None


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
