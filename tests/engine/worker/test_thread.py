"""ModelWorker with a scripted model: failures inside the thread."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable

import pytest

from periscope.core import FinishReason
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.worker.contracts import Sampled
from periscope.engine.worker.host import HostedEngine, start_worker
from periscope.errors import EngineClosed, GenerationFailed, ModelLoadError
from tests.engine.worker.scripted import (
    BAD_PROMPT,
    GOOD_PROMPT,
    PARAMS,
    Script,
    ScriptedModel,
    explode,
    say,
    text_of,
    with_worker,
)


def test_a_request_that_cannot_be_admitted_fails_alone() -> None:
    """An exception while admitting one request is that request's failure; the next one is served."""

    async def use(host: HostedEngine) -> None:
        with pytest.raises(GenerationFailed, match="ZeroDivisionError"):
            await text_of(host.submit(BAD_PROMPT, PARAMS))
        assert await text_of(host.submit(GOOD_PROMPT, PARAMS)) == "bc"

    with_worker(Script([say(1), say(2, FinishReason.LENGTH)]), use)


def test_an_idle_worker_keeps_no_share_of_the_device() -> None:
    """After its last row, captions get the whole device at once, not the share that they have beside text."""
    now = [0.0]
    turn = DeviceTurn(0.25, clock=lambda: now[0])

    def caption_twice() -> None:
        for _ in range(2):  # beside text, the first second would cost a wait of three, which this clock never shows
            with turn.acquire():
                now[0] += 1.0

    async def use(host: HostedEngine) -> None:
        for _ in range(3):
            assert await text_of(host.submit(GOOD_PROMPT, PARAMS)) == "b"
            async with asyncio.timeout(60):
                while host.num_rows:
                    await asyncio.sleep(0)
                captions = threading.Thread(target=caption_twice, daemon=True)
                captions.start()
                while captions.is_alive():
                    await asyncio.sleep(0)

    with_worker(Script([say(1, FinishReason.STOP)]), use, turn)


def test_a_failing_step_fails_its_requests_and_the_worker_goes_on() -> None:
    """After an exception in the model the batch is rebuilt, and later requests are served."""
    script = Script([explode, say(1, FinishReason.LENGTH)])

    async def use(host: HostedEngine) -> None:
        with pytest.raises(GenerationFailed, match="MemoryError"):
            await text_of(host.submit(GOOD_PROMPT, PARAMS))
        assert await text_of(host.submit(GOOD_PROMPT, PARAMS)) == "b"
        assert script.num_batches == 2

    with_worker(script, use)


def test_a_worker_whose_every_step_fails_ends() -> None:
    """A worker whose model can no longer step ends, so that the model is not reported as alive."""

    async def use(host: HostedEngine) -> None:
        for _ in range(3):
            with pytest.raises(GenerationFailed):
                await text_of(host.submit(GOOD_PROMPT, PARAMS))
        await host.ended()
        assert not host.is_alive
        with pytest.raises(EngineClosed):
            host.submit(GOOD_PROMPT, PARAMS)

    with_worker(Script([explode], is_broken=True), use)


def test_a_worker_that_ends_by_a_fault_of_its_own_leaves_no_reader_waiting() -> None:
    """Rows that the last step has ended have their answer, others their error, and no request is taken any more."""

    def end_the_first_of_two(rows: list[int]) -> list[Sampled]:
        if len(rows) < 2:
            return []
        script.miscounts = True
        return [Sampled(rows[0], 1, finish_reason=FinishReason.STOP), Sampled(rows[1], 2)]

    script = Script([end_the_first_of_two])

    async def use(host: HostedEngine) -> None:
        streams = [host.submit(GOOD_PROMPT, PARAMS) for _ in range(2)]
        assert await text_of(streams[0]) == "b"
        with pytest.raises(EngineClosed):
            await text_of(streams[1])
        await host.ended()

    with_worker(script, use)


def test_a_request_that_fails_every_time_it_is_sent_does_not_end_a_healthy_worker() -> None:
    """A request that fails again and again does not end the worker while a forward pass without it works."""
    script = Script([explode])

    async def use(host: HostedEngine) -> None:
        for _ in range(10):
            with pytest.raises(GenerationFailed, match="MemoryError"):
                await text_of(host.submit(GOOD_PROMPT, PARAMS))
        script.steps[:] = [say(1, FinishReason.LENGTH)]
        assert await text_of(host.submit(GOOD_PROMPT, PARAMS)) == "b"

    with_worker(script, use)


def test_an_intended_error_reaches_the_client_with_its_message() -> None:
    """A `PeriscopeError` from a grammar or logits processor reaches the client with its own message."""
    told = GenerationFailed("The output's grammar failed: too many states.")

    async def use(host: HostedEngine) -> None:
        with pytest.raises(GenerationFailed, match="too many states"):
            await text_of(host.submit(GOOD_PROMPT, PARAMS))

    with_worker(Script([fail(told, is_model_failure=False)]), use)


def fail(first: Exception, *, is_model_failure: bool) -> Callable[[list[int]], list[Sampled]]:
    """The oldest row fails and is dropped by the batch; the others get a token."""

    def step(rows: list[int]) -> list[Sampled]:
        failed = rows.pop(0)
        return [
            Sampled(failed, 0, error=first, is_model_failure=is_model_failure),
            *(Sampled(row, 1) for row in rows),
        ]

    return step


def test_a_fault_in_one_row_s_processor_is_that_row_s_failure() -> None:
    """A raising logits processor ends its own request; the neighbour's tokens keep coming."""
    script = Script([fail(ValueError("bad processor"), is_model_failure=False), say(1)])

    async def use(host: HostedEngine) -> None:
        faulty, neighbour = host.submit(GOOD_PROMPT, PARAMS), host.submit(GOOD_PROMPT, PARAMS)
        with pytest.raises(GenerationFailed, match="ValueError"):
            await text_of(faulty)
        assert (await anext(neighbour)).text == "b"
        neighbour.cancel()

    with_worker(script, use)


def test_failures_of_single_rows_never_end_the_worker() -> None:
    """Requests that fail one after another, each in its own row, do not end the worker."""
    script = Script([fail(ValueError("poison"), is_model_failure=False)])

    async def use(host: HostedEngine) -> None:
        for _ in range(10):
            with pytest.raises(GenerationFailed):
                await text_of(host.submit(GOOD_PROMPT, PARAMS))
        assert host.is_alive

    with_worker(script, use)


def test_a_model_that_fails_again_and_again_ends_its_worker() -> None:
    """Failures of the model itself are counted, even if the batch survives them."""
    script = Script([fail(MemoryError("no memory"), is_model_failure=True)], is_broken=True)

    async def use(host: HostedEngine) -> None:
        for _ in range(3):
            with pytest.raises(GenerationFailed):
                await text_of(host.submit(GOOD_PROMPT, PARAMS))
        await host.ended()
        assert not host.is_alive

    with_worker(script, use)


def test_an_undecodable_token_is_its_row_s_failure() -> None:
    """A detokenizer that raises fails one request, not the thread."""

    async def use(host: HostedEngine) -> None:
        with pytest.raises(GenerationFailed):
            await text_of(host.submit(GOOD_PROMPT, PARAMS))
        assert await text_of(host.submit(GOOD_PROMPT, PARAMS)) == "b"

    with_worker(Script([say(-1), say(1, FinishReason.LENGTH)]), use)


def test_an_abandoned_row_is_removed_before_the_next_step() -> None:
    """A row whose reader has cancelled is removed before the next step."""
    script = Script([say(1)])

    async def use(host: HostedEngine) -> None:
        cancelled, stays = host.submit(GOOD_PROMPT, PARAMS), host.submit(GOOD_PROMPT, PARAMS)
        await anext(cancelled)
        cancelled.cancel()
        while not script.removed:
            await anext(stays)
        assert script.removed[0] == 0  # a reader that does not keep up with so fast a model may follow
        stays.cancel()

    with_worker(script, use)


def test_a_batch_that_must_clean_up_gets_steps_without_any_row() -> None:
    """It gets them with the device turn, and then the worker idles."""
    done = threading.Event()
    script = Script([say(1)])

    def tidy(rows: list[int]) -> list[Sampled]:
        script.num_owed_steps -= not rows
        if script.num_owed_steps == 0:
            done.set()
        return say(1)(rows)

    async def use(host: HostedEngine) -> None:
        cancelled = host.submit(GOOD_PROMPT, PARAMS)
        await anext(cancelled)
        script.num_owed_steps = 3
        script.steps[:] = [tidy]
        cancelled.cancel()
        assert await asyncio.to_thread(done.wait, 30)
        assert script.removed == [0]

    with_worker(script, use)


def test_a_failed_load_is_reported_in_one_sentence() -> None:
    """Whatever the loader raises becomes a ModelLoadError with the exception's type and message."""

    def load() -> ScriptedModel:
        raise OSError("disk on fire")

    with pytest.raises(ModelLoadError, match="OSError: disk on fire"):
        asyncio.run(start_worker("broken", load, DeviceTurn()))


def test_a_load_that_ends_its_thread_is_a_failed_load() -> None:
    """A library that calls `sys.exit` leaves nobody waiting for the model."""
    with pytest.raises(ModelLoadError, match="SystemExit: no such option"):
        asyncio.run(start_worker("leaving", lambda: sys.exit("no such option"), DeviceTurn()))


def test_a_model_that_cannot_be_freed_holds_up_nobody_who_unloads_it(caplog: pytest.LogCaptureFixture) -> None:
    """The worker's end is told all the same, and the log says what became of the memory."""

    async def use(host: HostedEngine) -> None:
        assert await text_of(host.submit(GOOD_PROMPT, PARAMS)) == "b"

    with_worker(Script([say(1, FinishReason.LENGTH)], is_kept_open=True), use)
    assert "scripted could not be unloaded" in caplog.text


def test_cancelling_a_load_ends_the_thread() -> None:
    """A cancelled load returns at once, and its thread ends after the load."""
    entered, go_on = threading.Event(), threading.Event()
    script = Script([say(1)])

    def load() -> ScriptedModel:
        entered.set()
        go_on.wait(10)
        return ScriptedModel(script)

    async def run() -> None:
        starting = asyncio.create_task(start_worker("slow", load, DeviceTurn()))
        await asyncio.to_thread(entered.wait, 10)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        go_on.set()

    asyncio.run(run())
