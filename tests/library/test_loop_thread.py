"""LoopThread: Ctrl-C at the moment at which work is handed over to the loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from periscope.library.loop_thread import LoopThread


@pytest.mark.parametrize("is_handed_over", [False, True])
def test_ctrl_c_while_work_is_handed_over_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, is_handed_over: bool
) -> None:
    """Python may raise KeyboardInterrupt in any function, also in the one that wakes the loop."""
    call_soon = asyncio.BaseEventLoop.call_soon_threadsafe
    interrupts = [KeyboardInterrupt()]

    def interrupted(loop: asyncio.BaseEventLoop, *args: Any, **context: Any) -> asyncio.Handle | None:
        handle = call_soon(loop, *args, **context) if is_handed_over or not interrupts else None
        if interrupts:
            raise interrupts.pop()
        return handle

    async def num_tasks() -> int:
        return len(asyncio.all_tasks()) - 2  # this one, and the one that waits for the end

    thread = LoopThread("loop")
    try:
        with monkeypatch.context() as patched:
            patched.setattr(asyncio.BaseEventLoop, "call_soon_threadsafe", interrupted)
            with pytest.raises(KeyboardInterrupt):
                thread.run(asyncio.Event().wait())
        assert thread.run(num_tasks()) == 0
    finally:
        thread.close()


def test_work_for_a_closed_loop_is_refused() -> None:
    """Without a warning of a coroutine that was never awaited."""
    thread = LoopThread("loop")
    thread.close()
    with pytest.raises(RuntimeError, match="closed"):
        thread.run(asyncio.sleep(0))
