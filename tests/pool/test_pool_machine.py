"""The pool under any order of events: hypothesis tries to make it lose a ticket, a lease or a byte of its ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import ExitStack
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from periscope.core import ModelState
from periscope.errors import ModelLoadError, ModelPinned, ModelUnavailable, ServerBusy
from periscope.events import EventBus
from periscope.pool.contracts import PoolLimits
from periscope.pool.pool import ModelPool
from periscope.pool.ticket import Ticket, TicketState
from tests.pool.fakes import FakeMemory, FakeModel, HandTimers, turns

NAMES = ("a", "b", "c", "d")
MAX_WAITING = 3
names = st.sampled_from(NAMES)


class PoolMachine(RuleBasedStateMachine):
    """Four models of different sizes, in a budget that holds one large model or some small ones."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tickets: list[tuple[str, Ticket, ExitStack]] = []
        self.num_joined = 0

    def do(self, work: Coroutine[Any, Any, None] | None = None) -> None:
        """Run a step, then let all tasks run as far as they can."""

        async def run() -> None:
            if work is not None:
                await work
            await turns(30)

        self.loop.run_until_complete(run())

    @initialize(
        sizes=st.tuples(*[st.integers(20, 110)] * 4), reserve=st.integers(0, 10), ttl=st.sampled_from([None, 50.0])
    )
    def begin(self, sizes: tuple[int, ...], reserve: int, ttl: float | None) -> None:
        self.models = {
            name: FakeModel(name, size, reserve, max_running=1 + size % 2, ttl_s=ttl)
            for name, size in zip(NAMES, sizes, strict=True)
        }
        self.timers = HandTimers()

        async def build() -> None:
            specs = [model.spec for model in self.models.values()]
            limits = PoolLimits(budget_bytes=100, max_waiting=MAX_WAITING, wait_timeout_s=1e9)
            self.pool = ModelPool(specs, EventBus(), limits, memory=FakeMemory(), timers=self.timers)

        self.do(build())

    @rule(name=names, is_reserved=st.booleans())
    def join(self, name: str, *, is_reserved: bool) -> None:
        view = self.pool.status(name)
        counted = self.of(name, TicketState.WAITING, *([TicketState.RESERVED] if is_reserved else []))
        is_full = view.num_running + len(counted) >= view.max_running + MAX_WAITING

        async def enter() -> None:
            stack = ExitStack()
            try:
                ticket = stack.enter_context(self.pool.ticket(name, is_reserved=is_reserved))
            except ServerBusy:
                assert is_full
                return
            assert not is_full
            self.tickets.append((name, ticket, stack))

        self.do(enter())

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.tickets) - 1))
        _, _, stack = self.tickets.pop(index)

        async def close() -> None:
            stack.close()

        self.do(close())

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def start_waiting(self, data: st.DataObject) -> None:
        _, ticket, _ = self.tickets[data.draw(st.integers(0, len(self.tickets) - 1))]

        async def start() -> None:
            ticket.start_waiting()

        self.do(start())

    @rule(name=names, step=st.sampled_from(["may_measure", "may_load", "may_unload"]), is_held_back=st.booleans())
    def hold_back(self, name: str, step: str, *, is_held_back: bool) -> None:
        leave = getattr(self.models[name], step)
        leave.clear() if is_held_back else leave.set()
        self.do()

    @rule(name=names, fails=st.sampled_from(["measure_error", "load_error"]), is_broken=st.booleans())
    def break_or_mend(self, name: str, fails: str, *, is_broken: bool) -> None:
        setattr(self.models[name], fails, ModelLoadError("broken.") if is_broken else None)

    @rule(name=names)
    def kill(self, name: str) -> None:
        if self.models[name].engines:
            self.models[name].engines[-1].kill()
        self.do()

    @rule(name=names, is_pinned=st.booleans())
    def pin(self, name: str, *, is_pinned: bool) -> None:
        async def pin() -> None:
            self.pool.pin(name, is_pinned=is_pinned)

        self.do(pin())

    @rule(name=names)
    def unload(self, name: str) -> None:
        async def unload() -> None:
            try:
                self.pool.start_unload(name)
            except ModelPinned:
                assert self.pool.status(name).is_pinned

        self.do(unload())

    @rule(name=names, may_evict=st.booleans())
    def bring_in(self, name: str, *, may_evict: bool) -> None:
        async def bring() -> None:
            try:
                self.pool.start_load(name, may_evict=may_evict)
            except ModelUnavailable:
                assert self.pool.status(name).state in {ModelState.FAILED, ModelState.UNLOADED}

        self.do(bring())

    @rule(name=names)
    def replace(self, name: str) -> None:
        """Another model under the same name, of the same size, behind the same gates."""
        old = self.models[name]
        new = FakeModel(name, old.weights_bytes, old.reserve_bytes, max_running=old.max_running, ttl_s=old.ttl_s)
        new.may_measure, new.may_load, new.may_unload = old.may_measure, old.may_load, old.may_unload
        self.models[name] = new

        async def configure() -> None:
            self.pool.configure([model.spec for model in self.models.values()], replaced=[name], loads=[])

        self.do(configure())

    @rule(is_held=st.booleans())
    def hold_loads(self, *, is_held: bool) -> None:
        async def hold() -> None:
            self.pool.hold_loads(is_held=is_held)

        self.do(hold())

    @rule()
    def relieve_memory(self) -> None:
        async def relieve() -> None:
            self.pool.relieve_memory()

        self.do(relieve())

    @rule(seconds=st.floats(0.0, 400.0))
    def wait(self, seconds: float) -> None:
        async def wait() -> None:
            self.timers.advance(seconds)

        self.do(wait())

    def of(self, name: str, *states: TicketState) -> list[Ticket]:
        return [ticket for model, ticket, _ in self.tickets if model == name and ticket.state in states]

    @invariant()
    def memory_is_within_the_budget(self) -> None:
        assert sum(view.held_bytes for view in self.pool.statuses()) <= 100
        for view in self.pool.statuses():
            in_memory = view.state in {ModelState.LOADING, ModelState.READY, ModelState.DRAINING}
            assert (view.held_bytes > 0) == in_memory

    @invariant()
    def queues_and_leases_are_those_of_the_tickets(self) -> None:
        for view in self.pool.statuses():
            waiting = self.of(view.name, TicketState.RESERVED, TicketState.WAITING)
            assert [t.told and t.told.position for t in waiting] == list(range(1, len(waiting) + 1))
            assert view.num_waiting == len(waiting) <= 2 * (MAX_WAITING + view.max_running)
            assert view.num_running == len(self.of(view.name, TicketState.GRANTED))

    @invariant()
    def nobody_waits_for_a_free_place(self) -> None:
        """A ready model that will not be unloaded has no waiting ticket while a place is free."""
        for view in self.pool.statuses():
            if view.state is ModelState.READY and view.num_running < view.max_running:
                assert not self.of(view.name, TicketState.WAITING)

    @invariant()
    def a_command_to_unload_is_carried_out(self) -> None:
        """A model that a command unloads does not stay without older tickets, and the command causes no reload."""
        for name, model in self.models.items():
            unload_number, view = self.pool._slots[name].lifecycle.unload_number, self.pool.status(name)
            if unload_number is not None and not self.of(name, TicketState.GRANTED, TicketState.WAITING):
                is_held_back = not (model.may_load.is_set() and model.may_unload.is_set())
                assert is_held_back or view.state not in {ModelState.READY, ModelState.LOADING}

    def teardown(self) -> None:
        """Once no step is blocked or fails, every ticket is granted or refused, and nothing is left over."""
        if not hasattr(self, "pool"):
            self.loop.close()
            return
        for model in self.models.values():
            model.measure_error = model.load_error = None
            for leave in (model.may_measure, model.may_load, model.may_unload):
                leave.set()

        async def start() -> None:
            self.pool.hold_loads(is_held=False)
            for _, ticket, _ in self.tickets:
                ticket.start_waiting()

        self.do(start())
        for _ in range(4 * len(self.tickets) + 1):
            for name, ticket, stack in tuple(self.tickets):
                if ticket.state is TicketState.WAITING and not any(view.is_pinned for view in self.pool.statuses()):
                    continue
                self.tickets.remove((name, ticket, stack))

                async def close(stack: ExitStack = stack) -> None:
                    stack.close()

                self.do(close())
        assert not self.tickets
        assert all(view.num_running == view.num_waiting == 0 for view in self.pool.statuses())
        self.do(self.pool.close())
        assert all(view.held_bytes == 0 for view in self.pool.statuses())
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
