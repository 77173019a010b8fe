"""plan(): one test or more for each numbered case."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import ModelState
from periscope.pool.effects import CancelLoad, Drain, Effect, Grant, Keep, Load, Measure, Plan, Refusal, Refuse, Unload
from periscope.pool.facts import ModelFacts, PoolFacts, TicketFacts
from periscope.pool.planner import plan

READY, UNLOADED, FAILED = ModelState.READY, ModelState.UNLOADED, ModelState.FAILED
LOADING, DRAINING = ModelState.LOADING, ModelState.DRAINING


def planned(*models: ModelFacts, budget: int = 100, now: float = 100.0) -> Plan:
    return plan(PoolFacts(models, budget, wait_timeout_s=30.0, now=now))


def effects(*models: ModelFacts, budget: int = 100, now: float = 100.0) -> tuple[Effect, ...]:
    return planned(*models, budget=budget, now=now).effects


def ticket(
    number: int,
    *,
    waits_since: float = 99.0,
    is_load_only: bool = False,
    may_evict: bool = True,
    is_reserved: bool = False,
) -> TicketFacts:
    return TicketFacts(number, waits_since, is_load_only, may_evict, is_reserved)


def ready(name: str, *, held: int = 60, used_at: float = 0.0, **more: object) -> ModelFacts:
    return ModelFacts(name, READY, held_bytes=held, used_at=used_at, **more)  # type: ignore[arg-type]


def wanted(name: str, number: int, *, need: int | None = 60, state: ModelState = UNLOADED) -> ModelFacts:
    return ModelFacts(name, state, (ticket(number),), need_bytes=need)


def test_1_a_model_in_its_back_off_refuses() -> None:
    """A request for a model that has just failed is refused during the back-off, and not after it."""
    model = ModelFacts("m", FAILED, (ticket(1),), need_bytes=10, retry_at=101.0)
    assert effects(model) == (Refuse("m", 1, Refusal.FAILED),)
    assert effects(model, now=101.0) == (Load("m"),)


@pytest.mark.parametrize("state", [UNLOADED, READY, DRAINING])
def test_2_a_wait_has_an_end(state: ModelState) -> None:
    """At the timeout, not before it, a ticket is refused, whatever it waits for."""
    models = (ModelFacts("m", state, (ticket(1, waits_since=70.0),), held_bytes=1, num_running=1, is_measuring=True),)
    assert effects(*models)[0] == Refuse("m", 1, Refusal.TIMED_OUT)
    before = planned(*models, now=99.9)
    assert Refuse("m", 1, Refusal.TIMED_OUT) not in before.effects


def test_2_the_load_of_its_own_model_does_not_count_as_waiting() -> None:
    """The time of a load does not count, and after the load the whole wait starts again."""
    loading = ModelFacts("m", LOADING, (ticket(1, waits_since=0.0),), held_bytes=60)
    assert planned(loading) == Plan((), math.inf)
    full = ready("m", waiting=(ticket(1, waits_since=0.0),), ready_at=95.0, num_running=1)
    assert planned(full) == Plan((), 125.0)


def test_2_a_load_only_ticket_has_no_timeout() -> None:
    """A load by command waits as long as it takes."""
    waiting = (ticket(1, waits_since=0.0, is_load_only=True),)
    assert effects(ModelFacts("m", UNLOADED, waiting, is_measuring=True)) == ()


def test_3_a_model_is_measured_before_others_are_evicted() -> None:
    """An unmeasured model evicts none, and is measured once."""
    other = ready("other", held=100)
    assert effects(other, wanted("m", 1, need=None)) == (Measure("m"),)
    assert effects(other, ModelFacts("m", UNLOADED, (ticket(1),), is_measuring=True)) == ()


def test_3_a_load_that_may_not_evict_does_not_overtake_an_older_one() -> None:
    """Of two models loaded at start that do not fit together, the first is loaded, however fast files are read."""
    at_start = (ticket(2, is_load_only=True, may_evict=False),)
    first, second = wanted("a", 1, need=None), ModelFacts("b", UNLOADED, at_start, need_bytes=60)
    assert effects(first, second) == (Measure("a"),)
    assert effects(replace(first, need_bytes=30), second) == (Load("a"), Load("b"))


@pytest.mark.parametrize("pinned_bytes", [0, 50])
def test_4_a_model_that_can_never_fit_is_refused(pinned_bytes: int) -> None:
    """A model larger than the budget, or than what pinned models leave of it, is refused and evicts none."""
    pinned = ready("pinned", held=pinned_bytes, is_pinned=True)
    model = wanted("m", 1, need=101 - pinned_bytes)
    assert effects(pinned, ready("other", held=10), model) == (Refuse("m", 1, Refusal.TOO_LARGE),)


def test_5_a_model_that_fits_is_loaded() -> None:
    """Two models that fit together are loaded at the same time, the one that was requested first before the other."""
    assert effects(wanted("a", 2, need=40), wanted("b", 1, need=60)) == (Load("b"), Load("a"))


def test_6_a_load_that_may_not_evict_is_refused() -> None:
    """A load at start does not evict a model that was loaded before it; a request's load does."""
    waiting = (ticket(1, is_load_only=True, may_evict=False),)
    model = ModelFacts("m", UNLOADED, waiting, need_bytes=60)
    assert effects(ready("other"), model) == (Refuse("m", 1, Refusal.NO_ROOM),)
    asked = ModelFacts("m", UNLOADED, (*waiting, ticket(2)), need_bytes=60)
    assert effects(ready("other"), asked) == (Drain("other"),)


def test_7_the_least_recently_used_idle_model_is_evicted_first() -> None:
    """Idle models before busy ones, then by last use, and no more than necessary."""
    old, new = ready("old", held=30, used_at=1.0), ready("new", held=30, used_at=2.0)
    busy = ready("busy", held=30, used_at=0.0, num_running=1)
    assert effects(new, busy, old, wanted("m", 9, need=40)) == (Drain("old"),)
    assert effects(new, busy, old, wanted("m", 9, need=70)) == (Drain("new"), Drain("old"))
    drained = set(effects(new, busy, old, wanted("m", 9, need=100)))
    assert drained == {Drain("new"), Drain("old"), Drain("busy")}


def test_7_pinned_and_loading_models_stay() -> None:
    """A pinned model is never evicted, and one that loads is waited for."""
    pinned = ready("pinned", held=30, is_pinned=True)
    loading = ModelFacts("loading", LOADING, held_bytes=40)
    assert effects(pinned, loading, wanted("m", 9, need=60)) == ()


def test_7_room_made_for_an_older_ticket_is_not_taken_by_a_younger() -> None:
    """A small model does not take memory that a large one waits for, but is loaded if it fits beside it."""
    busy, large = ready("busy", held=70, num_running=1), wanted("large", 1, need=80)
    assert effects(busy, large, wanted("small", 2, need=21)) == (Drain("busy"),)
    assert effects(busy, large, wanted("small", 2, need=20)) == (Load("small"), Drain("busy"))
    fuller = ready("busy", held=90, num_running=1)
    assert effects(fuller, large, wanted("small", 2, need=20)) == (Drain("busy"),)


def test_8_a_draining_model_serves_older_tickets() -> None:
    """A busy model serves the tickets older than the one that it is evicted for, and no younger ones."""
    busy = ready("busy", held=70, waiting=(ticket(3), ticket(5)), num_running=1, max_running=3)
    assert effects(busy, wanted("m", 4)) == (Grant("busy", 3),)


def test_8_tickets_that_waited_for_the_load_are_served_by_it() -> None:
    """All tickets from before a model became ready are served by this load, so that one switch serves many."""
    loaded = ready("loaded", held=70, waiting=(ticket(5), ticket(7)), max_running=9, ready_number=6)
    assert effects(loaded, wanted("m", 4)) == (Grant("loaded", 5),)


def test_9_a_model_that_a_command_unloads_serves_earlier_tickets() -> None:
    """A command to unload refuses no earlier ticket, and no later one is granted."""
    model = ready("m", waiting=(ticket(1), ticket(3)), max_running=9, unload_number=2)
    assert effects(model) == (Grant("m", 1),)
    assert effects(ready("m", waiting=(ticket(3),), unload_number=2, num_running=1)) == (Drain("m"),)


@pytest.mark.parametrize("state", [UNLOADED, FAILED, LOADING])
def test_9_a_load_by_command_is_cancelled_by_a_later_command(state: ModelState) -> None:
    """A load-only ticket is refused however far its load is, and a load for no other ticket ends."""
    waiting = (ticket(1, is_load_only=True), ticket(3, is_load_only=True))
    model = ModelFacts("m", state, waiting, held_bytes=60, is_measuring=True, unload_number=2)
    given_up = (CancelLoad("m"),) if state is LOADING else ()
    assert effects(model) == (Refuse("m", 1, Refusal.CANCELLED), *given_up)


def test_9_a_load_goes_on_for_earlier_requests() -> None:
    """A request from before the command is still served; a load is cancelled once."""
    loading = ModelFacts("m", LOADING, (ticket(1),), held_bytes=60, unload_number=2)
    assert effects(loading) == ()
    assert effects(replace(loading, waiting=())) == (CancelLoad("m"),)
    assert effects(replace(loading, waiting=(), is_unloading=True)) == ()
    assert effects(replace(loading, waiting=(ticket(1, is_reserved=True),))) == (CancelLoad("m"),)


def test_10_an_idle_model_is_unloaded_at_its_ttl() -> None:
    """It is unloaded at used_at + ttl, not before, and the plan says when to plan again."""
    model = ready("m", used_at=90.0, ttl_s=15.0)
    assert planned(model) == Plan((), 105.0)
    assert effects(model, now=105.0) == (Drain("m"),)
    draining = ModelFacts("m", DRAINING, held_bytes=60, used_at=90.0, ttl_s=15.0)
    assert effects(draining, now=105.0) == (Unload("m"),)


@pytest.mark.parametrize("kept_by", [{"num_running": 1}, {"is_pinned": True}, {"ttl_s": None}])
def test_10_work_pins_and_no_ttl_keep_a_model(kept_by: dict[str, object]) -> None:
    """A model that is in use, pinned or without a ttl is never unloaded for idleness."""
    model = replace(ready("m", ttl_s=15.0), **kept_by)  # type: ignore[arg-type]
    assert planned(model, now=1e9) == Plan((), math.inf)


def test_12_a_draining_model_is_unloaded_after_its_last_lease() -> None:
    """A draining model is freed when no request uses it, and only once."""
    draining = {"held_bytes": 70, "unload_number": 1}
    assert effects(ModelFacts("m", DRAINING, num_running=1, **draining)) == ()  # type: ignore[arg-type]
    assert effects(ModelFacts("m", DRAINING, **draining)) == (Unload("m"),)  # type: ignore[arg-type]
    assert effects(ModelFacts("m", DRAINING, is_unloading=True, **draining)) == ()  # type: ignore[arg-type]


def test_13_a_draining_model_whose_memory_is_not_wanted_stays() -> None:
    """When the ticket that it drains for has left, a draining model is kept and serves again."""
    draining = ModelFacts("m", DRAINING, (ticket(7),), held_bytes=70, num_running=1, max_running=2)
    assert effects(draining) == (Keep("m"),)
    assert effects(draining, wanted("other", 6)) == ()


def test_14_leases_are_granted_in_order() -> None:
    """As many leases as there are places go to the oldest tickets; a load-only ticket takes none."""
    waiting = (ticket(1), ticket(2, is_load_only=True), ticket(3), ticket(4))
    assert effects(ready("m", waiting=waiting, max_running=3, num_running=1)) == tuple(Grant("m", n) for n in (1, 2, 3))


RESERVED = (ticket(1, waits_since=0.0, is_reserved=True),)


@pytest.mark.parametrize("state", [UNLOADED, FAILED, READY, DRAINING])
def test_15_nothing_is_done_for_a_reserved_place_and_its_wait_has_no_end(state: ModelState) -> None:
    """No model is measured, loaded, kept or evicted for it, and its time does not count as waiting."""
    model = ModelFacts(
        "m", state, RESERVED, held_bytes=60 if state.is_resident else 0, num_running=1, is_unloading=True
    )
    assert planned(ready("other", held=30), model) == Plan((), math.inf)


def test_15_a_reserved_place_is_passed_over_and_keeps_its_order() -> None:
    """Waiting tickets are granted before it; of those that wait, the oldest is first."""
    ready_ones = ready("m", waiting=(*RESERVED, ticket(2), ticket(3)), max_running=2)
    assert effects(ready_ones) == (Grant("m", 2), Grant("m", 3))
    came_back = replace(ready_ones, waiting=(ticket(1), ticket(2), ticket(3)))
    assert effects(came_back) == (Grant("m", 1), Grant("m", 2))


def test_15_a_model_with_only_reserved_places_may_be_evicted() -> None:
    """Memory for one model is enough for a request that needs two; idle models are evicted before it."""
    text = ready("text", held=60, waiting=RESERVED)
    assert effects(text, wanted("captioner", 2)) == (Drain("text"),)
    idle = ready("idle", held=40, used_at=50.0)
    assert effects(text, idle, wanted("captioner", 2, need=40)) == (Drain("idle"),)
    draining = ModelFacts("text", DRAINING, RESERVED, held_bytes=60)
    assert effects(draining, wanted("captioner", 2)) == (Unload("text"),)


def test_15_a_model_with_a_reserved_place_is_not_idle() -> None:
    """A model that will soon be wanted is not unloaded for idleness."""
    assert planned(ready("m", waiting=RESERVED, ttl_s=15.0), now=1e9) == Plan((), math.inf)


def test_15_a_draining_model_serves_a_reserved_place_that_is_older() -> None:
    """A draining model serves places older than the ticket that it is evicted for, whenever they begin to wait."""
    text = ready("text", held=70, waiting=RESERVED, num_running=1, max_running=2)
    captioner = wanted("captioner", 2)
    assert effects(text, captioner) == (Drain("text"),)
    draining = replace(text, state=DRAINING, waiting=(ticket(1),))
    assert effects(draining, captioner) == (Keep("text"),)
    assert effects(replace(draining, state=READY), captioner) == (Grant("text", 1),)


def test_15_a_model_in_its_back_off_refuses_reserved_places_too() -> None:
    """No images are captioned for a model that has just failed."""
    model = ModelFacts("m", FAILED, RESERVED, retry_at=101.0)
    assert effects(model) == (Refuse("m", 1, Refusal.FAILED),)


#: A model that nobody waits for.
others = st.builds(
    ModelFacts,
    st.just("other"),
    st.sampled_from(ModelState),
    need_bytes=st.none() | st.integers(0, 200),
    held_bytes=st.integers(0, 100),
    is_unloading=st.booleans(),
    is_pinned=st.booleans(),
    num_running=st.integers(0, 1),
    unload_number=st.none() | st.integers(0, 9),
    used_at=st.floats(0, 100),
    ttl_s=st.none() | st.floats(0, 200),
    retry_at=st.floats(0, 200),
)
tickets = st.builds(
    ticket,
    st.integers(0, 9),
    waits_since=st.floats(0, 100),
    is_load_only=st.booleans(),
    may_evict=st.booleans(),
    is_reserved=st.booleans(),
)
in_memory = st.builds(
    ModelFacts,
    st.just("m"),
    st.sampled_from([READY, DRAINING]),
    st.lists(tickets, max_size=3, unique_by=lambda each: each.number).map(tuple),
    held_bytes=st.integers(0, 100),
    is_unloading=st.booleans(),
    is_pinned=st.booleans(),
    num_running=st.integers(0, 2),
    max_running=st.integers(1, 2),
    unload_number=st.none() | st.integers(0, 9),
    used_at=st.floats(0, 100),
    ttl_s=st.none() | st.floats(0, 200),
)


@given(in_memory, others)
def test_while_nobody_waits_for_others_a_model_is_planned_alone(model: ModelFacts, other: ModelFacts) -> None:
    """So the executor asks for no plan of all models when a request comes to one that is in memory, or leaves it."""
    whole, alone, rest = planned(model, other), planned(model), planned(other)
    assert whole.effects == (*alone.effects, *rest.effects)
    if not whole.effects:
        assert whole.wake_at == min(alone.wake_at, rest.wake_at)
