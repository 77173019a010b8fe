"""From a path or hub id to a model in memory. Runs on the worker thread that will use the model; may block for minutes.

Never downloads: what is not on this disk is an error that says how to get it.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from mlx.utils import tree_flatten, tree_map_with_path

from periscope.core import MODEL_FILES, NOT_MODEL_FILES, JSONObject
from periscope.engine.device.memory import WiredLimit
from periscope.engine.loading.kv_shape import text_config_of
from periscope.errors import ModelLoadError

if TYPE_CHECKING:
    from periscope.engine.device.turn import DeviceTurn

logger = logging.getLogger(__name__)

#: Bytes of weights read in one turn at the device: small enough not to hold up a running decode for long.
LOAD_SLICE_BYTES = 256 * 1024 * 1024
#: Held while model libraries are imported and build a model or tokenizer. transformers 5 imports its parts lazily, and
#: two threads doing that at once see half-made modules ("cannot import name AutoProcessor"). Weights are read outside.
LIBRARY_LOCK = threading.Lock()
#: What a model with no stated context is taken to have.
FALLBACK_CONTEXT_LENGTH = 4096
_CONTEXT_KEYS = ("max_position_embeddings", "max_sequence_length", "seq_length", "n_positions")

#: (bytes loaded, bytes in all)
LoadProgress: TypeAlias = Callable[[int, int], None]


def _no_progress(_done: int, _total: int) -> None:
    return


def find_on_disk(model: str, revision: str | None = None) -> Path:
    """The folder that holds the model's files.

    Raises:
        ModelLoadError: neither a folder nor a model in the hub cache; says how to fetch it.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")):
        raise ModelLoadError(f"There is no folder {model}. Check `local_path` in models.yaml.")
    try:
        return Path(
            snapshot_download(
                model,
                revision=revision,
                local_files_only=True,
                allow_patterns=MODEL_FILES,
                ignore_patterns=NOT_MODEL_FILES,
            )
        )
    except LocalEntryNotFoundError:
        raise ModelLoadError(f"{model} is not on this disk. Fetch it with `periscope pull {model}`.") from None
    except HFValidationError:
        raise ModelLoadError(f"{model} is neither a folder nor a hub id such as `mlx-community/Name`.") from None


def read_model_config(path: Path) -> JSONObject:
    """The model's config.json.

    Raises:
        ModelLoadError: it is missing or no JSON object.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} holds no readable config.json ({error}). Is it an MLX model?") from None
    if not isinstance(config, dict):
        raise ModelLoadError(f"{path / 'config.json'} is not a JSON object.")
    return config


def context_length_of(config: JSONObject, limit: int | None) -> int:
    """Pure: tokens the model takes, at most `limit`. What is said of the text model goes before what is said of all."""
    for source in (text_config_of(config), config):
        for key in _CONTEXT_KEYS:
            if isinstance(value := source.get(key), int) and value > 0:
                return min(value, limit) if limit else value
    return limit or FALLBACK_CONTEXT_LENGTH


def has_vision(config: JSONObject) -> bool:
    """Pure: whether the config speaks of a vision part, under any of the names that mlx-vlm's models have for it."""
    return any(word in key for key in config for word in ("vision", "visual", "image", "img", "mm_"))


def vocab_size_of(config: JSONObject) -> int | None:
    """Pure: rows of the embedding table, if the config says."""
    nested = config.get("text_config")
    size = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    return size if isinstance(size, int) else None


def prepare_libraries() -> None:
    """Idempotent. Settings of MLX and the model libraries that hold for the whole process.

    Without a GPU, `mx.compile` starts the C++ compiler for a second per kernel on first use: run unfused instead.
    transformers 5 warns of the arguments mlx-vlm 0.7 passes to its processors, at every image.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    WiredLimit.set_once()
    if not mx.metal.is_available() and not mx.cuda.is_available():
        mx.disable_compile()


def materialize(model: Any, dtype: str | None, turn: DeviceTurn, progress: LoadProgress = _no_progress) -> None:
    """Read lazily loaded weights in slices, each in its own turn at the device, so that a load stalls no decode."""
    if dtype is not None:
        _cast(model, getattr(mx, dtype))
    arrays = [array for _, array in tree_flatten(model.parameters())]
    total = sum(array.nbytes for array in arrays)
    done = 0
    for part in _slices(arrays):
        with turn.held():
            mx.eval(part)
        done += sum(array.nbytes for array in part)
        progress(done, total)


def _cast(model: Any, dtype: mx.Dtype) -> None:
    """All floats but those whose precision the architecture depends on (a router's biases, decay rates)."""
    may_cast = getattr(model, "cast_predicate", lambda _name: True)

    def cast(name: str, array: mx.array) -> mx.array:
        return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) and may_cast(name) else array

    model.update(tree_map_with_path(cast, model.parameters()))


def weights_bytes(network: Any) -> int:
    """What a model's loaded weights take."""
    return sum(array.nbytes for _, array in tree_flatten(network.parameters()))


def _slices(arrays: Iterable[mx.array]) -> Iterator[list[mx.array]]:
    part: list[mx.array] = []
    size = 0
    for array in arrays:
        part.append(array)
        size += array.nbytes
        if size >= LOAD_SLICE_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part
