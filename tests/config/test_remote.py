"""A captioner on another server, configured in the file and by flags."""

from __future__ import annotations

import pytest

from periscope.config import Config, ModelConfig, describe
from periscope.core import ModelKind
from tests.config.files import ONE, PAIR, load_text, problems_of

REMOTE = "  - name: far\n    remote: {backend: lmdeploy, base_url: 'http://gpu:23333/v1', model: q/VL%s}\n"
FAR = PAIR.replace("{model: eyes}", "{model: far}") + REMOTE
VLLM = {"vlm_backend": "vllm", "vlm_base_url": "http://gpu:8000/v1", "vlm_model": "q/Qwen-VL"}


def named(config: Config, name: str) -> ModelConfig:
    return next(model for model in config.models if model.name == name)


def test_a_text_model_may_name_a_captioner_on_another_server():
    """It is a captioner that is not loaded here, with the file's values and the defaults."""
    far = named(load_text(FAR % ", max_concurrent: 9"), "far")
    assert far.kind is ModelKind.CAPTIONER
    assert not far.preload
    assert far.remote
    assert (far.remote.backend, far.remote.base_url, far.remote.model) == ("lmdeploy", "http://gpu:23333/v1", "q/VL")
    assert (far.remote.max_concurrent, far.remote.num_retries, far.remote.stream) == (9, 2, False)


def test_a_remote_captioner_that_no_model_names_is_no_text_model():
    """It is never the default model."""
    config = load_text("models:\n" + REMOTE % "" + "  - {name: one, hf_id: owner/one}\n")
    assert config.default_model.name == "one"


URL = "base_url: 'http://gpu/v1'"


@pytest.mark.parametrize(
    ("remote", "problem"),
    [
        (f"{{backend: sglang, {URL}, model: m}}", "should be 'vllm', 'lmdeploy', 'triton' or 'openai', got 'sglang'"),
        ("{base_url: 'gpu:8000', model: m}", "remote.base_url should be a URL such as http://127.0.0.1:8000/v1"),
        (
            "{base_url: 'http://me:pw@gpu/v1', model: m}",
            "should be a URL such as http://127.0.0.1:8000/v1, without user",
        ),
        ("{model: m}", "remote.base_url is missing: URL of its OpenAI API, e.g. http://127.0.0.1:8000/v1."),
        (f"{{{URL}}}", "remote.model is missing: The model's name in GET /v1/models of that server."),
        (f"{{{URL}, model: m, api_key_env: sk-123}}", "should be the name of an environment variable"),
        (f"{{{URL}, model: m, ca_file: none.pem}}", "remote.ca_file names no file: "),
        (f"{{{URL}, model: m, max_concurrent: 0}}", "should be greater than or equal to 1"),
        (f"{{{URL}, model: m, extra_body: {{messages: []}}}}", "cannot set messages, which is ours; remove it"),
        (f"{{{URL}, model: m, url: x}}", "remote.url is not a known key"),
        (f"{{{URL}, model: m}}\n    preload: true", "models[3].preload is for a model that runs here"),
        (f"{{{URL}, model: m}}\n    params: {{top_k: 1}}", "models[3].params is for a model that runs here"),
        (f"{{{URL}, model: m}}\n    hf_id: o/x", "models[3] has hf_id and remote; give one"),
    ],
)
def test_invalid_remote_settings_are_errors_with_the_fix(remote: str, problem: str):
    """Examples: an unknown backend, a wrong URL, a key in place of its variable, settings without effect."""
    problems = problems_of(f"{PAIR}  - name: far\n    remote: {remote}\n")
    assert any(problem in each for each in problems), problems


def test_captioners_alone_are_refused():
    """At least one text model is needed."""
    (problem,) = problems_of("models:\n" + REMOTE % "")
    assert problem.endswith("models holds captioners only (remote); add the text model that clients ask")


def test_the_key_comes_from_the_environment_and_is_shown_nowhere():
    """It is neither in `config show` nor in reprs; an unset variable gives no key; PERISCOPE_ names may be used."""
    config = load_text(FAR % ", api_key_env: PERISCOPE_VLM_KEY", env={"PERISCOPE_VLM_KEY": "sk-secret"})
    assert config.api_keys == {"PERISCOPE_VLM_KEY": "sk-secret"}
    assert "sk-secret" not in repr(config)
    assert all("sk-secret" not in str(row) for row in describe(config))
    assert load_text(FAR % ", api_key_env: VLM_KEY", env={"VLM_KEY": ""}).api_keys == {}


def test_flags_give_the_default_model_a_captioner_on_another_server():
    """It is named after its model and has the given timeout, whatever the file says; sources name the flags."""
    config = load_text(PAIR, flags={**VLLM, "vlm_timeout": "90s"})
    words, added = config.default_model, config.models[-1]
    assert words.capabilities.vision_proxy
    assert (words.capabilities.vision_proxy.model, words.capabilities.vision_proxy.timeout_s) == ("Qwen-VL", 90.0)
    assert added.remote
    assert (added.name, added.kind) == ("Qwen-VL", ModelKind.CAPTIONER)
    assert (added.remote.backend, added.remote.base_url) == ("vllm", "http://gpu:8000/v1")
    assert not added.preload
    assert config.sources["models[0].capabilities.vision_proxy.timeout_s"] == "flag --vlm-timeout"
    assert config.sources["models[3].remote.base_url"] == "flag --vlm-backend"


def test_flags_that_name_a_server_of_the_file_keep_its_settings():
    """Its API key and its limits stay."""
    flags = {"vlm_backend": "lmdeploy", "vlm_base_url": "http://gpu:23333/v1", "vlm_model": "q/VL"}
    config = load_text(PAIR + REMOTE % ", max_concurrent: 9", flags=flags)
    assert len(config.models) == 4
    assert config.default_model.capabilities.vision_proxy
    assert config.default_model.capabilities.vision_proxy.model == "far"


@pytest.mark.parametrize("backend", [None, "mlx"])
def test_the_local_backend_takes_a_name(backend: str | None):
    """`--vlm-model` alone means the same as `--vision-model`."""
    flags = {"vlm_backend": backend, "vlm_model": "eyes", "model": "other"}
    config = load_text(PAIR, flags=flags)
    assert config.default_model.name == "other"
    assert config.default_model.capabilities.vision_proxy
    assert config.default_model.capabilities.vision_proxy.model == "eyes"


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"vlm_backend": "sglang"}, "'sglang' is no backend; the backends are mlx, vllm, lmdeploy, triton, openai"),
        ({"vlm_backend": "vllm"}, "vllm needs --vlm-base-url, such as http://127.0.0.1:8000/v1"),
        (VLLM | {"vlm_model": None}, "vllm needs --vlm-model: an id that GET http://gpu:8000/v1/models lists"),
        (VLLM | {"vlm_base_url": "gpu"}, "flag --vlm-base-url: should be a URL such as"),
        ({"vlm_base_url": "http://gpu/v1"}, "add --vlm-backend: vllm, lmdeploy, triton, openai"),
        ({"vlm_backend": "mlx", "vlm_base_url": "http://gpu/v1"}, "is for captioners on other servers"),
        ({"vlm_backend": "mlx"}, "needs --vlm-model: the captioner's name, hub id or directory"),
        ({"vlm_backend": "vllm", "vision_model": "eyes"}, "is a model that runs here, not one of vllm"),
        ({"vlm_model": "eyes", "vision_model": "eyes"}, "names a captioner, and so does --vlm-model"),
        ({"vlm_timeout": "0"}, "flag --vlm-timeout: should be greater than or equal to 0.1"),
        ({"vlm_timeout": "soon"}, "should be a number of seconds"),
        ({"vlm_timeout": "9", "model": "one"}, "flag --vlm-timeout: one has no captioner"),
    ],
)
def test_contradicting_flags_are_an_error_with_the_fix(flags: dict[str, object], problem: str):
    """The error is one sentence that names the flag."""
    (told,) = problems_of(ONE if flags.get("model") == "one" else PAIR, flags=flags)
    assert problem in told
