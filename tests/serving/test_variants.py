"""Variants: further names of a model with sampling of their own, which are chosen, listed and selected like models."""

from __future__ import annotations

import pytest

from periscope.core import GenerationParams, ModelFiles, VisionMode
from periscope.errors import ModelNotFound
from periscope.serving.models import ModelNames, ServedModel, Variant

HIGH = Variant("qwen:high", GenerationParams(thinking_budget=9000, top_k=5), {"enable_thinking": True})
SILENT = Variant("qwen:nothink", GenerationParams(thinking_budget=0), {"enable_thinking": False})
QWEN = ServedModel(
    "qwen",
    ("q", "qwen:high", "qwen:nothink"),
    0,
    4096,
    VisionMode.DISABLED,
    GenerationParams(temperature=0.6, top_k=20),
    files=ModelFiles(),
    variants=(HIGH, SILENT),
)
OTHER = ServedModel("other", (), 0, 4096, VisionMode.DISABLED)


def test_a_variant_is_its_model_with_other_params() -> None:
    """What it leaves open is the model's; an alias and the name mean the model itself."""
    names = ModelNames([QWEN, OTHER])
    high = names.resolve("qwen:high")
    assert (high.name, high.shown_name) == ("qwen", "qwen:high")
    assert high.params == GenerationParams(temperature=0.6, top_k=5, thinking_budget=9000)
    assert high.template_kwargs == {"enable_thinking": True}
    for name in ("qwen", "q", "", "default"):
        assert names.resolve(name) == QWEN
    with pytest.raises(ModelNotFound):
        names.resolve("qwen:low")


def test_all_are_listed_the_default_first() -> None:
    """Each once, under names that mean it alone."""
    names = ModelNames([QWEN, OTHER])
    assert [(model.shown_name, model.own_aliases) for model in names.listed] == [
        ("qwen", ("q",)),
        ("qwen:high", ()),
        ("qwen:nothink", ()),
        ("other", ()),
    ]
    names.select(names.resolve("qwen:nothink"))
    assert [model.shown_name for model in names.listed] == ["qwen:nothink", "qwen", "qwen:high", "other"]
    assert names.resolve("").params.thinking_budget == 0
    assert names.resolve("qwen:high").params.thinking_budget == 9000
    assert names.resolve("qwen") == QWEN


def test_a_selected_variant_stays_selected_when_the_file_is_read_again() -> None:
    """As long as it is there."""
    names = ModelNames([QWEN, OTHER])
    names.select(names.resolve("qwen:high"))
    names.replace([OTHER, QWEN])
    assert names.default.shown_name == "qwen:high"
    names.replace([OTHER])
    assert names.default == OTHER
