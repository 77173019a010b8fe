"""What the composition root hands on."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.config import Config
from periscope.core import DownloadCommand, ModelKind
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig
from periscope.errors import DownloadConflict, InvalidRequest, ModelNotFound
from periscope.events import ModelStateChanged
from periscope.host import HostReading, MemoryPressure, ThermalState
from periscope.hub.jobs import JobFile, SavedJob
from periscope.runtime import Runtime
from periscope.status import ModelStateDelta
from periscope.wiring import downloads_of, engine_config
from tests.config.files import ONE, PAIR, SEEDS, load_text


def first(config: Config) -> EngineConfig:
    return engine_config(config.models[0], config)


def test_settings_that_nobody_made_are_the_engines_own() -> None:
    """The file's defaults are those of the engine as a library, which has no name and writes no files."""
    assert replace(first(load_text(ONE)), states_on_disk=None) == EngineConfig(name="one")


def test_clients_may_name_a_model_by_its_hub_id() -> None:
    """The list tells it as an alias, requests and commands find the model by it, a captioner too."""

    async def run() -> None:
        runtime = Runtime(load_text(SEEDS))
        card = runtime.service.models()[0]
        assert (card.name, card.aliases) == ("ministral-3-3b", ("mistralai/Ministral-3-3B-Reasoning-2512",))
        assert runtime.control.pin(card.aliases[0], pinned=True).name == card.name
        assert runtime.control.pin("Qwen/Qwen2-VL-7B-Instruct", pinned=True).name == "Qwen2-VL-7B-Instruct"
        await runtime.stop()

    asyncio.run(run())


def test_a_captioner_is_known_by_its_weights() -> None:
    """Captions outlive the process: the same weights have the same name in the next one, unknown ones never."""

    def revisions() -> dict[str, str]:
        runtime = Runtime(
            load_text(
                "models:\n- name: one\n  local_path: embedded:text\n  capabilities:"
                " {vision_mode: proxy, vision_proxy: {model: eyes}}\n"
                "- name: eyes\n  local_path: embedded:captioner\n"
                "- name: two\n  local_path: embedded:text\n  capabilities:"
                " {vision_mode: proxy, vision_proxy: {hf_id: tiny/not-here}}\n"
            )
        )
        return {name: captioner.id.revision for name, captioner in runtime._roster.captioners.items()}

    first, second = revisions(), revisions()
    assert first["eyes"] == second["eyes"]
    assert first["not-here"] != second["not-here"]


def test_every_setting_of_a_model_reaches_its_engine() -> None:
    """What the file says of how a model is run is what the engine is told; MB are powers of 1000."""
    config = load_text(
        "memory: {check_requests: false, budget: 8GiB}\nprompt_cache: {persist: false}\n"
        "models:\n- name: one\n  hf_id: o/one\n  revision: v2\n"
        "  params: {dtype: bf16, max_num_seqs: 3, prefill_chunk_size: 64, context_length: 100, mem: 512,"
        " prompt_cache: 1GiB, kv_bits: 8, kv_group_size: 32, draft_model: x/small, num_draft_tokens: 2,"
        " chat_template_kwargs: {a: 1}}\n"
        "- {name: two, hf_id: o/two, params: {prompt_lookup: true}}\n"
    )
    assert engine_config(config.models[1], config).prompt_lookup
    assert first(config) == EngineConfig(
        revision="v2",
        dtype="bfloat16",
        max_num_seqs=3,
        prefill_chunk_size=64,
        context_length=100,
        chat_template_kwargs={"a": 1},
        kv_limit_bytes=512_000_000,
        prompt_cache_bytes=1024**3,
        kv_bits=8,
        kv_group_size=32,
        checks_memory=False,
        draft_model="x/small",
        num_draft_tokens=2,
        name="one",
    )


@pytest.mark.parametrize(
    ("draft", "source", "revision"),
    [
        ("small", "o/small", "v1"),
        ("folder", "/models/folder", None),
        ("tiny", str(EMBEDDED_MODELS["embedded:text"]), None),
        ("embedded:text", str(EMBEDDED_MODELS["embedded:text"]), None),
        ("/models/other", "/models/other", None),
    ],
)
def test_a_draft_model_is_told_as_the_engine_takes_it(draft: str, source: str, revision: str | None) -> None:
    """An entry's name becomes its folder, or its repository and revision."""
    config = load_text(
        f"models:\n- {{name: big, hf_id: o/big, params: {{draft_model: '{draft}'}}}}\n"
        "- {name: small, hf_id: o/small, revision: v1}\n- {name: folder, local_path: /models/folder}\n"
        "- {name: tiny, local_path: 'embedded:text'}\n"
    )
    assert (first(config).draft_model, first(config).draft_revision) == (source, revision)


def test_captions_get_the_share_that_is_configured() -> None:
    """`captioner_share` rules the device that all models share."""
    runtime = Runtime(load_text("captioner_share: 0.4\n" + ONE))
    assert runtime._assembly._turn.background_share == 0.4


REMOTE = """\
models:
- {name: words, local_path: 'embedded:text', capabilities: {vision_mode: proxy, vision_proxy: {model: far}}}
- name: far
  remote: {backend: triton, base_url: 'http://127.0.0.1:1/v1', model: q/VL, api_key_env: VLM_KEY}
"""


def test_a_captioner_on_another_server_is_named_checked_and_no_load(caplog: pytest.LogCaptureFixture) -> None:
    """The start names backend and model, waits for its check, and says what is wrong; text is ready all the same."""
    caplog.set_level("INFO")

    async def run() -> None:
        async with Runtime(load_text(REMOTE, env={"VLM_KEY": "sk-secret"})) as runtime:
            health = runtime.service.health()
            assert health.models == {"words": "unloaded", "far": "failed"}
            assert health.status == "degraded"
            assert health.problems[0].startswith("far: No server answers at http://127.0.0.1:1/v1 (connection refused)")
            far = runtime.control.status().models[-1]
            assert (far.name, far.kind, far.held_bytes) == ("far", ModelKind.CAPTIONER, 0)
            with pytest.raises(InvalidRequest, match="far is on another server"):
                await runtime.control.load("far", wait=True)
            with pytest.raises(InvalidRequest, match="far is on another server"):
                await runtime.control.select("far", wait=False)
            async with aclosing(runtime.control.events()) as events:
                await anext(events)
                runtime.bus.publish(ModelStateChanged("far", "ready", "failed", "gone"))
                delta = await anext(events)
                assert isinstance(delta, ModelStateDelta)
                assert (delta.model.name, delta.reason) == ("far", "gone")

    asyncio.run(run())
    assert "captioner: triton/q/VL" in caplog.text
    assert "sk-secret" not in caplog.text


def test_a_local_captioner_is_named_too(caplog: pytest.LogCaptureFixture) -> None:
    """As `mlx`, once, however many models share it; one that nobody uses is not named."""
    caplog.set_level("INFO")

    async def run() -> None:
        async with Runtime(load_text(PAIR.replace("preload: true", "preload: false"))):
            pass

    asyncio.run(run())
    named = [each.message for each in caplog.records if each.message.startswith("captioner: ")]
    assert named == ["captioner: mlx/eyes"]


def test_the_log_calls_models_by_their_names(caplog: pytest.LogCaptureFixture) -> None:
    """From their loads to their ends; a folder's name, or a commit of the hub's cache, tells nobody which one it is."""
    caplog.set_level("INFO")

    async def run() -> None:
        async with Runtime(load_text(PAIR)):
            pass

    asyncio.run(run())
    told = [each.message for each in caplog.records if "was unloaded and gave back" in each.message]
    assert sorted(line.split()[0] for line in told) == ["periscope-eyes", "periscope-words"]


FETCHED = """\
models:
- {name: words, hf_id: o/words, revision: v1, params: {draft_model: o/draft},
   capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}}
- {name: eyes, hf_id: o/eyes}
- {name: tiny, local_path: 'embedded:text'}
"""


@pytest.mark.parametrize(
    ("asked", "alone", "sources"),
    [
        ("words", False, [("o/words", "v1"), ("o/eyes", None), ("o/draft", None)]),
        ("words", True, [("o/words", "v1")]),
        ("o/words", False, [("o/words", "v1")]),
        ("o/other", False, [("o/other", None)]),
    ],
)
def test_a_download_is_of_what_pull_would_fetch(asked: str, alone: bool, sources: list[tuple[str, str | None]]) -> None:
    """An entry with what works for it, a repository alone."""
    assert downloads_of(load_text(FETCHED), asked, alone=alone) == sources


def test_what_does_not_come_from_the_hub_is_not_downloaded() -> None:
    """The reason is told, and no network is asked."""
    with pytest.raises(InvalidRequest, match="tiny is part of Periscope: there is nothing to fetch"):
        downloads_of(load_text(FETCHED), "tiny", alone=False)
    with pytest.raises(ModelNotFound):
        downloads_of(load_text(FETCHED), "nonsense", alone=False)


class HotAndFull:
    """A machine in trouble."""

    def read(self) -> HostReading:
        return HostReading(MemoryPressure.CRITICAL, ThermalState.HEAVY, 123)


def test_the_machine_and_the_downloads_of_before_are_in_the_status(tmp_path: Path) -> None:
    """What the sensors read, what is done about it, and what an earlier server left unfinished."""
    file = tmp_path / "downloads.json"
    JobFile(file).write([SavedJob("dl-1", "o/half", None, 1.5, is_paused=True)])

    async def run() -> None:
        runtime = Runtime(load_text(ONE), sensors=HotAndFull(), downloads_file=file)
        await runtime.start()
        status = runtime.control.status()
        while len(status.problems) < 2:
            await asyncio.sleep(0)
            status = runtime.control.status()
        assert (status.host.pressure, status.host.thermal, status.host.footprint_bytes) == ("critical", "heavy", 123)
        assert "critical memory pressure" in status.problems[0]
        assert "hot" in status.problems[1]
        assert [(each.id, each.model, each.state) for each in status.downloads] == [("dl-1", "o/half", "paused")]
        with pytest.raises(DownloadConflict):
            runtime.control.steer_download("dl-1", DownloadCommand.PAUSE)
        assert runtime.control.steer_download("dl-1", DownloadCommand.CANCEL).state == "cancelled"
        await runtime.stop()

    asyncio.run(run())
    assert JobFile(file).read() == []
