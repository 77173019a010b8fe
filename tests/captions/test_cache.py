"""CaptionCache: what is made once, what is shared, what is kept, and who may be cancelled without harm."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from periscope.captions.cache import Answer, CaptionCache
from periscope.captions.caption import Caption, CaptionOutcome
from periscope.captions.kept import num_bytes_of
from periscope.core import Tell, Waiting, WaitStatus
from periscope.errors import CaptionFailed, ServerBusy
from tests.vision.fakes import cancelled, run, settled

CAPTIONING, READY = Waiting(WaitStatus.CAPTIONING, "c"), Waiting(WaitStatus.QUEUED, "c")


class Maker:
    """Makes captions out of keys; notes its calls and, with a gate, waits in them. The turn of `busy` never comes."""

    def __init__(self, *, gate: asyncio.Event | None = None, fails: bool = False, busy: str = "") -> None:
        self.calls: list[tuple[str, ...]] = []
        self.num_cancelled = 0
        self.fails = fails
        self.busy = busy
        self._gate = gate

    async def __call__(self, keys: tuple[str, ...], tell: Tell) -> Sequence[CaptionOutcome]:
        self.calls.append(keys)
        tell(CAPTIONING)
        if self._gate is not None:
            try:
                await self._gate.wait()
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        tell(READY)
        return [self._outcome(key) for key in keys]

    def _outcome(self, key: str) -> CaptionOutcome:
        if key == self.busy:
            return ServerBusy("Its turn did not come.", retry_after_s=3)
        return CaptionFailed("no luck") if self.fails else Caption(f"about {key}", 3)


def texts(answers: dict[str, Answer]) -> list[str]:
    return [a.result.text if isinstance(a.result, Caption) else a.result.reason for a in answers.values()]


def test_a_caption_is_made_once() -> None:
    """The second time the same key comes, its caption is there; missing keys of one call are made together."""

    async def test() -> None:
        cache, make = CaptionCache(), Maker()
        first = await cache.get_or_caption(["a", "b", "a"], make)
        second = await cache.get_or_caption(["b", "c"], make)
        assert make.calls == [("a", "b"), ("c",)]
        assert texts(first) == ["about a", "about b"]
        assert texts(second) == ["about b", "about c"]
        assert [answer.is_made for answer in second.values()] == [False, True]
        stats = cache.stats
        assert (stats.num_hits, stats.num_misses, stats.num_entries) == (1, 3, 3)

    run(test())


def test_failures_are_never_kept() -> None:
    """What failed is tried again, and may succeed."""

    async def test() -> None:
        cache, make = CaptionCache(), Maker(fails=True)
        assert texts(await cache.get_or_caption(["a"], make)) == ["no luck"]
        make.fails = False
        assert texts(await cache.get_or_caption(["a"], make)) == ["about a"]
        assert cache.stats.num_entries == 1

    run(test())


def test_concurrent_misses_of_a_key_share_one_call() -> None:
    """The later request makes only what is not being made already, and gets all it asked for."""

    async def test() -> None:
        gate = asyncio.Event()
        cache, make = CaptionCache(), Maker(gate=gate)
        one = asyncio.create_task(cache.get_or_caption(["a", "b"], make))
        two = asyncio.create_task(cache.get_or_caption(["b", "c"], make))
        await settled()
        assert make.calls == [("a", "b"), ("c",)]
        gate.set()
        assert texts(await one) == ["about a", "about b"]
        answers = await two
        assert texts(answers) == ["about b", "about c"]
        assert [answer.is_made for answer in answers.values()] == [False, True]
        assert (cache.stats.num_hits, cache.stats.num_misses) == (1, 3)

    run(test())


def test_whoever_waits_hears_what_for() -> None:
    """Also those who join, from the last word on, and those who have left no more; never for a hit."""

    async def test() -> None:
        gate, told = asyncio.Event(), list[tuple[str, WaitStatus]]()
        cache, make = CaptionCache(), Maker(gate=gate)

        def asking(name: str, *keys: str) -> asyncio.Task[dict[str, Answer]]:
            tell: Tell = lambda waiting: told.append((name, waiting.status))  # noqa: E731 - one line says it
            return asyncio.create_task(cache.get_or_caption(keys, make, tell=tell))

        leader = asking("leader", "a", "b")
        await settled()
        joined, leaver = asking("joined", "a"), asking("leaver", "b")
        await settled()
        before = [(name, WaitStatus.CAPTIONING) for name in ("leader", "joined", "leaver")]
        assert told == before
        await cancelled(leaver)
        gate.set()
        await asyncio.gather(leader, joined)
        await asking("late", "a")
        assert told == [*before, ("leader", WaitStatus.QUEUED), ("joined", WaitStatus.QUEUED)]

    run(test())


def test_a_turn_that_did_not_come_is_told_to_those_who_wanted_it_and_costs_nobody_else() -> None:
    """What was made beside it is kept, for those who wait and for the next try."""

    async def test() -> None:
        gate = asyncio.Event()
        cache, make = CaptionCache(), Maker(gate=gate, busy="b")
        leader = asyncio.create_task(cache.get_or_caption(["a", "b"], make))
        await settled()
        others = [asyncio.create_task(cache.get_or_caption([key], make)) for key in "ab"]
        await settled()
        gate.set()
        one, two, three = await asyncio.gather(leader, *others, return_exceptions=True)
        assert (type(one), type(three)) == (ServerBusy, ServerBusy)
        assert isinstance(two, dict)
        assert texts(two) == ["about a"]
        make.busy = ""
        assert texts(await cache.get_or_caption(["a", "b"], make)) == ["about a", "about b"]
        assert make.calls == [("a", "b"), ("b",)]

    run(test())


def test_a_caption_goes_on_for_those_who_still_wait() -> None:
    """The client that caused a caption may leave: the others get it, and it is kept."""

    async def test() -> None:
        gate = asyncio.Event()
        cache, make = CaptionCache(), Maker(gate=gate)
        leader = asyncio.create_task(cache.get_or_caption(["a"], make))
        await settled()
        other = asyncio.create_task(cache.get_or_caption(["a"], make))
        await settled()
        await cancelled(leader)
        gate.set()
        assert texts(await other) == ["about a"]
        assert (make.num_cancelled, cache.stats.num_entries) == (0, 1)

    run(test())


def test_a_waiter_may_leave() -> None:
    """Leaving another's caption does not disturb it."""

    async def test() -> None:
        gate = asyncio.Event()
        cache, make = CaptionCache(), Maker(gate=gate)
        leader = asyncio.create_task(cache.get_or_caption(["a"], make))
        await settled()
        waiter = asyncio.create_task(cache.get_or_caption(["a"], make))
        await settled()
        await cancelled(waiter)
        gate.set()
        assert texts(await leader) == ["about a"]

    run(test())


def test_a_caption_nobody_waits_for_is_cancelled() -> None:
    """When the last one leaves the captioner is stopped, has stopped by then, and the next request starts afresh."""

    async def test() -> None:
        gate = asyncio.Event()
        cache, make = CaptionCache(), Maker(gate=gate)
        tasks = [asyncio.create_task(cache.get_or_caption(["a"], make)) for _ in range(3)]
        await settled()
        for task in tasks[:2]:
            await cancelled(task)
        assert make.num_cancelled == 0
        await cancelled(tasks[2])
        assert make.num_cancelled == 1
        assert cache.missing(["a"]) == ("a",)
        gate.set()
        assert texts(await cache.get_or_caption(["a"], make)) == ["about a"]

    run(test())


def test_a_dying_caption_is_not_joined() -> None:
    """A request that comes while an abandoned caption is still being cleaned up gets a caption of its own."""

    async def test() -> None:
        gate, cleaned = asyncio.Event(), asyncio.Event()

        async def slow_to_die(keys: tuple[str, ...], _: Tell) -> list[Caption]:
            try:
                await gate.wait()
            finally:
                await cleaned.wait()
            return [Caption("late", 1) for _ in keys]

        cache, make = CaptionCache(), Maker()
        abandoned = asyncio.create_task(cache.get_or_caption(["a"], slow_to_die))
        await settled()
        abandoned.cancel()
        await settled()
        assert texts(await cache.get_or_caption(["a"], make)) == ["about a"]
        assert not abandoned.done()
        cleaned.set()
        await asyncio.gather(abandoned, return_exceptions=True)
        assert texts(await cache.get_or_caption(["a"], make)) == ["about a"]

    run(test())


@pytest.mark.parametrize("num_turns", range(4))
def test_cancelled_before_it_began(num_turns: int) -> None:
    """A request cancelled in one of the first turns of the loop leaves nothing behind."""

    async def test() -> None:
        cache, make = CaptionCache(), Maker(gate=asyncio.Event())
        task = asyncio.create_task(cache.get_or_caption(["a"], make))
        for _ in range(num_turns):
            await asyncio.sleep(0)
        await cancelled(task)
        assert make.num_cancelled == len(make.calls)
        assert cache.missing(["a"]) == ("a",)

    run(test())


def test_a_captioner_that_gives_up_by_itself_is_a_failure() -> None:
    """A cancellation from inside does not cancel the requests that wait."""

    async def test() -> None:
        async def give_up(_: tuple[str, ...], __: Tell) -> list[Caption]:
            raise asyncio.CancelledError

        cache = CaptionCache()
        assert texts(await cache.get_or_caption(["a"], give_up)) == ["the captioner stopped"]
        assert cache.missing(["a"]) == ("a",)

    run(test())


def test_a_fault_reaches_all_who_wait_and_is_not_kept() -> None:
    """An exception, or captions that do not match their keys, ends every waiter the same way."""

    async def test() -> None:
        async def too_few(_: tuple[str, ...], __: Tell) -> list[Caption]:
            return []

        cache, make = CaptionCache(), Maker()
        outcomes = await asyncio.gather(
            *(cache.get_or_caption(["a"], too_few) for _ in range(2)), return_exceptions=True
        )
        assert [type(outcome) for outcome in outcomes] == [ValueError, ValueError]
        assert texts(await cache.get_or_caption(["a"], make)) == ["about a"]

    run(test())


def test_the_least_recently_used_go_first() -> None:
    """There is room for two captions; a hit keeps its caption young."""

    async def test() -> None:
        cache, make = CaptionCache(max_bytes=2 * num_bytes_of(1, len("about a"))), Maker()
        for key in ("a", "b", "a", "c"):
            await cache.get_or_caption([key], make)
        assert cache.missing(["a", "b", "c"]) == ("b",)

    run(test())


def test_bytes_are_bounded() -> None:
    """Long captions push others out; one that is too long for the cache is handed on and not kept."""

    async def test() -> None:
        async def long_captions(keys: tuple[str, ...], _: Tell) -> list[Caption]:
            return [Caption("x" * int(key), 1) for key in keys]

        cache = CaptionCache(max_bytes=10_000)
        for length in ("3000", "4000", "5000"):
            await cache.get_or_caption([length], long_captions)
        assert cache.missing(["3000", "4000", "5000"]) == ("3000",)
        assert 9000 < cache.stats.num_bytes <= 10_000
        before = cache.stats
        assert texts(await cache.get_or_caption(["20000"], long_captions)) == ["x" * 20_000]
        assert cache.stats.num_bytes == before.num_bytes
        assert cache.stats.num_entries == before.num_entries

    run(test())


def test_a_flush_forgets_also_what_is_being_made() -> None:
    """Who waits still gets a caption made before the flush; nobody after it does."""

    async def test() -> None:
        gate = asyncio.Event()
        cache, make = CaptionCache(), Maker(gate=gate)
        waiting = asyncio.create_task(cache.get_or_caption(["a"], make))
        await settled()
        cache.flush()
        gate.set()
        assert texts(await waiting) == ["about a"]
        assert cache.missing(["a"]) == ("a",)
        await cache.get_or_caption(["a"], make)
        cache.flush()
        assert (cache.stats.num_entries, cache.stats.num_bytes, cache.stats.num_misses) == (0, 0, 2)

    run(test())
