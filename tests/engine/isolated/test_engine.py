"""IsolatedVisionLanguageEngine: the embedded captioner in a real process, which is killed, stopped and orphaned."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest

from periscope.engine import VisionLanguageEngine
from periscope.engine.isolated.engine import PROGRAM, IsolatedVisionLanguageEngine
from periscope.engine.loading.import_structure import KeptImportStructure
from periscope.errors import EngineClosed, ModelLoadError
from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT
from tests.engine.vision.test_vision_language import CAPTIONER, PICTURES, image_of

#: Longer than anything here takes on a busy machine.
PATIENCE_S = 60.0


async def caption(
    engine: IsolatedVisionLanguageEngine | VisionLanguageEngine, index: int, max_tokens: int = 64
) -> tuple[str, int]:
    return await engine.describe(image_of(index), DEFAULT_CAPTION_PROMPT, max_tokens)


def captioner_processes() -> list[psutil.Process]:
    """The captioner processes that this process has started; those of other tests do not count."""
    return [child for child in psutil.Process().children() if "serve" not in child.cmdline()]


def with_process(
    use: Callable[[IsolatedVisionLanguageEngine], Awaitable[None]],
    *,
    hang_s: float = PATIENCE_S,
    program: Path = PROGRAM,
) -> None:
    """Use a captioner's process, and check that nothing of it is left."""

    async def run() -> None:
        async with asyncio.timeout(PATIENCE_S):
            async with await IsolatedVisionLanguageEngine.load(CAPTIONER, hang_s=hang_s, program=program) as engine:
                await use(engine)
            assert engine.num_rows == 0
            assert not engine.is_alive
            assert not psutil.pid_exists(engine.pid)

    asyncio.run(run())
    assert captioner_processes() == []


def program(folder: Path, first: str) -> Path:
    """A program that runs some code first and then the captioner's process."""
    path = folder / "program.py"
    path.write_text(f"import runpy\n{first}\nrunpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n")
    return path


def test_captions_are_those_of_a_captioner_in_this_process() -> None:
    """It gives the same texts, counts and facts about the model, alone and batched, and reports an image's start."""
    told: list[tuple[int, int]] = []

    async def run() -> None:
        indices = range(len(PICTURES))
        here = await VisionLanguageEngine.load(CAPTIONER)
        apart = await IsolatedVisionLanguageEngine.load(CAPTIONER, progress=lambda *bytes_: told.append(bytes_))
        async with here, apart:
            expected = await asyncio.gather(*(caption(here, i) for i in indices))
            assert await asyncio.gather(*(caption(apart, i) for i in indices)) == expected
            assert [await caption(apart, i) for i in indices] == expected
            assert (apart.path, apart.memory.weights_bytes) == (here.path, here.memory.weights_bytes)
            assert told[-1] == (here.memory.weights_bytes, here.memory.weights_bytes)
            assert (await caption(apart, 0, max_tokens=3))[1] == 3
            begun: list[int] = []
            await apart.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 3, on_start=lambda: begun.append(0))
            assert begun == [0]

    asyncio.run(run())


def test_a_process_killed_in_mid_caption_fails_its_captions_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """Pending captions fail at once, `ended` is set, later ones are refused, and a new process works."""

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        expected = await caption(engine, 0)
        running = [asyncio.create_task(caption(engine, i)) for i in (0, 1, 2)]
        await caption(engine, 3, max_tokens=1)  # they were read before it, and take many times as long
        os.kill(engine.pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        assert any(isinstance(outcome, EngineClosed) for outcome in outcomes)
        await engine.ended()
        assert engine.num_rows == 0
        with pytest.raises(EngineClosed):
            await caption(engine, 0)
        async with await IsolatedVisionLanguageEngine.load(CAPTIONER) as another:
            assert await caption(another, 0) == expected

    with_process(use)
    assert "ended unexpectedly (signal 9" in caplog.text


def test_a_process_that_hangs_is_killed() -> None:
    """A stopped process that keeps a cancelled row is killed, and the other captions fail."""

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        os.kill(engine.pid, signal.SIGSTOP)
        waiting, leaving = (asyncio.create_task(caption(engine, i)) for i in (0, 1))
        while engine.num_rows < 2:
            await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(EngineClosed, match="signal 9"):
            await waiting
        await engine.ended()

    with_process(use, hang_s=0.1)


def test_a_worker_that_hangs_is_killed(tmp_path: Path) -> None:
    """The process still answers, but a step never ends, so that the cancelled row stays in the batch.

    That another one waits behind it does not hide it. The first picture is that of the health check at the load.
    """
    hangs = (
        "import itertools, mlx_vlm, threading\n"
        "prepare, calls = mlx_vlm.prepare_inputs, itertools.count()\n"
        "mlx_vlm.prepare_inputs = lambda *a, **k: threading.Event().wait() if next(calls) else prepare(*a, **k)"
    )

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        hangs = asyncio.Event()
        hanging = asyncio.create_task(engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 64, on_start=hangs.set))
        await hangs.wait()
        behind = asyncio.create_task(caption(engine, 1))
        hanging.cancel()
        await engine.ended()
        with pytest.raises(EngineClosed):
            await behind

    with_process(use, hang_s=0.5, program=program(tmp_path, hangs))


def test_a_cancelled_caption_frees_its_row() -> None:
    """Waiting or running, a cancelled image is removed from the batch in time, without effect on others."""

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        alone = await caption(engine, 0)
        kept, *dropped = (asyncio.create_task(caption(engine, i)) for i in (0, 1, 2, 3))
        await caption(engine, 4, max_tokens=1)
        for task in dropped:
            task.cancel()
        assert await kept == alone
        await asyncio.wait(dropped)
        while engine.num_rows:
            await asyncio.sleep(0)
        assert await caption(engine, 0) == alone

    with_process(use)


def test_load_errors_cross(tiny_text_model: Path) -> None:
    """A failed load raises the class and message that it has in the server's process."""
    for model in (str(tiny_text_model), "nobody/never-downloaded"):
        errors = []
        for kind in (VisionLanguageEngine, IsolatedVisionLanguageEngine):
            with pytest.raises(ModelLoadError) as caught:
                asyncio.run(kind.load(model))
            errors.append(caught.value.message)
        assert errors[0] == errors[1]
    assert captioner_processes() == []


def test_a_cancelled_load_leaves_no_process() -> None:
    """Cancelling while the process starts or loads ends it."""

    async def run() -> None:
        loading = asyncio.create_task(IsolatedVisionLanguageEngine.load(CAPTIONER))
        while not captioner_processes():
            await asyncio.sleep(0)
        loading.cancel()
        await asyncio.wait([loading])
        assert loading.cancelled()

    asyncio.run(run())
    assert captioner_processes() == []


def test_a_process_that_dies_while_it_loads_is_a_load_error(tmp_path: Path) -> None:
    """The message says how the process ended."""
    dies = program(tmp_path, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ModelLoadError, match="signal 9"):
        asyncio.run(IsolatedVisionLanguageEngine.load(CAPTIONER, program=dies))


def test_a_process_that_sends_no_messages_is_killed(tmp_path: Path) -> None:
    """A process that sends anything but messages is killed."""
    nonsense = program(tmp_path, "import sys, threading\nprint('hello, server', flush=True)\nthreading.Event().wait()")
    with pytest.raises(ModelLoadError):
        asyncio.run(IsolatedVisionLanguageEngine.load(CAPTIONER, program=nonsense))
    assert captioner_processes() == []


def test_closing_is_idempotent_and_fails_captions_under_way() -> None:
    """Closing fails pending captions at once, and may be called twice at the same time."""

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        running = [asyncio.create_task(caption(engine, i)) for i in range(4)]
        while engine.num_rows < 4:
            await asyncio.sleep(0)
        await asyncio.gather(engine.close(), engine.close())
        await engine.ended()
        done = await asyncio.gather(*running, return_exceptions=True)
        assert any(isinstance(outcome, EngineClosed) for outcome in done)

    with_process(use)


def test_closing_a_process_that_hangs_ends_it() -> None:
    """Cancelling `close` kills the process at once."""

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        os.kill(engine.pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await engine.close()
        await engine.ended()

    with_process(use)


def test_ctrl_c_does_not_end_the_captioner() -> None:
    """A terminal sends SIGINT to all processes of its group; the captioner runs until the server ends it."""

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        before = await caption(engine, 0)
        os.kill(engine.pid, signal.SIGINT)
        engine.release_memory()
        assert await caption(engine, 0) == before

    with_process(use)


def test_what_libraries_print_does_not_reach_the_pipe(tmp_path: Path) -> None:
    """Output while libraries are imported and while the model works goes to the log."""
    prints = (
        "import os, sys\n"
        "class Noisy:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.startswith(('mlx', 'periscope')):\n"
        "            print('importing', name, flush=True)\n"
        "            os.write(1, b'noise')\n"
        "sys.meta_path.insert(0, Noisy())"
    )

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        assert (await caption(engine, 0))[0]

    with_process(use, program=program(tmp_path, prints))


def test_it_keeps_what_transformers_finds_where_this_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a captioner which is started again is there half a second sooner."""
    file = tmp_path / "imports.json"
    monkeypatch.setattr(sys, "meta_path", [KeptImportStructure(file), *sys.meta_path])

    async def use(engine: IsolatedVisionLanguageEngine) -> None:
        assert (await caption(engine, 0))[0]

    with_process(use)
    assert json.loads(file.read_text())["structures"]


OWNER = f"""
import asyncio
from periscope.engine.isolated.engine import IsolatedVisionLanguageEngine
from tests.engine.isolated.test_engine import caption

async def main():
    engine = await IsolatedVisionLanguageEngine.load({CAPTIONER!r})
    print(engine.pid, flush=True)
    while True:
        await caption(engine, 0)

asyncio.run(main())
"""


def test_a_server_that_is_killed_leaves_no_captioner() -> None:
    """After kill -9 of the server, the captioner's process ends by itself, whatever it was doing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=environment) as owner:  # noqa: S603
        assert owner.stdout is not None
        captioner = psutil.Process(int(owner.stdout.readline()))
        owner.kill()
    captioner.wait(PATIENCE_S)
