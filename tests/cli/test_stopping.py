"""Signals become events, and none is lost on the way."""

from __future__ import annotations

import asyncio
import signal
import weakref
from collections.abc import Iterator

import pytest

from periscope.cli.exits import ExitCode
from periscope.cli.stopping import exit_on_sigterm, stop_on_signals


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Module:
    """Of such are weak references, whose callbacks Python runs between any two lines of an import."""


def never(_seconds: float, _code: int) -> None:
    """The last deadline would end the tests."""


async def is_asked_to_stop() -> bool:
    with stop_on_signals(asyncio.get_running_loop(), never) as stop:
        return stop.asked.is_set()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sigterm_whose_exception_is_lost_stops_the_server_all_the_same() -> None:
    """It comes while a callback of the import machinery runs, which drops whatever is raised in it."""
    with exit_on_sigterm():
        module = Module()
        watch = weakref.ref(module, lambda _: signal.raise_signal(signal.SIGTERM))
        del module
        assert watch() is None
        assert asyncio.run(is_asked_to_stop())


def test_a_sigterm_that_an_import_makes_an_error_of_is_a_clean_end() -> None:
    """As a server that ends with another code is started again by launchd."""

    @exit_on_sigterm()
    def start() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except SystemExit:
            raise ImportError("a library is broken") from None

    with pytest.raises(SystemExit) as end:
        start()
    assert end.value.code == ExitCode.OK


def test_an_error_without_a_sigterm_stays_one() -> None:
    """The wrapper takes nothing else away."""
    with pytest.raises(ImportError, match="broken"), exit_on_sigterm():
        raise ImportError("a library is broken")


def test_a_second_sigterm_does_not_spoil_the_exit_code_of_a_server_that_has_stopped() -> None:
    """A load that MLX cannot break off may hold the process up after its event loop has ended."""

    async def stopped() -> None:
        with stop_on_signals(asyncio.get_running_loop(), never) as stop:
            signal.raise_signal(signal.SIGTERM)
            await stop.asked.wait()

    asyncio.run(stopped())
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGHUP)
