"""Loads that fail, models that can never fit, and workers that die."""

from __future__ import annotations

import pytest

from periscope.core import ModelState
from periscope.errors import ModelLoadError, ModelUnavailable
from periscope.events import ModelGivenUp
from periscope.pool.back_off import FIRST_BACK_OFF_S, LASTING_S, MAX_DEATHS
from tests.pool.fakes import FakeEngine, FakeModel, World, states_of, until, with_world


@pytest.mark.parametrize("where", ["measure", "load"])
def test_a_failed_load_is_reported_and_not_tried_again_at_once(where: str) -> None:
    """Waiting requests get the reason, and so does the next one within the back-off, without a new load."""
    error = ModelLoadError("no such weights.")
    model = FakeModel(
        "m", measure_error=error if where == "measure" else None, load_error=error if where == "load" else None
    )

    async def use(world: World) -> None:
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match="no such weights"):
                async with world.pool.lease("m", FakeEngine):
                    pass
        assert (world.pool.status("m").state, model.num_measures) == (ModelState.FAILED, 1)
        assert world.pool.status("m").held_bytes == 0
        world.timers.advance(FIRST_BACK_OFF_S)
        model.measure_error = model.load_error = None
        async with world.pool.lease("m", FakeEngine):
            assert world.pool.status("m").error is None

    with_world([model], use)


def test_a_model_with_unusable_files_evicts_no_other() -> None:
    """A model whose files are broken fails before another one is unloaded for it."""
    models = [FakeModel("good"), FakeModel("broken", measure_error=ModelLoadError("half a file."))]

    async def use(world: World) -> None:
        await world.pool.load("good")
        with pytest.raises(ModelUnavailable, match="half a file"):
            await world.pool.load("broken")
        assert world.pool.status("good").state is ModelState.READY

    with_world(models, use, budget_bytes=150)


def test_a_model_that_never_fits_is_refused_with_both_numbers() -> None:
    """The error names the bytes that the model takes and those that there are, and the model's status keeps it."""

    async def use(world: World) -> None:
        with pytest.raises(ModelUnavailable, match=r"3\.0 GB.*2\.0 GB"):
            await world.pool.load("m")
        assert world.pool.status("m").state is ModelState.FAILED

    with_world([FakeModel("m", weights_bytes=3_000_000_000)], use, budget_bytes=2_000_000_000)


def test_an_unforeseen_error_of_a_load_is_one_sentence() -> None:
    """An unexpected exception in a loader fails the model like any other, and the request gets its type."""

    async def use(world: World) -> None:
        with pytest.raises(ModelUnavailable, match="ValueError: something odd"):
            await world.pool.load("m")

    with_world([FakeModel("m", load_error=ValueError("something odd"))], use)


def test_a_load_in_the_back_off_is_refused_at_once() -> None:
    """A caller that does not wait for the load gets the error, too."""
    model = FakeModel("m", load_error=ModelLoadError("no such weights."))

    async def use(world: World) -> None:
        with pytest.raises(ModelUnavailable):
            await world.pool.load("m")
        with pytest.raises(ModelUnavailable, match="no such weights"):
            world.pool.start_load("m")
        assert world.pool.status("m").num_waiting == 0

    with_world([model], use)


def test_a_model_whose_worker_died_is_failed_and_loaded_again() -> None:
    """The model is not reported as ready, and after a first death it is loaded again without a request."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        await world.pool.load("m")
        model.engines[0].kill()
        await until(lambda: "failed" in states_of(world, "m"))
        assert world.pool.loaded("m", FakeEngine) is None
        world.timers.advance(0.0)
        await until(lambda: world.pool.status("m").state is ModelState.READY)
        assert model.num_loads == 2

    with_world([model], use)


@pytest.mark.parametrize(
    ("lives_s", "is_isolated", "is_given_up"), [(1.0, False, True), (LASTING_S, False, False), (1.0, True, False)]
)
def test_a_model_whose_workers_die_again_and_again_is_given_up(
    lives_s: float, is_isolated: bool, is_given_up: bool
) -> None:
    """Three short lives in a row end the process; a death a day does not, and neither does an isolated model."""
    model = FakeModel("m", is_isolated=is_isolated)

    async def use(world: World) -> None:
        for num_deaths in range(1, MAX_DEATHS + 1):
            await world.pool.load("m")
            world.timers.advance(lives_s)
            model.engines[-1].kill()
            await until(lambda: world.pool.status("m").state is ModelState.FAILED)
            assert (ModelGivenUp("m") in world.events) == (is_given_up and num_deaths == MAX_DEATHS)
            world.timers.advance(world.pool.status("m").retry_in_s or 0.0)

    with_world([model], use)
