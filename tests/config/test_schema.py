"""The settings and their JSON schema."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.config import DType, json_schema
from periscope.config.keys import section_at, section_of, settings
from periscope.config.section import fields_of
from periscope.core import GenerationParams, VisionMode
from periscope.errors import InvalidRequest
from tests.config.files import ONE, SEEDS, load_text, model, numbers, problems_of, properties

SAMPLING = [
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
]


def test_the_seeds_shape_loads_as_it_stands():
    """A file in the shape of the seeds' models.yaml loads with every value where it belongs."""
    config = load_text(SEEDS)
    assert config.idle_unload_s == 3600
    text = config.models[0]
    assert (text.name, text.hf_id, text.local_path) == (
        "ministral-3-3b",
        "mistralai/Ministral-3-3B-Reasoning-2512",
        None,
    )
    assert (text.params.dtype, text.params.mem) == (DType.FLOAT16, 8192)
    assert (text.params.max_num_seqs, text.params.prefill_chunk_size) == (128, 1024)
    assert text.params.generation == GenerationParams(
        temperature=0.3, top_p=0.9, top_k=40, frequency_penalty=0.0, presence_penalty=0.0
    )
    proxy = text.capabilities.vision_proxy
    assert text.capabilities.vision_mode is VisionMode.PROXY
    assert proxy is not None
    assert proxy.prompt_template == "Describe this image in detail."
    assert config.models[1].capabilities.vision_mode is VisionMode.DISABLED


@pytest.mark.parametrize(
    ("written", "mode"),
    [
        ("disabled", "disabled"),
        ("false", "disabled"),
        ("none", "disabled"),
        ("off", "disabled"),
        ("no", "disabled"),
        ('"false"', "disabled"),
        ("", "disabled"),
        ("native", "native"),
    ],
)
def test_vision_mode_takes_the_words_people_use(written, mode):
    """`false` and `none` mean disabled, and so does an empty value."""
    config = load_text(
        f"models:\n- {{name: a, hf_id: o/a}}\n- name: b\n  hf_id: o/b\n  capabilities:\n    vision_mode: {written}"
    )
    assert model(config, "b").capabilities.vision_mode == mode


@pytest.mark.parametrize(
    ("written", "dtype"), [("bf16", "bfloat16"), ("float32", "float32"), ("auto", None), ("", None)]
)
def test_dtype_takes_short_names(written, dtype):
    """The short type names mean the long ones."""
    config = load_text(f"models:\n- name: a\n  hf_id: o/a\n  params:\n    dtype: {written}")
    assert config.models[0].params.dtype == dtype


def test_units_may_be_written():
    """Bytes and durations are numbers or texts with a unit."""
    config = load_text(
        ONE + 'idle_unload_secs: 30m\nmemory: {budget: 24GB, wired_limit: "16GiB"}\n'
        "server: {heartbeat_s: 500ms, limits: {max_body_bytes: 1MiB, wait_timeout_s: 90}}"
    )
    assert config.idle_unload_s == 1800
    assert (config.memory.budget, config.memory.wired_limit) == (24 * 10**9, 16 * 1024**3)
    assert (config.server.heartbeat_s, config.server.limits.wait_timeout_s) == (0.5, 90)
    assert config.server.limits.max_body_bytes == 1024**2


def test_engine_settings_have_the_documented_defaults():
    """By default captions get a quarter, requests are checked, and the engine works out the memory."""
    config = load_text(ONE)
    params = config.models[0].params
    assert (config.captioner_share, config.memory.check_requests) == (0.15, True)
    assert (params.mem, params.prompt_cache, params.draft_model, params.num_draft_tokens) == (None, None, None, 4)


def test_engine_settings_may_be_written():
    """Each value is read from its key; the prompt cache takes a size with a unit, or 0 for none."""
    config = load_text(
        "captioner_share: 0.5\nmemory: {check_requests: false}\nmodels:\n"
        "- {name: a, hf_id: o/a, params: {prompt_cache: 2GiB, num_draft_tokens: 8, kv_bits: 4, prompt_lookup: true}}\n"
        "- {name: b, hf_id: o/b, params: {prompt_cache: 0}}\n",
    )
    assert (config.captioner_share, config.memory.check_requests) == (0.5, False)
    assert (config.models[0].params.prompt_cache, config.models[0].params.num_draft_tokens) == (2 * 1024**3, 8)
    assert [model.params.prompt_lookup for model in config.models[:2]] == [True, False]
    assert config.models[1].params.prompt_cache == 0
    assert [model.params.kv_bits for model in config.models] == [4, None]


@pytest.mark.parametrize(
    "text",
    [
        "captioner_share: 0.01\n" + ONE,
        "captioner_share: 1\n" + ONE,
        "models: [{name: one, hf_id: owner/one, params: {prompt_cache: -1}}]",
        "models: [{name: one, hf_id: owner/one, params: {num_draft_tokens: 0}}]",
        "models: [{name: one, hf_id: owner/one, params: {num_draft_tokens: 17}}]",
    ],
)
def test_engine_settings_have_bounds(text):
    """A share that starves one side, or drafts of no length or too many, are refused with the bound."""
    (problem,) = problems_of(text)
    assert " than or equal to " in problem


def test_an_empty_section_is_at_its_defaults():
    """A section whose lines are all commented out counts as absent."""
    config = load_text(
        "server:\nmemory:\nmodels:\n- name: one\n  hf_id: o/one\n  aliases:\n  params:\n  capabilities:\n"
    )
    assert config.server.port == 7374
    assert config.models[0].params.max_num_seqs == 16


def test_configuration_is_frozen():
    """No setting can be changed after the start."""
    config = load_text(ONE)
    with pytest.raises(ValueError, match="frozen"):
        config.server.port = 1  # type: ignore[misc]


def test_the_api_key_stays_out_of_reprs():
    """A configuration that is printed or logged does not show the key."""
    assert "s3cret" not in repr(load_text(ONE, {"PERISCOPE_SERVER__API_KEY": "s3cret"}))


@pytest.mark.parametrize("name", SAMPLING)
@given(value=st.floats(-20, 20).map(lambda value: round(value, 4)))
def test_sampling_bounds_are_those_of_requests(name, value):
    """A default is valid in the file exactly if it is valid in a request."""
    bare = {"max_tokens": int, "top_k": int}.get(name, float)(value)
    taken = not problems_of(f"models:\n- name: a\n  hf_id: o/a\n  params: {{{name}: {bare!r}}}")
    values: dict[str, Any] = {name: bare}
    try:
        GenerationParams(**values)
    except InvalidRequest:
        asked = False
    else:
        asked = True
    assert taken == asked


def test_the_json_schema_describes_every_key():
    """Every key of the schema has a description; every value its default, every number its unit and bounds."""
    schema = json_schema()
    for key, field in settings():
        found = properties(schema, key)
        assert found.get("description"), key
        assert field.is_required() or "default" in found, key
        for number in numbers(found):
            assert "unit" in found, key
            assert {"minimum", "maximum"} <= set(number), key


def test_the_json_schema_allows_no_other_keys():
    """An editor with the schema marks a misspelt key."""
    schema = json_schema()
    objects = [schema, *(part for part in schema["$defs"].values() if part.get("type") == "object")]
    assert len(objects) > 5
    assert all(part["additionalProperties"] is False for part in objects)


def test_sections_are_found_by_place():
    """A place in the file leads to the section with its keys."""
    proxy = section_at(("models", 3, "capabilities", "vision_proxy"))
    assert proxy is not None
    assert "prompt_template" in fields_of(proxy)
    assert section_at(("server", "port")) is None
    assert section_of(fields_of(proxy)["max_tokens"].annotation) is None
