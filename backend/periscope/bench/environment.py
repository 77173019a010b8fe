"""What figures depend on besides our code: versions, device, BLAS library, model."""

from __future__ import annotations

import json
import os
import platform
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx

from periscope import __version__
from periscope.engine.loading.loader import read_model_config

_SHAPE_KEYS = (
    "model_type",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
)


@dataclass(frozen=True, slots=True)
class Environment:
    """The software and machine of a measurement.

    Attributes:
        gpu: what MLX tells of the GPU; None = it computes on the CPU.
        has_openblas: OpenBLAS is preloaded; MLX's CPU build links a reference BLAS that is forty times slower.
        openblas_num_threads: OPENBLAS_NUM_THREADS. Its threads wait by spinning, which counts as CPU time.
    """

    periscope: str
    python: str
    mlx: str
    mlx_lm: str
    mlx_vlm: str
    device: str
    num_cpus: int
    gpu: str | None
    has_openblas: bool
    openblas_num_threads: str | None

    def lines(self) -> list[str]:
        """The lines that a report shows."""
        blas = "OpenBLAS preloaded" if self.has_openblas else "no OpenBLAS preloaded"
        if self.has_openblas and self.openblas_num_threads is not None:
            blas += f" (OPENBLAS_NUM_THREADS={self.openblas_num_threads})"
        gpu = [] if self.gpu is None else [self.gpu]
        return [
            f"periscope {self.periscope}, mlx {self.mlx}, mlx-lm {self.mlx_lm}, mlx-vlm {self.mlx_vlm}",
            f"Python {self.python}, {self.device}, {self.num_cpus} CPUs, {blas}",
            *gpu,
        ]


def environment() -> Environment:
    """The environment of this process; a server that it starts has the same."""
    return Environment(
        periscope=__version__,
        python=platform.python_version(),
        mlx=version("mlx"),
        mlx_lm=version("mlx-lm"),
        mlx_vlm=version("mlx-vlm"),
        device=str(mx.default_device()),
        num_cpus=os.cpu_count() or 1,
        gpu=gpu_line(mx.device_info()) if mx.default_device().type == mx.DeviceType.gpu else None,
        has_openblas="openblas" in os.environ.get("LD_PRELOAD", ""),
        openblas_num_threads=os.environ.get("OPENBLAS_NUM_THREADS"),
    )


def gpu_line(told: Mapping[str, str | int]) -> str:
    """Pure: what `mx.device_info` tells of a GPU, as one line: its keys are not the same on every backend."""
    name = told.get("device_name", "GPU")
    parts = [f"{name} ({told['architecture']})" if "architecture" in told else str(name)]
    for key, what in (("memory_size", "of memory"), ("max_recommended_working_set_size", "for MLX")):
        size = told.get(key)
        if isinstance(size, int):
            parts.append(f"{size / 2**30:.0f} GiB {what}")
    return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class MeasuredModel:
    """The model of a measurement. `dtype`: that of most weights on disk. `quantization`: as in its config.json."""

    name: str
    shape: dict[str, object]
    dtype: str
    quantization: object

    def line(self) -> str:
        """The line that a report shows."""
        shape = ", ".join(f"{key} {value}" for key, value in self.shape.items())
        return f"model {self.name}: {shape}, {self.dtype}" + (", quantized" if self.quantization else "")


def measured_model(path: Path, name: str) -> MeasuredModel:
    """Describe a model from its files.

    Raises:
        ModelLoadError: the model has no readable config.json.
    """
    config = read_model_config(path)
    shape = {key: config[key] for key in _SHAPE_KEYS if key in config}
    return MeasuredModel(name, shape, _dtype(path), config.get("quantization"))


def _dtype(path: Path) -> str:
    """The most common dtype in the header of the first weight file: eight bytes of length, then JSON."""
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as weights:
            (size,) = struct.unpack("<Q", weights.read(8))
            header = json.loads(weights.read(size))
        kinds = Counter(tensor["dtype"] for name, tensor in header.items() if name != "__metadata__")
        return str(kinds.most_common(1)[0][0])
    return "unknown"
