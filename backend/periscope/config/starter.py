"""The models.yaml that `periscope config init` writes: the pairs that fit a machine, with the reasons. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from periscope.config.pairs import PAIRS, Checkpoint, Pair
from periscope.core.amounts import size

_GB = 1024**3
#: Macs up to 32 GB let the GPU use two thirds of their memory, larger ones three quarters.
_LARGE_FROM_BYTES = 36 * _GB
_SMALL_PART, _LARGE_PART = 2 / 3, 3 / 4
#: What the engine uses of what Metal recommends (`engine.device.memory.USABLE_PART`).
_USABLE_PART = 0.9
_EXAMPLES_KEPT = 2

_HEADER = """\
# models.yaml: which models Periscope serves. Written by `periscope config init` for a machine with {memory} of memory,
# of which models may take {budget} together. `periscope config show` prints every setting in effect,
# `periscope config schema` describes all there are.
#
# Nothing is downloaded while serving: fetch a pair first, with `periscope pull NAME`.

models:
"""
_DEMO = """\
  # No real pair fits. This is the embedded pair of demo models, which needs no download and is of no use beyond a try.
  - name: demo
    local_path: embedded:text
    preload: true
    params: {temperature: 0}
    capabilities:
      vision_mode: proxy
      vision_proxy: {model: demo-captioner}
  - name: demo-captioner
    local_path: embedded:captioner
    preload: true
"""


def estimated_budget(memory_bytes: int) -> int:
    """What models may take on a Mac with so much memory; on the machine itself MLX knows better."""
    part = _LARGE_PART if memory_bytes >= _LARGE_FROM_BYTES else _SMALL_PART
    return int(memory_bytes * part * _USABLE_PART)


def fitting(budget_bytes: int) -> tuple[Pair, ...]:
    """The pairs that fit, the largest first, which is to be the default."""
    return tuple(pair for pair in reversed(PAIRS) if pair.total_bytes <= budget_bytes)


def starter_file(memory_bytes: int, budget_bytes: int) -> str:
    """The text of a models.yaml to begin with."""
    pairs = fitting(budget_bytes)
    parts = [_HEADER.format(memory=f"{memory_bytes / _GB:.0f} GB", budget=size(budget_bytes))]
    for index, pair in enumerate(pairs[: _EXAMPLES_KEPT + 1]):
        parts.append("\n".join(_entry(pair, budget_bytes, is_default=index == 0)) + "\n")
    if not pairs:
        parts.append(_DEMO)
    too_large = [pair for pair in PAIRS if pair not in pairs]
    if too_large:
        parts.append("".join(_refused(pair) for pair in too_large))
    return "\n".join(parts).replace(":\n\n", ":\n", 1)


def _entry(pair: Pair, budget_bytes: int, *, is_default: bool) -> Iterator[str]:
    text, captioner = pair.text, pair.captioner
    yield f"  # {pair.why}"
    yield f"  # {_taken(text)} for a conversation; the captioner {_taken(captioner)} for a picture:"
    yield f"  # {size(pair.total_bytes)} of {size(budget_bytes)}, both in memory at once."
    yield f"  - name: {pair.name}"
    yield f"    hf_id: {text.hf_id}"
    if is_default:
        yield "    preload: true # the default model, because it is the first; loaded when the server starts"
    yield "    params:"
    yield f"      context_length: {pair.context_length(budget_bytes)} # the longest that fits beside the pair"
    for name, value in pair.sampling.items():
        yield f"      {name}: {value}"
    yield "    capabilities:"
    yield "      vision_mode: proxy # pictures are described by the captioner"
    yield "      vision_proxy:"
    yield f"        hf_id: {captioner.hf_id}"


def _taken(checkpoint: Checkpoint) -> str:
    return f"{size(checkpoint.weights_bytes)} of weights and {size(checkpoint.reserve_bytes)}"


def _refused(pair: Pair) -> str:
    return f"  # Too large for this machine: {pair.text.hf_id}, {size(pair.total_bytes)} with its captioner.\n"
