"""plan(): which tickets are granted or refused and which models are loaded, drained or unloaded next.

Pure: the pool's facts in, effects out; no clock, no logging. The executor plans again after every change and after it
has carried out the effects, until there are none. The numbers in the code are the cases of `DESIGN.md`, which says why
each rule is as it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from periscope.core import ModelState
from periscope.pool.effects import CancelLoad, Drain, Effect, Grant, Keep, Load, Measure, Plan, Refusal, Refuse, Unload
from periscope.pool.facts import ModelFacts, PoolFacts, TicketFacts


def plan(facts: PoolFacts) -> Plan:
    """Decide what to do next. Pure.

    All effects must be carried out, in order, before the next call.
    """
    refusals = tuple(_refusals(facts))
    refused = {effect.number for effect in refusals}
    effects: list[Effect] = [*refusals]
    victims: dict[str, int] = {}
    if wanted := _wanted_models(facts, refused):
        loads = _Loads(facts, effects, victims)
        for model, tickets in wanted:
            loads.add(model, tickets)
    for model in facts.models:
        wanting = _wanting(model, refused)
        if model.state.is_resident:
            effects += _resident_effects(model, wanting, _cutoff(model, victims, facts.now))
        elif _is_load_cancelled(model, wanting):
            effects.append(CancelLoad(model.name))
    return Plan(tuple(effects), math.inf if effects else _wake_at(facts))


def _refusals(facts: PoolFacts) -> Iterator[Refuse]:
    for model in facts.models:
        in_back_off = model.state is ModelState.FAILED and facts.now < model.retry_at
        for ticket in model.waiting:
            if in_back_off:  # 1. the model has just failed and would fail again
                yield Refuse(model.name, ticket.number, Refusal.FAILED)
            elif facts.now >= model.wait_deadline(ticket, facts.wait_timeout_s):  # 2. the ticket has waited too long
                is_held = facts.holds_loads and not model.state.is_resident  # 16
                yield Refuse(model.name, ticket.number, Refusal.LOADS_HELD if is_held else Refusal.TIMED_OUT)
            elif ticket.is_load_only and model.came_before_unload(ticket) and not model.state.is_resident:
                yield Refuse(model.name, ticket.number, Refusal.CANCELLED)  # 9. a later command unloads the model


def _wanting(model: ModelFacts, refused: set[int]) -> list[TicketFacts]:
    """The tickets that want the model now: neither refused by this plan nor only reserved."""
    return [ticket for ticket in model.waiting if ticket.number not in refused and not ticket.is_reserved]


def _wanted_models(facts: PoolFacts, refused: set[int]) -> list[tuple[ModelFacts, list[TicketFacts]]]:
    """The models that are wanted and not in memory, each with its tickets, the one with the oldest ticket first."""
    not_loaded = (m for m in facts.models if m.state.is_out)
    wanted = [(model, tickets) for model in not_loaded if (tickets := _wanting(model, refused))]
    return sorted(wanted, key=lambda pair: pair[1][0].number)


def _is_load_cancelled(model: ModelFacts, wanting: list[TicketFacts]) -> bool:
    """9. The model is loading, a command unloads it, and no ticket from before the command wants to use it."""
    if model.state is not ModelState.LOADING or model.is_unloading or model.unload_number is None:
        return False
    return not any(model.came_before_unload(ticket) for ticket in wanting)


@dataclass(slots=True)
class _Loads:
    """Decides cases 3 to 7 for one wanted model after the other. Used for one plan.

    Attributes:
        effects: what was decided so far; it adds to them.
        victims: maps a resident model to evict to the number of the first ticket that it is evicted for.
        free_bytes: what no model holds now.
        unclaimed_bytes: what no model will hold once the victims are unloaded and the models they are evicted for are
            loaded; negative when that will not be enough.
        has_unmeasured: it is not known yet what a model with an older ticket will take.
    """

    facts: PoolFacts
    effects: list[Effect]
    victims: dict[str, int]
    free_bytes: int = 0
    unclaimed_bytes: int = 0
    has_unmeasured: bool = False

    def __post_init__(self) -> None:
        held_bytes = sum(model.held_bytes for model in self.facts.models)
        self.free_bytes = self.unclaimed_bytes = self.facts.budget_bytes - held_bytes

    def add(self, model: ModelFacts, tickets: list[TicketFacts]) -> None:
        """Decide what is done for a model that these tickets want."""
        if self.facts.holds_loads:  # 16. the machine is short of memory: nothing is loaded, and nothing evicted for it
            return
        need = model.need_bytes
        may_evict = any(ticket.may_evict for ticket in tickets)
        if need is None:  # 3. nothing is evicted for files that may not be there
            self.has_unmeasured = True
            if not model.is_measuring:
                self.effects.append(Measure(model.name))
            return
        if self.has_unmeasured and not may_evict:  # 3. a load that may not evict does not overtake an older one
            return
        if need > self.facts.budget_bytes - self._pinned_bytes():  # 4. it can never fit
            self.effects += [Refuse(model.name, ticket.number, Refusal.TOO_LARGE) for ticket in tickets]
        elif need <= min(self.free_bytes, self.unclaimed_bytes):  # 5. there is room that no older ticket waits for
            self.effects.append(Load(model.name))
            self.free_bytes -= need
            self.unclaimed_bytes -= need
        elif not may_evict:  # 6. there is no room, and nothing is evicted for it
            self.effects += [Refuse(model.name, ticket.number, Refusal.NO_ROOM) for ticket in tickets]
        else:  # 7. others are evicted, and younger tickets do not get the memory they leave
            self._choose_victims(need, tickets[0].number)
            self.unclaimed_bytes -= need

    def _pinned_bytes(self) -> int:
        return sum(model.held_bytes for model in self.facts.models if model.is_pinned)

    def _choose_victims(self, need: int, number: int) -> None:
        """Draining models first, then idle before busy ones, each least recently used first, until there is room."""
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


def _cutoff(model: ModelFacts, victims: dict[str, int], now: float) -> float:
    """Tickets from this number on are not served by this load; infinity = all are, and the model stays."""
    if now >= model.idle_until:  # 10. it was idle for too long
        return 0
    cutoff = math.inf
    if model.name in victims:  # 8. tickets older than the one it is evicted for, or than its load, are served
        cutoff = max(victims[model.name], model.ready_number)
    if model.unload_number is not None:  # 9. a command unloads it
        cutoff = min(cutoff, model.unload_number)
    return cutoff


def _resident_effects(model: ModelFacts, wanting: list[TicketFacts], cutoff: float) -> Iterator[Effect]:
    if model.is_unloading:
        return
    served = [ticket for ticket in wanting if ticket.number < cutoff]
    leaves = cutoff < math.inf and not served
    if leaves and model.state is ModelState.READY:  # 11. no ticket is left that it serves
        yield Drain(model.name)
    elif leaves and model.num_running == 0:  # 12. its last lease is back
        yield Unload(model.name)
    elif not leaves and model.state is ModelState.DRAINING:  # 13. there is no reason left to unload it
        yield Keep(model.name)
    elif not leaves:
        yield from _grants(model, served)


def _grants(model: ModelFacts, served: list[TicketFacts]) -> Iterator[Grant]:
    """14. In order of arrival, as many as there are free places; a load-only ticket takes none."""
    free_places = model.max_running - model.num_running
    for ticket in served:
        if not ticket.is_load_only:
            if free_places <= 0:
                return
            free_places -= 1
        yield Grant(model.name, ticket.number)


def _wake_at(facts: PoolFacts) -> float:
    deadlines = (
        model.wait_deadline(ticket, facts.wait_timeout_s) for model in facts.models for ticket in model.waiting
    )
    return min((*deadlines, *(model.idle_until for model in facts.models)), default=math.inf)
