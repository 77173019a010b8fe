"""Which models may draft for which, however a draft model is named."""

from __future__ import annotations

import pytest

from tests.config.files import load_text, problems_of


def drafted(draft: str, more: str = "") -> str:
    """A model with this draft model, in line 4, with a small model and a captioner."""
    return (
        "models:\n- name: big\n  hf_id: o/big\n"
        f"  params: {{draft_model: {draft}}}\n"
        "  capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}\n"
        "- {name: small, aliases: [s], hf_id: o/small, revision: v1}\n"
        "- {name: near, local_path: ./near}\n"
        f"- {{name: eyes, hf_id: o/eyes{more}}}\n"
    )


@pytest.mark.parametrize(
    ("draft", "name"),
    [("small", "small"), ("s", "small"), ("o/small", "small"), ("./near", "near"), ("x/y-1B", "x/y-1B")],
)
def test_a_draft_model_is_an_entry_or_a_hub_id(draft, name):
    """A name, alias, repository or directory means an entry; a repository without an entry adds none."""
    config = load_text(drafted(draft))
    assert config.models[0].params.draft_model == name
    assert config.sources["models[0].params.draft_model"] == "models.yaml:4"
    assert [m.name for m in config.models] == ["big", "small", "near", "eyes"]


def test_a_draft_model_may_be_a_directory(tmp_path):
    """A directory that exists, or is written like one, is relative to the file; an embedded model is not a path."""
    (tmp_path / "tiny").mkdir()
    for draft, expected in [("tiny", "tiny"), ("./other", "other")]:
        config = load_text(drafted(draft), folder=tmp_path)
        assert config.models[0].params.draft_model == str(tmp_path / expected)
    assert load_text(drafted('"embedded:text"')).models[0].params.draft_model == "embedded:text"


@pytest.mark.parametrize(
    ("draft", "said"),
    [
        ("big", "'big' is the model itself; name a smaller one with the same tokenizer"),
        ("o/big", "'o/big' is the model itself; name a smaller one with the same tokenizer"),
        ("eyes", "'eyes' only captions images for other models; name a text model"),
        ("smal", "'smal' is no configured model, no directory and no hub id (owner/name); did you mean small?"),
    ],
)
def test_a_draft_model_that_cannot_draft_is_refused(draft, said):
    """The model itself, a captioner and unknown names are refused, with the line."""
    assert problems_of(drafted(draft)) == (f"models.yaml:4: models[0].params.draft_model {said}",)


def test_every_draft_model_is_checked():
    """A captioner can neither draft nor have a draft model, and all such problems are reported together."""
    assert problems_of(drafted("eyes", ", params: {draft_model: small}")) == (
        "models.yaml:4: models[0].params.draft_model 'eyes' only captions images for other models; name a text model",
        (
            "models.yaml:8: models[3].params.draft_model is for text models, and this one only captions images; "
            "remove it"
        ),
    )


def test_a_flag_cannot_make_a_draft_model_a_captioner():
    """With `--vision-model` and `--model`, too, the problem names the entry and its line."""
    (problem,) = problems_of(drafted("small"), {}, {"vision_model": "small"})
    assert problem.startswith("models.yaml:4: models[0].params.draft_model 'small' only captions images")
    (problem,) = problems_of(drafted("big"), {}, {"model": "small"})
    assert problem.startswith("models.yaml:4: models[0].params.draft_model 'big' is the model itself")


def test_a_native_model_has_no_draft_model():
    """A draft model reads text only; the error names the line."""
    (problem,) = problems_of(
        drafted("small").replace("vision_mode: proxy, vision_proxy: {model: eyes}", "vision_mode: native")
    )
    assert problem.startswith(
        "models.yaml:4: models[0].params.draft_model is for text models, and this one is shown images"
    )


def test_one_thing_drafts_for_a_model():
    """A draft model and prompt look-up are two answers to the same question; the error names the line."""
    (problem,) = problems_of(drafted("small, prompt_lookup: true"))
    assert problem == (
        "models.yaml:4: models[0].params.draft_model cannot be combined with prompt_lookup; remove one of the two"
    )
