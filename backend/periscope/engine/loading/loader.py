"""From a path or hub id to a model in memory. Runs on the worker thread that will use the model; may block for minutes.

Never downloads: a model that is not on this disk is an error that says how to fetch it.
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
from periscope.engine.loading.transposed_linear import transpose_linear_layers
from periscope.errors import FilesMissing, ModelLoadError

if TYPE_CHECKING:
    from periscope.engine.device.turn import DeviceTurn

logger = logging.getLogger(__name__)

#: Bytes of weights read in one turn at the device: few enough not to delay running decodes for long.
LOAD_SLICE_BYTES = 256 * 1024 * 1024
#: Acquired while the model libraries are imported and build a model or tokenizer. transformers 5 imports its parts
#: lazily, and two threads that do so at once see partly initialized modules ("cannot import name AutoProcessor").
#: Weights are read without it.
LIBRARY_LOCK = threading.Lock()
#: Context length in tokens of a model whose config does not state one.
FALLBACK_CONTEXT_LENGTH = 4096
_CONTEXT_KEYS = ("max_position_embeddings", "max_sequence_length", "seq_length", "n_positions")

#: Called with (bytes loaded, bytes in total) after each slice, on the worker thread.
LoadProgress: TypeAlias = Callable[[int, int], None]


def _no_progress(_done: int, _total: int) -> None:
    return


def find_on_disk(model: str, revision: str | None = None) -> Path:
    """The folder that holds the model's files.

    Raises:
        FilesMissing: it is neither a folder nor a model in the hub cache; the message says how to fetch it.
        ModelLoadError: it cannot be either.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_absolute() or model.startswith((".", "~")):
        raise FilesMissing(f"There is no folder {model}. Check `local_path` in models.yaml.")
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
        raise FilesMissing(f"{model} is not on this disk.", pulled=model) from None
    except HFValidationError:
        raise ModelLoadError(f"{model} is neither a folder nor a hub id such as `mlx-community/Name`.") from None


def read_model_config(path: Path) -> JSONObject:
    """The value of the model's config.json.

    Raises:
        ModelLoadError: the file is missing or not a JSON object.
    """
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} holds no readable config.json ({error}). Is it an MLX model?") from None
    if not isinstance(config, dict):
        raise ModelLoadError(f"{path / 'config.json'} is not a JSON object.")
    return config


def context_length_of(config: JSONObject, limit: int | None) -> int:
    """Pure: the model's context length in tokens, at most `limit`. The text model's own config takes precedence."""
    for source in (text_config_of(config), config):
        for key in _CONTEXT_KEYS:
            if isinstance(value := source.get(key), int) and value > 0:
                return min(value, limit) if limit else value
    return limit or FALLBACK_CONTEXT_LENGTH


def quantization_of(config: JSONObject) -> str | None:
    """Pure: `4bit`, or the name of another way than mlx's affine one; else the type of the weights. None = not said."""
    for source in (config, text_config_of(config)):
        quantization = source.get("quantization")
        if isinstance(quantization, dict):
            mode, bits = quantization.get("mode"), quantization.get("bits")
            return str(mode) if mode not in (None, "affine") else f"{bits}bit"
    dtype = next((config[key] for key in ("dtype", "torch_dtype") if isinstance(config.get(key), str)), None)
    return None if dtype is None else str(dtype)


def has_vision(config: JSONObject) -> bool:
    """Pure: whether the config has a vision part, under any of the names that mlx-vlm's models use."""
    return any(word in key for key in config for word in ("vision", "visual", "image", "img", "mm_"))


def vocab_size_of(config: JSONObject) -> int | None:
    """Pure: rows of the embedding table; None when the config does not say."""
    nested = config.get("text_config")
    size = config.get("vocab_size", nested.get("vocab_size") if isinstance(nested, dict) else None)
    return size if isinstance(size, int) else None


def prepare_libraries() -> None:
    """Apply the process-wide settings of MLX and the model libraries. Idempotent.

    Without a GPU, `mx.compile` runs the C++ compiler for about a second per kernel at first use, so it is disabled.
    transformers 5 warns at every image of arguments that mlx-vlm 0.7 passes to its processors, so it logs errors only.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    WiredLimit.set_once()
    if not mx.metal.is_available() and not mx.cuda.is_available():
        mx.disable_compile()


def materialize(model: Any, dtype: str | None, turn: DeviceTurn, progress: LoadProgress = _no_progress) -> None:
    """Read lazily loaded weights, cast to `dtype` if given. Each slice has its own turn, so that decoding goes on."""
    if dtype is not None:
        _cast(model, getattr(mx, dtype))
    arrays = [array for _, array in tree_flatten(model.parameters())]
    total = sum(array.nbytes for array in arrays)
    done = 0
    for part in _slices(arrays):
        with turn.acquire():
            mx.eval(part)
        done += sum(array.nbytes for array in part)
        progress(done, total)
    transpose_linear_layers(model)


def _cast(model: Any, dtype: mx.Dtype) -> None:
    """Cast all floats, except those that the architecture needs in full precision (a router's biases, decay rates)."""
    may_cast = getattr(model, "cast_predicate", lambda _name: True)

    def cast(name: str, array: mx.array) -> mx.array:
        return array.astype(dtype) if mx.issubdtype(array.dtype, mx.floating) and may_cast(name) else array

    model.update(tree_map_with_path(cast, model.parameters()))


def weights_bytes(network: Any) -> int:
    """Bytes of a model's loaded weights."""
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
