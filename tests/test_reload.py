"""models.yaml read again by a running Periscope, over the embedded pair."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from periscope.config import Config
from periscope.core import ConfigChanges, GenerationParams, GenerationRequest, Message, Role, TextPart, new_id
from periscope.errors import ConfigError, ModelNotFound
from periscope.runtime import Runtime
from periscope.serving.generation import LocalGenerator
from periscope.status import ConfigDelta, ConfigRefusal, ServerStatus
from tests.config.files import load_text

PAIR = """\
models:
- name: words
  local_path: embedded:text
  preload: true
  params: {temperature: 0}
  capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}
- name: eyes
  local_path: embedded:captioner
- name: far
  remote: {base_url: 'http://127.0.0.1:1/v1', model: q/VL}
"""


async def answered(runtime: Runtime, model: str) -> None:
    """One short answer of this model."""
    message = Message(Role.USER, (TextPart("Hello!"),))
    request = GenerationRequest(new_id("t-"), model, (message,), GenerationParams(max_tokens=2))
    async with aclosing(runtime.service.stream(request)) as events:
        async for _ in events:
            pass


def test_a_changed_file_is_taken_and_a_broken_one_is_not(tmp_path: Path) -> None:
    """What stays is not touched, down to engine and captioner; what cannot be used changes nothing and is told."""
    texts = [PAIR]

    def read() -> Config:
        return load_text(texts[-1], folder=tmp_path)

    async def reloaded(runtime: Runtime, text: str) -> ConfigChanges:
        texts.append(text)
        return await runtime.control.reload()

    async def run() -> None:
        async with Runtime(read(), read_config=read) as runtime, aclosing(runtime.control.events()) as events:
            assert isinstance(await anext(events), ServerStatus)
            engine = runtime._pool.loaded("words", LocalGenerator)
            captioners = runtime._roster.captioners
            assert engine is not None

            wider = PAIR.replace("temperature: 0", "temperature: 0, max_tokens: 9") + "- {name: more, hf_id: o/more}\n"
            wider = "server: {port: 8000}\nidle_unload_secs: 60\n" + wider
            changes = await reloaded(runtime, wider)
            assert changes == ConfigChanges(
                added=("more",), updated=("words", "eyes"), needs_restart=("server.port",)
            ), changes
            assert runtime._pool.loaded("words", LocalGenerator) is engine
            assert all(runtime._roster.captioners[name] is each for name, each in captioners.items())
            assert runtime.config.models[0].params.max_tokens == 9
            assert runtime.config.server.port == 7374
            assert runtime._pool.status("words").ttl_s == 60
            told = [await anext(events) for _ in range(2)]
            assert told[0] == ConfigDelta(changes)
            assert isinstance(told[1], ServerStatus)
            assert [row.name for row in told[1].models] == ["words", "eyes", "more", "far"]

            with pytest.raises(ConfigError, match="local_pth"):
                await reloaded(runtime, PAIR.replace("local_path", "local_pth"))
            while not isinstance(event := await anext(events), ConfigRefusal):
                pass
            assert "models.yaml:3" in event.problems[1]
            assert "the running configuration stays" in runtime.service.health().problems[0]
            await answered(runtime, "words")

            other = PAIR.replace("temperature: 0", "context_length: 512").replace("q/VL", "q/Other")
            changes = await reloaded(runtime, other.replace("name: eyes", "name: glasses").replace("eyes", "glasses"))
            assert (changes.reloaded, changes.added, changes.removed) == (
                ("words", "far"),
                ("glasses",),
                ("eyes", "more"),
            )
            assert "stays" not in " ".join(runtime.service.health().problems)
            with pytest.raises(ModelNotFound):
                await answered(runtime, "more")
            await answered(runtime, "words")
            assert runtime.service.models()[0].context_length == 512

    asyncio.run(run())


def test_a_captioner_that_is_gone_is_no_problem_any_more(tmp_path: Path) -> None:
    """What was wrong with it goes with it, and a request from before does not bring it back."""
    texts = [PAIR]

    def read() -> Config:
        return load_text(texts[-1], folder=tmp_path)

    async def run() -> None:
        runtime, problem = Runtime(read(), read_config=read), "Captioner eyes described none of the last 1 new images."
        try:
            runtime._note_captions("eyes", problem)
            assert problem in runtime.service.health().problems
            texts.append("models: [{name: words, local_path: embedded:text}]\n")
            await runtime.control.reload()
            runtime._note_captions("eyes", problem)
            assert runtime.service.health().problems == ()
        finally:
            await runtime.stop()

    asyncio.run(run())


def test_a_selected_model_stays_the_default_while_it_is_there() -> None:
    """The file's order is the start; a selection is newer."""
    both = "models: [{name: a, hf_id: o/a}, {name: b, hf_id: o/b}]\n"
    texts = [both]

    async def run() -> None:
        runtime = Runtime(load_text(both), read_config=lambda: load_text(texts[-1]))
        runtime._names.select(runtime._names.resolve("b"))
        for text, default in (
            ("models: [{name: c, hf_id: o/c}, {name: b, hf_id: o/b}]\n", "b"),
            ("models: [{name: c, hf_id: o/c}, {name: a, hf_id: o/a}]\n", "c"),
            (both, "a"),
        ):
            texts.append(text)
            await runtime.reload()
            assert runtime.service.models()[0].name == default
        await runtime.stop()

    asyncio.run(run())
