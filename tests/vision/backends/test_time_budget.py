"""TimeBudget: two accounts of seconds that do not pay for each other."""

from __future__ import annotations

import asyncio

import pytest

from periscope.vision.backends.time_budget import TimeBudget


@pytest.mark.parametrize("is_work", [True, False])
def test_an_empty_account_says_so_and_the_other_is_untouched(is_work: bool) -> None:
    """What is spent on work is not missing from the wait, nor the other way round; an empty one stays empty."""

    async def test() -> None:
        seconds = {True: 600.0, False: 600.0, is_work: 0.01}
        budget, changed = TimeBudget(work_s=seconds[True], wait_s=seconds[False]), asyncio.Event()
        for _ in range(2):
            assert not await budget.spend(changed, is_work=is_work)
        asyncio.get_running_loop().call_soon(changed.set)
        assert await budget.spend(changed, is_work=not is_work)

    asyncio.run(test())
