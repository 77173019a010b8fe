"""Resolving models: captioners are found or added, and flags choose models."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.config import Config
from periscope.core import ModelKind, VisionMode
from periscope.engine.config import StatesOnDisk
from periscope.wiring import engine_config, states_on_disk, warm_texts
from tests.config.files import ONE, PAIR, SEEDS, load_text, model, problems_of

TWO_PROXIES = """\
models:
- {name: a, hf_id: o/a, preload: true, capabilities: {vision_mode: proxy, vision_proxy: {hf_id: q/Eyes-7B}}}
- {name: b, hf_id: o/b, capabilities: {vision_mode: proxy, vision_proxy: {hf_id: q/Eyes-7B}}}
"""


def captioner_of(config: Config, name: str) -> str | None:
    """The name of the model's captioner."""
    proxy = model(config, name).capabilities.vision_proxy
    return proxy.model if proxy else None


def test_a_hub_id_adds_a_captioner():
    """A repository without an entry gets one that is named after it, with the proxy's line as its source."""
    config = load_text(SEEDS)
    added = config.models[-1]
    assert (added.name, added.hf_id) == ("Qwen2-VL-7B-Instruct", "Qwen/Qwen2-VL-7B-Instruct")
    assert (added.kind, added.preload) == (ModelKind.CAPTIONER, False)
    assert captioner_of(config, "ministral-3-3b") == added.name
    assert config.sources["models[2].hf_id"] == "models.yaml:19"
    assert config.sources["models[0].capabilities.vision_proxy.model"] == "models.yaml:19"


def test_two_proxies_share_a_captioner():
    """The same repository gives one entry, which is loaded at start if a text model that is needs it."""
    config = load_text(TWO_PROXIES)
    assert [m.name for m in config.models] == ["a", "b", "Eyes-7B"]
    assert captioner_of(config, "a") == captioner_of(config, "b") == "Eyes-7B"
    assert config.models[2].preload


def test_a_hub_id_that_an_entry_has_means_that_entry():
    """A repository that has an entry does not get a second one."""
    config = load_text(TWO_PROXIES + "- {name: mine, hf_id: q/Eyes-7B, params: {max_num_seqs: 4}}")
    assert [m.name for m in config.models] == ["a", "b", "mine"]
    assert captioner_of(config, "b") == "mine"


def test_a_taken_name_is_numbered():
    """An added captioner never takes the name of another model."""
    config = load_text(TWO_PROXIES + "- {name: Eyes-7B, hf_id: x/y, aliases: [Eyes-7B-2]}")
    assert config.models[-1].name == captioner_of(config, "a") == "Eyes-7B-3"


def test_a_disabled_proxy_adds_nothing():
    """A disabled proxy keeps its settings, but no captioner is added for it."""
    config = load_text(TWO_PROXIES.replace("vision_mode: proxy", "vision_mode: disabled"))
    assert [m.name for m in config.models] == ["a", "b"]


def test_a_captioner_may_be_named_by_alias():
    """The proxy then has the captioner's name instead of its alias."""
    config = load_text(PAIR.replace("{model: eyes}", "{model: e}") + "  - {name: x, hf_id: o/x, aliases: [e]}")
    assert captioner_of(config, "words") == "x"


@pytest.mark.parametrize(("mode", "kind"), [("disabled", ModelKind.CAPTIONER), ("native", ModelKind.TEXT)])
def test_a_model_that_others_name_as_captioner_is_a_captioner(mode, kind):
    """It answers no requests itself, unless its vision mode is native."""
    config = load_text(
        PAIR.replace("embedded:captioner", f"embedded:captioner\n    capabilities: {{vision_mode: {mode}}}")
    )
    assert model(config, "eyes").kind is kind
    assert model(config, "words").kind is model(config, "other").kind is ModelKind.TEXT


def test_the_default_is_the_first_text_model():
    """A captioner in front of it is not the default."""
    config = load_text("models:\n- {name: eyes, hf_id: q/Eyes-7B}\n" + TWO_PROXIES.partition("\n")[2])
    assert config.default_model.name == "a"


def test_a_captioner_that_sees_natively_may_be_the_default():
    """A native model can be the default even if another model names it as its captioner."""
    native = "- {name: eyes, hf_id: q/Eyes-7B, aliases: [default], capabilities: {vision_mode: native}}\n"
    config = load_text("models:\n" + native + TWO_PROXIES.partition("\n")[2])
    assert config.default_model.name == "eyes"
    assert captioner_of(config, "a") == "eyes"


def test_a_native_model_sets_limits_without_a_captioner_and_captions_for_others():
    """Its vision_proxy holds limits; a text model and a flag may name it all the same."""
    native = "- {name: eyes, hf_id: q/Eyes-7B, capabilities: {vision_mode: native, vision_proxy: {max_images: 3}}}\n"
    config = load_text("models:\n" + native + TWO_PROXIES.partition("\n")[2])
    proxy = model(config, "eyes").capabilities.vision_proxy
    assert proxy is not None
    assert proxy.max_images == 3
    assert captioner_of(config, "eyes") is None
    assert captioner_of(config, "a") == "eyes"
    words = "- {name: words, local_path: embedded:text}\n"
    assert captioner_of(load_text("models:\n" + words + native, {}, {"vision_model": "eyes"}), "words") == "eyes"


def test_an_empty_source_is_none():
    """An entry whose hf_id is left empty has only its local_path."""
    config = load_text("models:\n- name: a\n  hf_id:\n  local_path: embedded:text\n")
    assert (config.models[0].hf_id, config.models[0].local_path) == (None, "embedded:text")


def test_paths_are_relative_to_the_file(tmp_path):
    """A relative directory means the same wherever the server is started; embedded models are not paths."""
    config = load_text(SEEDS, folder=tmp_path)
    assert model(config, "local-mistral").local_path == str(tmp_path / "models/mistral-7b-instruct")
    assert model(load_text(PAIR), "words").local_path == "embedded:text"


@pytest.mark.parametrize("wanted", ["other", "owner/other"])
def test_the_model_flag_makes_an_entry_the_default(wanted):
    """`--model` by name or repository makes an entry the default, and only that one is loaded at start."""
    config = load_text(PAIR, {}, {"model": wanted})
    assert [m.name for m in config.models] == ["other", "words", "eyes"]
    assert config.default_model.name == "other"
    assert [m.name for m in config.models if m.preload] == ["other"]
    assert config.models[1].aliases == ("w",)
    assert config.sources["models[0].preload"] == config.sources["models[1].aliases"] == "flag --model"
    assert config.sources["models[0].hf_id"] == "models.yaml:13"


@pytest.mark.parametrize("wanted", ["words", "w", "default", "embedded:text"])
def test_the_model_flag_loads_the_captioner_too(wanted):
    """`--model` for a model in proxy mode also loads its captioner."""
    config = load_text(PAIR, {}, {"model": wanted})
    assert config.default_model.name == "words"
    assert [m.name for m in config.models if m.preload] == ["words", "eyes"]


def test_the_model_flag_takes_a_hub_id_without_an_entry():
    """A new model becomes the default, with the first known captioner, and both are loaded at start."""
    config = load_text(PAIR, {}, {"model": "some/New-4bit"})
    new = config.models[0]
    assert (new.name, new.hf_id, new.kind) == ("New-4bit", "some/New-4bit", ModelKind.TEXT)
    assert new.capabilities.vision_mode is VisionMode.PROXY
    assert captioner_of(config, "New-4bit") == "eyes"
    assert [m.name for m in config.models if m.preload] == ["New-4bit", "eyes"]
    assert config.sources["models[0].hf_id"] == "flag --model"


def test_the_model_flag_takes_a_directory(tmp_path):
    """A directory, relative to the working directory, becomes a model named after it."""
    (tmp_path / "my model").mkdir()
    config = load_text(PAIR, {}, {"model": "my model"}, folder=tmp_path)
    assert (config.models[0].name, config.models[0].local_path) == ("my-model", str(tmp_path / "my model"))


def test_a_new_model_without_any_captioner_is_text_only():
    """If no captioner is known, `--model` gives a text-only model."""
    assert load_text(ONE, {}, {"model": "some/new"}).models[0].capabilities.vision_mode is VisionMode.DISABLED


@pytest.mark.parametrize(
    ("wanted", "name"), [("eyes", "eyes"), ("q/Eyes-7B", "Eyes-7B"), ("embedded:captioner", "eyes")]
)
def test_vision_model_sets_the_captioner_of_the_default(wanted, name):
    """`--vision-model` takes a name, a repository or an embedded model; the proxy's other settings stay."""
    text = PAIR.replace("{model: eyes}", "{model: eyes, max_images: 3}")
    config = load_text(text, {}, {"vision_model": wanted})
    proxy = config.default_model.capabilities.vision_proxy
    assert proxy is not None
    assert (proxy.model, proxy.max_images) == (name, 3)
    assert (model(config, name).kind, model(config, name).preload) == (ModelKind.CAPTIONER, True)
    assert model(config, "eyes").kind is ModelKind.CAPTIONER
    assert config.sources["models[0].capabilities.vision_proxy.model"] == "flag --vision-model"


def test_both_flags_make_a_pair():
    """`--model` and `--vision-model` together serve a pair that is not in the file."""
    config = load_text(PAIR, {}, {"model": "some/New", "vision_model": "q/Eyes"})
    assert captioner_of(config, "New") == "Eyes"
    assert [m.name for m in config.models if m.preload] == ["New", "Eyes"]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (
            {"model": "othr"},
            "flag --model: 'othr' is no configured model, no directory and no hub id (owner/name); did you mean other?",
        ),
        ({"model": ""}, "flag --model: '' is no configured model, no directory and no hub id (owner/name)"),
        (
            {"model": "/no/such/dir"},
            "flag --model: '/no/such/dir' is no configured model, no directory and no hub id (owner/name)",
        ),
        (
            {"vision_model": "./nosuch"},
            "flag --vision-model: './nosuch' is no configured model, no directory and no hub id (owner/name)",
        ),
        ({"model": "eyes"}, "flag --model: 'eyes' only captions images for other models; name a text model"),
        (
            {"vision_model": "words"},
            "flag --vision-model: 'words' is a text model, so it cannot caption images",
        ),
        (
            {"model": "other", "vision_model": "other"},
            "flag --vision-model: 'other' is a text model, so it cannot caption images",
        ),
        ({"port": 70000}, "flag --port: server.port should be less than or equal to 65535, got 70000"),
    ],
)
def test_a_flag_that_cannot_be_used_is_named(flags, problem):
    """The problem starts with the flag."""
    assert problems_of(PAIR, {}, flags) == (problem,)


@given(st.fixed_dictionaries({}, optional={"model": st.text(max_size=300), "vision_model": st.text(max_size=300)}))
def test_any_flag_text_is_taken_or_refused(flags):
    """Whatever text the flags have, the result is a Config or a ConfigError."""
    problems_of(PAIR, {}, flags)


def test_only_a_captioner_cuts_images_into_tiles():
    """On a text model the setting would do nothing, so it is refused."""
    tiles = "    params: {max_image_tiles: 2}\n"
    assert model(load_text(PAIR.replace("captioner\n", "captioner\n" + tiles)), "eyes").params.max_image_tiles == 2
    said = "models[2].params.max_image_tiles is for models that only caption images, and this one answers requests"
    assert problems_of(PAIR + tiles) == (f"models.yaml:14: {said}; remove it",)
    native = PAIR + tiles + "    capabilities: {vision_mode: native}\n"
    assert model(load_text(native), "other").params.max_image_tiles == 2


def test_only_a_captioner_can_be_isolated():
    """For a text model the key is refused with its line; a flag can make an entry a captioner."""
    isolated = "    isolated: true\n"
    assert model(load_text(PAIR.replace("captioner\n", "captioner\n" + isolated)), "eyes").isolated
    other = PAIR + isolated
    said = "models[2].isolated is for models that only caption images, and this one answers requests; remove it"
    assert problems_of(other) == (f"models.yaml:14: {said}",)
    assert problems_of(other + "    capabilities: {vision_mode: native}\n") == (f"models.yaml:14: {said}",)
    assert model(load_text(other, {}, {"vision_model": "other"}), "other").isolated


def test_resolved_models_have_distinct_names():
    """However entries were made, every name and alias means one model."""
    config = load_text(SEEDS, {}, {"model": "x/Qwen2-VL-7B-Instruct", "vision_model": "y/ministral-3-3b"})
    names = [name for m in config.models for name in (m.name, *m.aliases)]
    assert len(names) == len(set(names))


def test_a_hub_id_is_a_name_of_its_model():
    """Clients that use a model's repository as its name need no alias in the file, for captioners, too."""
    config = load_text(SEEDS)
    assert model(config, "ministral-3-3b").aliases == ("mistralai/Ministral-3-3B-Reasoning-2512",)
    assert model(config, "Qwen2-VL-7B-Instruct").aliases == ("Qwen/Qwen2-VL-7B-Instruct",)
    assert model(config, "local-mistral").aliases == ()
    assert config.sources["models[0].aliases"] == config.sources["models[0].hf_id"] == "models.yaml:5"


def test_a_hub_id_is_one_models_name_only():
    """A name or alias in the file wins over it, and of two entries the first one has it."""
    config = load_text(
        "models:\n- {name: a, hf_id: o/x, revision: v1, aliases: [z]}\n- {name: b, hf_id: o/x}\n"
        "- {name: c, hf_id: o/c}\n- {name: d, hf_id: o/d, aliases: [o/c]}\n- {name: o/e, hf_id: o/e}\n"
    )
    assert [each.aliases for each in config.models] == [("z", "o/x"), (), (), ("o/c", "o/d"), ()]


READS = """\
models:
- {name: a, hf_id: o/a, capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, reader: ocr}}}
- {name: eyes, hf_id: q/eyes}
- {name: deepseek, hf_id: q/deepseek-ocr, aliases: [ocr]}
"""


def reader_of(config: Config) -> str | None:
    proxy = config.models[0].capabilities.vision_proxy
    return proxy.reader_model if proxy else None


def test_a_model_that_reads_is_no_text_model():
    """An alias of it will do; clients cannot ask it anything, and `--model` loads it with the model it reads for."""
    config = load_text(READS)
    assert reader_of(config) == "deepseek"
    assert [m.kind for m in config.models] == [ModelKind.TEXT, ModelKind.CAPTIONER, ModelKind.CAPTIONER]
    assert [m.preload for m in load_text(READS, flags={"model": "a"}).models] == [True] * 3
    assert reader_of(load_text(READS.replace("reader: ocr", "reader: rapidocr"))) is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("rapidocrr", "'rapidocrr' is none of auto, apple_vision, rapidocr, none, and names no model of this file"),
        ("deepsek", "names no model of this file; did you mean deepseek?"),
        ("a", "'a' is the model itself"),
    ],
)
def test_a_reader_that_does_not_exist_is_told(wrong: str, told: str):
    """With the kinds there are, and what may have been meant."""
    (problem,) = problems_of(READS.replace("reader: ocr", f"reader: {wrong}"))
    assert problem.startswith("models.yaml:2: models[0].capabilities.vision_proxy.reader")
    assert told in problem


def test_a_variant_is_a_name_of_its_model() -> None:
    """So commands and the command line find the model by it. A captioner has none."""
    variants = (
        "    variants:\n      - {name: 'a:quick', params: {thinking_budget: 0}}\n"
        "      - {name: 'a:deep', params: {thinking_budget: 9}}\n"
    )
    (found,) = load_text("models:\n  - name: a\n    hf_id: o/a\n" + variants).models
    assert found.aliases == ("a:quick", "a:deep", "o/a")
    quick, deep = found.variants
    assert quick.template_kwargs == {"enable_thinking": False, "thinking": False}
    assert deep.template_kwargs == {"enable_thinking": True, "thinking": True}
    assert deep.params.generation.thinking_budget == 9
    assert found.params.template_kwargs == {}
    of_captioner = PAIR.replace(
        "    local_path: embedded:captioner\n", "    local_path: embedded:captioner\n" + variants
    )
    (problem,) = problems_of(of_captioner)
    assert "models[1].variants is for models that answer requests" in problem


def test_a_chat_template_is_a_file_or_the_text(tmp_path: Path) -> None:
    """A file stands relative to models.yaml, and has to be there."""
    entry = "models:\n  - name: a\n    hf_id: o/a\n    params:\n      chat_template: "
    (inline,) = load_text(entry + "'{{ messages }}'\n").models
    assert inline.params.chat_template == "{{ messages }}"
    (tmp_path / "mine.jinja").write_text("{{ messages }}")
    (found,) = load_text(f"{entry}{tmp_path}/x/../mine.jinja\n").models
    assert found.params.chat_template == str(tmp_path / "mine.jinja")
    (problem,) = problems_of(entry + "gone.jinja\n")
    assert "models.yaml:5: models[0].params.chat_template is no template and names no file" in problem


def test_only_models_that_answer_have_templates_and_parsers() -> None:
    """A captioner is asked in its own way."""
    ours = "    local_path: embedded:captioner\n    params:\n      chat_template: '{{ m }}'\n      tool_parser: llama\n"
    problems = problems_of(PAIR.replace("    local_path: embedded:captioner\n", ours))
    assert [problem.split()[1].rpartition(".")[2] for problem in problems] == ["chat_template", "tool_parser"]


def test_a_warm_prompt_is_a_text_or_a_file_after_an_at_sign(tmp_path: Path) -> None:
    """A file stands relative to models.yaml, and has to be there; only models that answer have any."""
    entry = "models:\n  - name: a\n    hf_id: o/a\n    warm:\n      - You are an agent.\n      - "
    (tmp_path / "agent.md").write_text("You are another.")
    (found,) = load_text(f"{entry}'@{tmp_path}/x/../agent.md'\n").models
    assert found.warm == ("You are an agent.", f"@{tmp_path}/agent.md")
    assert warm_texts(found) == ("You are an agent.", "You are another.")
    (problem,) = problems_of(entry + "'@gone.md'\n")
    assert problem.startswith("models.yaml:6: models[0].warm[1] names no file: ")
    ours = "    local_path: embedded:captioner\n    warm: [You see.]\n"
    (problem,) = problems_of(PAIR.replace("    local_path: embedded:captioner\n", ours))
    assert ".warm is for models that answer requests" in problem


def test_prompts_on_disk_stand_beside_the_captions_unless_they_have_a_place(tmp_path: Path) -> None:
    """Their folder is absolute: relative to models.yaml, else among the user's caches; none if they are off."""
    one = "models: [{name: one, hf_id: owner/one}]\n"
    usual = load_text(one, {"XDG_CACHE_HOME": str(tmp_path)})
    assert usual.prompt_cache.path == str(tmp_path / "periscope" / "prompts")
    assert usual.sources["prompt_cache.path"] == "derived"
    own = load_text(f"prompt_cache: {{path: kept, max_bytes: 1GiB, write_after: 5m}}\n{one}", folder=tmp_path)
    kept = states_on_disk(own.prompt_cache)
    assert kept == StatesOnDisk(tmp_path / "kept", 2**30, 300.0)
    assert engine_config(own.models[0], own).states_on_disk == kept
    off = load_text(f"prompt_cache: {{persist: false}}\n{one}")
    assert engine_config(off.models[0], off).states_on_disk is None
