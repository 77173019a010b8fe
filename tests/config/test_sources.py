"""Where a model comes from: a repository with its owner, or a folder, or a model inside the package."""

from __future__ import annotations

from tests.config.files import ONE, problems_of

_NO_REPOSITORY = "should be a Hugging Face repository with its owner, such as mlx-community/Qwen3-4B-Instruct-2507-4bit"


def test_all_sources_that_cannot_be_are_told_together() -> None:
    """With their lines, before anybody waits for a load that then fails."""
    text = (
        "models:\n- name: a\n  hf_id: foo\n- name: b\n  local_path: embedded:txt\n"
        "- name: c\n  hf_id: o/c\n  capabilities:\n    vision_mode: proxy\n    vision_proxy:\n      hf_id: bar\n"
    )
    embedded = "should be one of embedded:text, embedded:captioner, or a directory"
    assert set(problems_of(text)) == {
        f"models.yaml:3: models[0].hf_id {_NO_REPOSITORY}, got 'foo'",
        f"models.yaml:5: models[1].local_path {embedded}, got 'embedded:txt'",
        f"models.yaml:11: models[2].capabilities.vision_proxy.hf_id {_NO_REPOSITORY}, got 'bar'",
    }


def test_a_flag_and_a_draft_model_name_no_other_embedded_models() -> None:
    """They are checked by the same names."""
    (problem,) = problems_of(ONE, flags={"model": "embedded:txt"})
    assert problem.startswith("flag --model: 'embedded:txt' is no configured model")
    (problem,) = problems_of(ONE.replace("owner/one", "owner/one, params: {draft_model: embedded:txt}"))
    assert problem.startswith("models.yaml:1: models[0].params.draft_model 'embedded:txt' is no configured model")
