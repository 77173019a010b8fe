"""InferenceEngine as a library, on a real (tiny) model through real MLX."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from periscope.core import (
    FinishReason,
    GenerationParams,
    Message,
    OutputSpec,
    Role,
    TextPart,
    Tool,
    ToolCallStart,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.engine import EngineConfig, InferenceEngine
from periscope.engine.engine import NUM_PREPARING_THREADS
from periscope.errors import ContextLengthExceeded, EngineClosed, InvalidRequest, ModelLoadError
from periscope.parsing.registry import parser_for
from tests.tiny_models import write_text_model

T = TypeVar("T")
GREEDY = GenerationParams(temperature=0.0, max_tokens=24)
SEEDED = GenerationParams(
    temperature=1.0,
    seed=7,
    top_p=0.9,
    top_k=50,
    min_p=0.01,
    frequency_penalty=0.5,
    presence_penalty=0.2,
    repetition_penalty=1.1,
    max_tokens=24,
)


def with_engine(model: Path, use: Callable[[InferenceEngine], Awaitable[T]], config: EngineConfig | None = None) -> T:
    async def run() -> T:
        async with await InferenceEngine.load(str(model), config) as engine:
            return await use(engine)

    return asyncio.run(run())


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_sixteen_at_once_get_what_each_gets_alone(tiny_text_model: Path, params: GenerationParams) -> None:
    """A request's tokens do not depend on the other rows of its batch."""

    async def use(engine: InferenceEngine) -> None:
        prompts = [f"prompt {'x' * i} number {i}" for i in range(16)]
        together = await asyncio.gather(*(engine.generate(prompt, params) for prompt in prompts))
        alone = [await engine.generate(prompt, params) for prompt in prompts]
        assert [out.tokens for out in together] == [out.tokens for out in alone]

    with_engine(tiny_text_model, use)


def test_a_late_greedy_request_is_not_given_the_batch_s_sampler(tiny_text_model: Path) -> None:
    """Temperature 0 stays temperature 0 beside rows of temperature 1."""

    async def use(engine: InferenceEngine) -> None:
        alone = await engine.generate("quiet", GREEDY)
        hot = GenerationParams(temperature=2.0, max_tokens=200)
        async with engine.generate_stream("loud", hot) as loud:
            await anext(loud)
            beside = await engine.generate("quiet", GREEDY)
        assert beside.tokens == alone.tokens

    with_engine(tiny_text_model, use)


def test_different_seeds_differ_and_equal_seeds_agree(tiny_text_model: Path) -> None:
    """A seed decides the tokens; without one, two runs differ."""

    async def use(engine: InferenceEngine) -> None:
        def params(seed: int | None) -> GenerationParams:
            return GenerationParams(temperature=1.0, seed=seed, max_tokens=24)

        one, again, other, free, free_again = [
            (await engine.generate("same", params(seed))).tokens for seed in (1, 1, 2, None, None)
        ]
        assert one == again
        assert len({one, other, free, free_again}) == 4

    with_engine(tiny_text_model, use)


def test_max_tokens_defaults_to_what_the_context_leaves(tiny_text_model: Path) -> None:
    """Without max_tokens a completion runs to the end of the context."""

    async def use(engine: InferenceEngine) -> None:
        prompt = tuple(range(20))
        out = await engine.generate(prompt, GenerationParams(temperature=1.0, seed=3))
        full = len(prompt) + out.stats.num_completion_tokens == 64
        assert full or out.finish_reason is FinishReason.STOP
        assert out.stats.num_prompt_tokens == 20

    with_engine(tiny_text_model, use, EngineConfig(context_length=64))


def test_a_prompt_over_the_context_is_refused_with_both_numbers(tiny_text_model: Path) -> None:
    """The error has the prompt's length and the limit, and the model is not called."""

    async def use(engine: InferenceEngine) -> None:
        with pytest.raises(ContextLengthExceeded) as caught:
            await engine.generate("x" * 100)
        assert (caught.value.num_prompt_tokens, caught.value.context_length) == (100, 64)
        assert "100" in caught.value.message
        assert "64" in caught.value.message

    with_engine(tiny_text_model, use, EngineConfig(context_length=64))


@pytest.mark.parametrize("prompt", ["", (), (999999,), (-1,)])
def test_unusable_prompts_are_the_callers_error(tiny_text_model: Path, prompt: str | tuple[int, ...]) -> None:
    """Empty prompts and ids outside of the vocabulary are refused before the model is called."""

    async def use(engine: InferenceEngine) -> None:
        with pytest.raises(InvalidRequest):
            await engine.generate(prompt, GREEDY)
        assert (await engine.generate("fine", GREEDY)).tokens

    with_engine(tiny_text_model, use)


def test_stop_strings_end_the_text_before_them(tiny_text_model: Path) -> None:
    """The stop string is not in the text, streamed or whole, and the reason is stop."""

    async def use(engine: InferenceEngine) -> None:
        free = (await engine.generate("abc", GREEDY)).text
        stop = free[4:7]
        params = GenerationParams(temperature=0.0, max_tokens=24, stop=(stop,))
        out = await engine.generate("abc", params)
        streamed = [chunk async for chunk in engine.generate_stream("abc", params)]
        assert out.text == free[: free.index(stop)] == "".join(chunk.text for chunk in streamed)
        assert out.finish_reason is FinishReason.STOP
        assert engine.num_rows == 0

    with_engine(tiny_text_model, use)


def test_logprobs_come_one_per_token_when_asked_for(tiny_text_model: Path) -> None:
    """Each token of the completion has its log-probability, and greedy ones are the likeliest."""

    async def use(engine: InferenceEngine) -> None:
        out = await engine.generate("abc", GenerationParams(temperature=0.0, max_tokens=8, logprobs=True))
        assert len(out.logprobs) == len(out.tokens) == 8
        assert all(entry.logprob is not None and entry.logprob <= 0 for entry in out.logprobs)
        assert tuple(entry.token.token_id for entry in out.logprobs) == out.tokens
        assert not (await engine.generate("abc", GREEDY)).logprobs

    with_engine(tiny_text_model, use)


def test_leaving_a_stream_frees_its_row(tiny_text_model: Path) -> None:
    """A cancelled generation stops within two steps of the others, and the others go on."""

    async def use(engine: InferenceEngine) -> None:
        long = GenerationParams(temperature=0.0, max_tokens=1500)
        async with engine.generate_stream("neighbour", long) as neighbour:
            await anext(neighbour)
            async with engine.generate_stream("leaver", long) as leaver:
                await anext(leaver)
                assert engine.num_rows == 2
            seen = 0
            while engine.num_rows == 2:
                await anext(neighbour)
                seen += 1
            # Chunks queued before the cancel are read too; the worker itself needs at most two more steps.
            assert seen < 200
            assert await anext(neighbour)

    with_engine(tiny_text_model, use)


def test_the_memory_of_requests_is_reported_while_they_run(tiny_text_model: Path) -> None:
    """The caches of a long answer count as working memory until it ends."""

    async def use(engine: InferenceEngine) -> None:
        assert engine.memory.working_bytes == 0
        seen = 0
        async with engine.generate_stream("long", GenerationParams(logit_bias=((257, -100.0),), seed=1)) as stream:
            async for _ in stream:
                seen = max(seen, engine.memory.working_bytes)
                if seen:
                    break
        assert seen > 0
        async with asyncio.timeout(30):
            while engine.memory.working_bytes:
                await asyncio.sleep(0)

    with_engine(tiny_text_model, use)


def test_unconstrained_output_does_not_wait_for_schemas(tiny_text_model: Path) -> None:
    """Its constraint needs no compiling, so it is there at once, however busy the executor is."""

    async def run() -> None:
        async with await InferenceEngine.load(str(tiny_text_model)) as engine:
            prompt = await engine.render("Hello")
            with pytest.raises(StopIteration) as ended:
                engine.constraint_for(prompt, OutputSpec()).send(None)
            assert ended.value.value.grammar is None

    asyncio.run(run())


def test_cancelling_while_tokenising_leaves_nothing_behind(tiny_text_model: Path) -> None:
    """A generation can be cancelled at its first await."""

    async def use(engine: InferenceEngine) -> None:
        task = asyncio.create_task(engine.generate("x" * 1000, GREEDY))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await engine.generate("fine", GREEDY)).tokens
        assert engine.num_rows == 0

    with_engine(tiny_text_model, use)


def test_a_stream_can_be_cancelled_while_its_prompt_is_tokenised(tiny_text_model: Path) -> None:
    """The stream ends at once for its reader, and the prompt never reaches the batch."""

    async def use(engine: InferenceEngine) -> None:
        go_on = threading.Event()
        busy = [engine._executor.submit(go_on.wait) for _ in range(NUM_PREPARING_THREADS)]
        stream = engine.generate_stream("some prompt", GREEDY)
        first = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0)
        stream.cancel()
        assert await asyncio.wait_for(first, 30) is None
        go_on.set()
        assert all(future.result(30) for future in busy)
        after = await engine.generate("another prompt", GREEDY)
        assert after.tokens
        assert engine.num_rows == 0

    with_engine(tiny_text_model, use)


def test_a_load_that_fails_at_its_end_leaves_no_thread_and_no_weights(tmp_path: Path) -> None:
    """Files that fail only after the worker has loaded give a load error, and by then the worker has ended."""
    folder = write_text_model(tmp_path / "late")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ["257"]}))
    with pytest.raises(ModelLoadError, match="late cannot be used"):
        asyncio.run(InferenceEngine.load(str(folder)))
    assert not [thread for thread in threading.enumerate() if thread.name == "periscope-late"]


def test_closing_fails_running_and_refuses_later_requests(tiny_text_model: Path) -> None:
    """No request waits for a closed engine."""

    async def use(engine: InferenceEngine) -> None:
        running = asyncio.create_task(engine.generate("x", GenerationParams(temperature=1.5, max_tokens=1900)))
        while engine.num_rows == 0:
            await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(EngineClosed):
            await running
        with pytest.raises(EngineClosed):
            await engine.generate("y", GREEDY)
        await engine.close()

    with_engine(tiny_text_model, use)


def test_messages_go_through_the_chat_template(tiny_text_model: Path) -> None:
    """The model's own template renders a chat and opens the assistant's turn."""

    async def use(engine: InferenceEngine) -> None:
        rendered = await engine.render([Message(Role.USER, (TextPart("hi"),))])
        text = engine.detokenize(rendered.token_ids)
        assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        assert engine.tokenize("hi") == engine.tokenize("hi")

    with_engine(tiny_text_model, use)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("/nowhere/at/all", "no folder"),
        ("nobody/never-downloaded", "periscope pull nobody/never-downloaded"),
        ("not a model name!", "neither a folder nor a hub id"),
    ],
)
def test_a_model_that_is_not_on_disk_is_an_error_with_the_fix(model: str, words: str) -> None:
    """Loading never downloads; the error says what to do."""
    with pytest.raises(ModelLoadError, match=words):
        asyncio.run(InferenceEngine.load(model))


def test_a_broken_model_folder_is_a_load_error(tmp_path: Path) -> None:
    """A folder without weights fails with ModelLoadError, not with an exception of mlx-lm."""
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        asyncio.run(InferenceEngine.load(str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "qwen3"}')
    with pytest.raises(ModelLoadError):
        asyncio.run(InferenceEngine.load(str(tmp_path)))


def test_tools_that_the_template_lacks_can_be_called(tiny_text_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The prompt describes the tools, a forced call is parsed, and the log says what was done."""
    digit = {"type": "integer", "minimum": 0, "maximum": 9}
    tool = Tool(
        "add", "Adds.", {"type": "object", "properties": {"a": digit}, "required": ["a"], "additionalProperties": False}
    )
    chat, choice = [Message(Role.USER, (TextPart("Hi"),))], ToolChoice(ToolChoiceMode.REQUIRED, is_parallel=False)

    async def run() -> None:
        async with await InferenceEngine.load(str(tiny_text_model)) as engine:
            assert engine.model_info.has_tools
            plain, told = await engine.render(chat), await engine.render(chat, [tool])
            assert "Adds." in engine.detokenize(told.token_ids)
            assert len(told.token_ids) > len(plain.token_ids)
            params = GenerationParams(temperature=1, seed=3, max_tokens=200)
            spec = OutputSpec((tool,), choice)
            output = await engine.generate(chat, params, spec)
            parser = parser_for(spec.format_for(engine.output_format), spec)
            deltas = parser.feed(output.text) + parser.finish()
            assert [delta.name for delta in deltas if isinstance(delta, ToolCallStart)] == ["add"]

    with caplog.at_level("INFO"):
        asyncio.run(run())
    assert "its chat template knows no tools" in caplog.text


@pytest.mark.parametrize("ending", ["await engine.close()", "pass"], ids=["closed", "forgotten"])
def test_the_process_ends_cleanly_after_use(tiny_text_model: Path, ending: str) -> None:
    """The interpreter does not abort at exit, even if the program did not close the engine."""
    program = textwrap.dedent(f"""
        import asyncio
        from periscope import GenerationParams, InferenceEngine

        async def main():
            engine = await InferenceEngine.load({str(tiny_text_model)!r})
            never_ends = ((257, -100.0),)
            params = GenerationParams(max_tokens=4, temperature=0.9, logit_bias=never_ends)
            out = await engine.generate("hello", params)
            print(len(out.tokens))
            {ending}

        asyncio.run(main())
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)  # noqa: S603
    assert (done.returncode, done.stdout.strip()) == (0, "4"), done.stderr
