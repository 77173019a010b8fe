"""How much memory a model will take, from its files before it is loaded: headers are read, weights are not.

Any thread; blocks for a few file reads. Knows the file format and which files the loaders read, nothing of pools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from periscope.core import Footprint, JSONObject, ModelKind
from periscope.engine.config import EngineConfig
from periscope.engine.loading.embedding_files import EmbeddingFiles, working_bytes
from periscope.engine.loading.kv_quantization import KVQuantization
from periscope.engine.loading.kv_shape import KVShape, count_of, text_config_of
from periscope.engine.loading.loader import context_length_of, find_on_disk, read_model_config
from periscope.errors import FilesMissing, ModelLoadError

#: Tokens of one conversation for which memory is reserved. With less, a model would be loaded and then refuse ordinary
#: requests.
RESERVED_TOKENS = 8192
#: Tokens of one picture (up to 2,700 for 1080p with the captioners we test), the instruction and the caption.
RESERVED_CAPTION_TOKENS = 4096
#: Reserve for KV caches, as a part of the weights, where config.json does not describe them: a few thousand tokens
#: rarely take more.
RESERVED_PART_OF_WEIGHTS = 0.1
#: Largest picture that a captioner gets (`max_side_px` is 1024), unless its own configuration says less.
PICTURE_PIXELS = 1024 * 1024
#: Working memory per pixel: 24 bytes for the pixels in float32, twice in time; the rest for about eight arrays of a
#: vision tower's hidden states (1,280 wide for a patch of 14 x 14 pixels, in float32).
BYTES_PER_PIXEL = 256
#: Most bytes of a header that the safetensors format allows.
MAX_HEADER_BYTES = 100_000_000

_FLOAT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_CAST_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_DEFAULT_FLOAT_BYTES = 2
#: Parts of multimodal checkpoints, and heads that predict several tokens ahead: mlx-lm 0.32 drops them. Exception: it
#: keeps the vision part of muse_spark, which is not counted until the loaded model reports its `weights_bytes`.
_NOT_TEXT = frozenset(
    (
        *("vision_tower", "vision_model", "visual", "multi_modal_projector", "mm_projector", "embed_vision"),
        *("vision_embedder", "audio_tower", "embed_audio", "mtp"),
    )
)
_LAYER = re.compile(r"\.layers\.(\d+)\.")
#: Tensors that the last layers of Gemma 4 do not use, because they attend to keys and values of earlier layers.
_OWN_KEYS = re.compile(r"\.self_attn\.(k_proj|v_proj|k_norm)\.")
#: Suffix of the scales stored beside an 8-bit matrix, with which mlx-lm converts it to half precision.
_SCALE = "_scale_inv"
#: Architectures whose 8-bit floats mlx-lm 0.32 reads as integers: the model loads and generates nonsense. Exit: when
#: their `sanitize` uses `mx.from_fp8`, as others do.
_MISREAD_IN_EIGHT_BITS = frozenset({"ministral3"})


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One entry of a header. `dtype` is the name that the file format has for it, such as BF16."""

    dtype: str
    nbytes: int

    def loaded_bytes(self, dtype: str | None) -> int:
        """Bytes once loaded with `dtype`: the loader casts only what is stored as floats."""
        stored = _FLOAT_BYTES.get(self.dtype)
        return self.nbytes if dtype is None or stored is None else self.nbytes // stored * _CAST_BYTES[dtype]


def measure(model: str, config: EngineConfig, *, kind: ModelKind = ModelKind.TEXT) -> Footprint:
    """The bytes that loading a model with this configuration would take; blocks while its headers are read.

    Args:
        model: a folder or a hub id.
        kind: a captioner needs memory for a picture and its caption, an embedding model for a forward pass, and
            neither for a conversation.

    Raises:
        FilesMissing: the model is not on this disk, or not all of it; the message says what to do.
        ModelLoadError: it is no model that can be loaded.
    """
    path = find_on_disk(model, config.revision)
    model_config = read_model_config(path)
    has_vision = config.has_vision or kind is ModelKind.CAPTIONER
    tensors = _tensors(model, path, model_config, has_vision=has_vision)
    weights_bytes = sum(tensor.loaded_bytes(config.dtype) for tensor in tensors)
    if kind is ModelKind.EMBEDDING:
        files = EmbeddingFiles.read(path, model_config, context_length=config.context_length)
        return Footprint(weights_bytes + files.dense_bytes, working_bytes(model_config, files.max_tokens))
    kv_item_bytes = _kv_item_bytes(tensors, config.dtype)
    reserve_bytes = _kv_bytes(model_config, config, weights_bytes, kv_item_bytes, kind=kind)
    if has_vision:
        reserve_bytes += _max_pixels(path) * BYTES_PER_PIXEL
    elif config.draft_model is not None:
        draft_path = find_on_disk(config.draft_model, config.draft_revision)
        draft = _tensors(config.draft_model, draft_path, read_model_config(draft_path), has_vision=False)
        weights_bytes += sum(tensor.loaded_bytes(config.dtype) for tensor in draft)
    return Footprint(weights_bytes, reserve_bytes)


def _tensors(model: str, path: Path, model_config: JSONObject, *, has_vision: bool) -> list[_Tensor]:
    """The tensors that the loader keeps, with their sizes once loaded. `_is_text` says which may be one too many.

    Args:
        has_vision: the vision part is loaded, too, by mlx-vlm, which keeps all tensors and reads other files.
    """
    found: dict[str, _Tensor] = {}
    for file in _weight_files(model, path, has_vision=has_vision):
        try:
            found |= _read_header(file)
        except (OSError, ValueError, RecursionError) as error:
            reason = str(error) if type(error) is ValueError else "cannot be read"
            raise _missing(f"{file.name} of {model} {reason}.", model) from None
    if has_vision:
        return list(found.values())
    text = text_config_of(model_config)
    if text.get("model_type") in _MISREAD_IN_EIGHT_BITS and any(_is_packed(name, found) for name in found):
        raise ModelLoadError(
            f"{model} stores its weights as 8-bit floats, which mlx-lm misreads in the architecture "
            f"{text['model_type']}. Choose a repository converted for MLX (4-bit, 8-bit or bf16) instead."
        )
    return [_unpacked(name, tensor, found) for name, tensor in found.items() if _is_text(name, text)]


def _is_text(name: str, text: JSONObject) -> bool:
    """Whether mlx-lm 0.32 keeps a tensor of an original checkpoint; checkpoints converted for MLX hold no others.

    Numbered cases: 1 parts that do not belong to the text model; 2 a layer after the last, which predicts several
    tokens ahead; 3 keys of layers that have none. A head tied to the embedding table is counted, because some
    architectures keep it, though most do not.
    """
    if not _NOT_TEXT.isdisjoint(name.split(".")):  # 1
        return False
    match = _LAYER.search(name)
    num_layers, num_sharing = (count_of(text, key) for key in ("num_hidden_layers", "num_kv_shared_layers"))
    if match is None or not num_layers:
        return True
    layer = int(match[1])
    has_keys = not num_sharing or layer < num_layers - num_sharing or _OWN_KEYS.search(name) is None
    return layer < num_layers and has_keys  # 2, 3


def _unpacked(name: str, tensor: _Tensor, found: Mapping[str, _Tensor]) -> _Tensor:
    """A tensor as mlx-lm loads it: 8-bit floats with scales become half precision, and the scales are dropped."""
    if name.endswith(_SCALE) and name.removesuffix(_SCALE) in found:
        return _Tensor(tensor.dtype, 0)
    return _Tensor("BF16", tensor.nbytes * _FLOAT_BYTES["BF16"]) if _is_packed(name, found) else tensor


def _is_packed(name: str, found: Mapping[str, _Tensor]) -> bool:
    return found[name].dtype == "F8_E4M3" and name + _SCALE in found


def _weight_files(model: str, path: Path, *, has_vision: bool) -> list[Path]:
    """The files that the loaders read: mlx-lm 0.32 by name; mlx-vlm 0.7 by the index, else all but Mistral's copy."""
    named = _named_by_index(path)
    present = [file for file in named if file.is_file()]
    if present and len(present) < len(named):  # an index that names no existing file is outdated, and ignored
        missing = next(file for file in named if file not in present)
        raise _missing(
            f"{missing.name} of {model} is missing, {len(named) - len(present)} of {len(named)} files of weights are.",
            model,
        )
    pattern = "*.safetensors" if has_vision else "model*.safetensors"
    files = [file for file in sorted(path.glob(pattern)) if not file.name.startswith(".")]
    if has_vision:
        files = present or [file for file in files if not file.name.endswith("consolidated.safetensors")]
    if not files:
        raise _missing(f"{model} has no weights in the safetensors format ({pattern}).", model)
    return files


def _named_by_index(path: Path) -> list[Path]:
    """The files that the index lists; empty when there is no readable index."""
    try:
        index = json.loads((path / "model.safetensors.index.json").read_text(encoding="utf-8"))
        return [path / str(name) for name in sorted({*index["weight_map"].values()})]
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return []


def _read_header(file: Path) -> dict[str, _Tensor]:
    """The tensors in a file, by name.

    Source: https://huggingface.co/docs/safetensors (8 bytes of length, JSON, data).

    Raises:
        ValueError: the file is damaged; the message continues a sentence that starts with the file's name.
    """
    size = file.stat().st_size
    with file.open("rb") as source:
        length = int.from_bytes(source.read(8), "little")
        if size >= 8 and length > MAX_HEADER_BYTES:
            raise ValueError("is no safetensors file")
        _check_size(size, 8 + length)
        tensors = dict(_entries(source.read(length)))
    _check_size(size, 8 + length + max((stop for _, stop in tensors.values()), default=0))
    return {name: tensor for name, (tensor, _) in tensors.items()}


def _check_size(size: int, least: int) -> None:
    if size < least:
        raise ValueError(f"is cut short ({size:,} of at least {least:,} bytes; an interrupted download)")


def _entries(header: bytes) -> Iterator[tuple[str, tuple[_Tensor, int]]]:
    """Name and tensor of each entry, and the offset at which its data ends."""
    try:
        table = json.loads(header)
    except (ValueError, RecursionError):
        raise ValueError("is no safetensors file") from None
    if not isinstance(table, dict):
        raise ValueError("is no safetensors file")  # noqa: TRY004 - it continues the sentence like the others
    for name, entry in table.items():
        if name == "__metadata__":
            continue
        match entry:
            case {"dtype": str(dtype), "data_offsets": [int(start), int(stop)]} if 0 <= start <= stop:
                yield name, (_Tensor(dtype, stop - start), stop)
            case _:
                raise ValueError("is no safetensors file")


def _missing(problem: str, model: str) -> FilesMissing:
    if Path(model).expanduser().is_dir():
        return FilesMissing(f"{problem} Put the whole model into that folder.")
    return FilesMissing(problem, pulled=model)


def _kv_item_bytes(tensors: Iterable[_Tensor], dtype: str | None) -> int:
    """Bytes of one number in the KV caches, which have the type that most of the floats are stored in."""
    if dtype is not None:
        return _CAST_BYTES[dtype]
    sizes: dict[str, int] = {}
    for tensor in tensors:
        if tensor.dtype in _FLOAT_BYTES:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.nbytes
    return _FLOAT_BYTES[max(sizes, key=lambda name: sizes[name])] if sizes else _DEFAULT_FLOAT_BYTES


def _kv_bytes(
    model_config: JSONObject, config: EngineConfig, weights_bytes: int, item_bytes: int, *, kind: ModelKind
) -> int:
    """Bytes to reserve for KV caches: for one conversation, or for one picture and its caption."""
    shape = KVShape.of(model_config)
    quantization = None
    if shape is not None and config.kv_bits is not None:
        quantization = KVQuantization.of(config.kv_bits, config.kv_group_size, [shape.head_dim])
    if config.kv_limit_bytes is not None:
        return config.kv_limit_bytes
    if shape is None:
        return int(weights_bytes * RESERVED_PART_OF_WEIGHTS)
    wanted = RESERVED_CAPTION_TOKENS if kind is ModelKind.CAPTIONER else RESERVED_TOKENS
    num_tokens = min(context_length_of(model_config, config.context_length), wanted)
    return shape.nbytes(num_tokens, item_bytes, quantization)


def _max_pixels(path: Path) -> int:
    """Most pixels of one picture after the captioner's own preprocessing."""
    try:
        told = json.loads((path / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return PICTURE_PIXELS
    return (
        min(count_of(told, "max_pixels") or PICTURE_PIXELS, PICTURE_PIXELS)
        if isinstance(told, dict)
        else PICTURE_PIXELS
    )
