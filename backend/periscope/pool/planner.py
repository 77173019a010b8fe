"""plan(): who is granted, refused, loaded, drained or unloaded next. Pure: the pool's facts in, effects out.

It is asked again after every change and after its own effects were carried out, until it has none. `DESIGN.md` tells
why each rule is as it is; the numbers in the code are its cases.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from periscope.pool.state import ModelState


@dataclass(frozen=True, slots=True)
class TicketFacts:
    """One wish for a model.

    Attributes:
        number: order of arrival in the pool, growing.
        waits_since: when its wait began: it arrived, or, where it was reserved first, it was ready for the model.
        is_load_only: wants the model in memory and takes no place in its batch; it waits as long as it takes.
        may_evict: other models may have to go for it.
        is_reserved: keeps its place in the queue and does not want the model yet: nothing is loaded, kept or moved for
            it, and its wait has not begun. It is passed over, not waited for.
    """

    number: int
    waits_since: float
    is_load_only: bool = False
    may_evict: bool = True
    is_reserved: bool = False


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model as it is now. Times are seconds of the pool's clock.

    Attributes:
        waiting: the tickets in its queue, reserved ones among them, in order of arrival.
        need_bytes: what a load would take; None until its files were measured.
        held_bytes: what it takes now: reserved while it loads, measured once it is there.
        is_measuring, is_unloading: work for it is going on.
        max_leases: places in its batch.
        ready_number: the number the next ticket would have got when it became ready; who came before is served by
            this load, whoever else waits.
        unload_number: as `ready_number`, when somebody asked for it to be unloaded; None = nobody did.
        ready_at: when it became ready; means nothing otherwise.
        used_at: when it was last granted or released.
        ttl_s: it is unloaded after so long without work; None = never.
        retry_at: when a failed model may be tried again.
    """

    name: str
    state: ModelState
    waiting: tuple[TicketFacts, ...] = ()
    need_bytes: int | None = None
    held_bytes: int = 0
    is_measuring: bool = False
    is_unloading: bool = False
    is_pinned: bool = False
    num_leases: int = 0
    max_leases: int = 1
    ready_number: int = 0
    unload_number: int | None = None
    ready_at: float = 0.0
    used_at: float = 0.0
    ttl_s: float | None = None
    retry_at: float = 0.0

    @property
    def is_idle(self) -> bool:
        """Nobody uses it, waits for it or has a place reserved."""
        return self.num_leases == 0 and not self.waiting

    @property
    def idle_until(self) -> float:
        """When it is unloaded for idleness if nothing happens; infinity = not."""
        is_staying = self.is_pinned or self.is_unloading or not self.state.is_resident
        if is_staying or self.ttl_s is None or not self.is_idle:
            return math.inf
        return self.used_at + self.ttl_s


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """All that a plan rests on. `models` in the order of models.yaml."""

    models: tuple[ModelFacts, ...]
    budget_bytes: int
    wait_timeout_s: float
    now: float


class Refusal(StrEnum):
    """Why a ticket is refused."""

    TIMED_OUT = "timed out"
    FAILED = "failed"
    TOO_LARGE = "too large"
    NO_ROOM = "no room"
    CALLED_OFF = "called off"


@dataclass(frozen=True, slots=True)
class Grant:
    """The ticket gets its lease, or is told that the model is there."""

    model: str
    number: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """The ticket gets an error."""

    model: str
    number: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class Measure:
    """Look at the model's files: are they there, and how much will they take?"""

    model: str


@dataclass(frozen=True, slots=True)
class Load:
    """Start to load; its bytes are reserved from now on."""

    model: str


@dataclass(frozen=True, slots=True)
class GiveUpLoad:
    """Stop loading: nobody who may still have it waits for it."""

    model: str


@dataclass(frozen=True, slots=True)
class Drain:
    """No new leases; unload after the last one."""

    model: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Do not unload after all."""

    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Free it now: nobody uses it."""

    model: str


Effect: TypeAlias = Grant | Refuse | Measure | Load | GiveUpLoad | Drain | Keep | Unload


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, and when to ask again if nothing happens (infinity = never)."""

    effects: tuple[Effect, ...]
    wake_at: float


def plan(facts: PoolFacts) -> Plan:
    """Pure. Effects are to be carried out in order, all of them, before it is asked again."""
    refused = tuple(_refusals(facts))
    gone = {effect.number for effect in refused}
    effects: list[Effect] = list(refused)
    demands = _Demands(facts, gone)
    effects += demands.effects
    for model in facts.models:
        if model.state.is_resident:
            effects += _resident(model, _cutoff(model, demands, facts.now), gone)
        elif _is_load_given_up(model, gone):
            effects.append(GiveUpLoad(model.name))
    return Plan(tuple(effects), math.inf if effects else _wake_at(facts))


def wait_deadline(model: ModelFacts, ticket: TicketFacts, wait_timeout_s: float) -> float:
    """Pure: when the ticket has waited too long. A load of its own model is no waiting; after it, time starts anew."""
    if ticket.is_load_only or ticket.is_reserved or model.state is ModelState.LOADING:
        return math.inf
    since = max(ticket.waits_since, model.ready_at) if model.state is ModelState.READY else ticket.waits_since
    return since + wait_timeout_s


def _refusals(facts: PoolFacts) -> Iterator[Refuse]:
    for model in facts.models:
        in_back_off = model.state is ModelState.FAILED and facts.now < model.retry_at
        for ticket in model.waiting:
            if in_back_off:  # 1. it failed a moment ago, and would again
                yield Refuse(model.name, ticket.number, Refusal.FAILED)
            elif facts.now >= wait_deadline(model, ticket, facts.wait_timeout_s):  # 2. it has waited long enough
                yield Refuse(model.name, ticket.number, Refusal.TIMED_OUT)
            elif ticket.is_load_only and _came_before_the_command(model, ticket) and not model.state.is_resident:
                yield Refuse(model.name, ticket.number, Refusal.CALLED_OFF)  # 9. it was told to go after that


def _came_before_the_command(model: ModelFacts, ticket: TicketFacts) -> bool:
    """A command to unload the model has come, later than the ticket."""
    return model.unload_number is not None and ticket.number < model.unload_number


def _is_load_given_up(model: ModelFacts, gone: set[int]) -> bool:
    """9. It is being loaded and was told to go, and nobody who asked before that wants to use it."""
    if model.state is not ModelState.LOADING or model.is_unloading or model.unload_number is None:
        return False
    served = (
        ticket
        for ticket in model.waiting
        if ticket.number not in gone and not ticket.is_reserved and _came_before_the_command(model, ticket)
    )
    return next(served, None) is None


@dataclass(slots=True)
class _Demands:
    """Models that are wanted and not in memory, the longest waiting first, and what is to be done for them.

    Attributes:
        victims: resident model -> number of the first ticket that it makes way for.
        free_bytes: what nobody holds now.
        unclaimed_bytes: what will be nobody's once the victims are gone and those they make way for are loaded; below
            zero when that will not be enough.
        is_somebody_unmeasured: nobody knows yet what one that came before will take.
    """

    facts: PoolFacts
    gone: set[int]
    effects: list[Effect] = field(default_factory=list)
    victims: dict[str, int] = field(default_factory=dict)
    free_bytes: int = 0
    unclaimed_bytes: int = 0
    is_somebody_unmeasured: bool = False

    def __post_init__(self) -> None:
        held_bytes = sum(model.held_bytes for model in self.facts.models)
        self.free_bytes = self.unclaimed_bytes = self.facts.budget_bytes - held_bytes
        for model, waiting in self._wanted():
            self._meet(model, waiting)

    def _wanted(self) -> Iterable[tuple[ModelFacts, list[TicketFacts]]]:
        wanted = [
            (model, [ticket for ticket in model.waiting if ticket.number not in self.gone and not ticket.is_reserved])
            for model in self.facts.models
            if model.state in {ModelState.UNLOADED, ModelState.FAILED}
        ]
        return sorted(((m, waiting) for m, waiting in wanted if waiting), key=lambda pair: pair[1][0].number)

    def _meet(self, model: ModelFacts, waiting: list[TicketFacts]) -> None:
        need = model.need_bytes
        may_evict = any(ticket.may_evict for ticket in waiting)
        if need is None:  # 3. nothing is moved for files that may not be there
            self.is_somebody_unmeasured = True
            if not model.is_measuring:
                self.effects.append(Measure(model.name))
            return
        if self.is_somebody_unmeasured and not may_evict:  # and who may move nobody does not get in before others
            return
        if need > self.facts.budget_bytes - self._pinned_bytes():  # 4. it can never fit
            self.effects += [Refuse(model.name, ticket.number, Refusal.TOO_LARGE) for ticket in waiting]
        elif need <= min(self.free_bytes, self.unclaimed_bytes):  # 5. there is room, kept for nobody who came before
            self.effects.append(Load(model.name))
            self.free_bytes -= need
            self.unclaimed_bytes -= need
        elif not may_evict:  # 6. nobody has to go for it
            self.effects += [Refuse(model.name, ticket.number, Refusal.NO_ROOM) for ticket in waiting]
        else:  # 7. others make way, and whoever comes later does not take what they leave
            self._make_way(need, waiting[0].number)
            self.unclaimed_bytes -= need

    def _pinned_bytes(self) -> int:
        return sum(model.held_bytes for model in self.facts.models if model.is_pinned)

    def _make_way(self, need: int, number: int) -> None:
        """The least recently used go first, idle ones before busy ones, and those that already go before all."""
        candidates = [
            model
            for model in self.facts.models
            if model.state.is_resident and not model.is_pinned and model.name not in self.victims
        ]
        candidates.sort(key=lambda m: (m.state is not ModelState.DRAINING, not m.is_idle, m.used_at))
        for model in candidates:
            if self.unclaimed_bytes >= need:
                return
            self.victims[model.name] = number
            self.unclaimed_bytes += model.held_bytes


def _cutoff(model: ModelFacts, demands: _Demands, now: float) -> float:
    """Tickets from this number on are not served by this load; infinity = all are, and it stays."""
    cutoffs = [math.inf]
    if model.name in demands.victims:  # 8. who came before the one it makes way for, or during its load, is served
        cutoffs.append(max(demands.victims[model.name], model.ready_number))
    if model.unload_number is not None:  # 9. somebody asked for it
        cutoffs.append(model.unload_number)
    if now >= model.idle_until:  # 10. it was idle too long
        cutoffs.append(0)
    return min(cutoffs)


def _resident(model: ModelFacts, cutoff: float, gone: set[int]) -> Iterator[Effect]:
    if model.is_unloading:
        return
    wanting = [ticket for ticket in model.waiting if ticket.number not in gone and not ticket.is_reserved]
    served = [ticket for ticket in wanting if ticket.number < cutoff]
    leaves = cutoff < math.inf and not served
    if leaves and model.state is ModelState.READY:  # 11.
        yield Drain(model.name)
    elif leaves and model.num_leases == 0:  # 12.
        yield Unload(model.name)
    elif not leaves and model.state is ModelState.DRAINING:  # 13.
        yield Keep(model.name)
    elif not leaves:  # 14. in order of arrival, as many as there are places
        free_places = model.max_leases - model.num_leases
        for ticket in served:
            if not ticket.is_load_only:
                if free_places <= 0:
                    return
                free_places -= 1
            yield Grant(model.name, ticket.number)


def _wake_at(facts: PoolFacts) -> float:
    deadlines = (
        wait_deadline(model, ticket, facts.wait_timeout_s) for model in facts.models for ticket in model.waiting
    )
    return min((*deadlines, *(model.idle_until for model in facts.models)), default=math.inf)
