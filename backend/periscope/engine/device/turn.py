"""DeviceTurn: one bounded piece of work at a time on the device, in fair shares between text and captions.

Owns no thread: workers block here on their own threads. Knows nothing of models, and only the clock that it is given.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

DEFAULT_BACKGROUND_SHARE = 0.15
#: A waiting thread is not woken to restart its timer if it would wake less than this earlier.
_TIMER_SLACK_S = 0.001


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision depends on.

    Attributes:
        waiting: `is_background` of each waiting thread, the longest waiting first.
        holder: `is_background` of the thread that has the turn; None = the turn is free.
        has_active_foreground: a foreground participant waits, has the turn, or is between two pieces of work.
        owed_s: device time that the foreground gets before the next background turn. Below zero it is the background's
            credit: foreground time that it waited through beyond what was owed.
    """

    waiting: tuple[bool, ...]
    holder: bool | None
    has_active_foreground: bool
    owed_s: float


def owed_after(view: View, elapsed_s: float, background_share: float) -> float:
    """Pure: the new `owed_s`, when the view has been unchanged for `elapsed_s`."""
    if not view.has_active_foreground:  # 1. a debt to an absent foreground is void
        return 0.0
    if view.holder is True:  # 2. background work is charged afterwards, because its duration is not known before
        return view.owed_s + elapsed_s * (1 - background_share) / background_share
    left_s = view.owed_s - elapsed_s  # 3. foreground work, or the free device kept for it, pays the debt off
    return left_s if any(view.waiting) else max(left_s, 0.0)  # 4. credit is only for a background that waits


def next_turn(view: View) -> int | None:
    """Pure: the index of the waiting thread that takes the turn now; None = none may."""
    if view.holder is not None:
        return None
    foreground, background = (view.waiting.index(kind) if kind in view.waiting else None for kind in (False, True))
    if background is not None and (not view.has_active_foreground or view.owed_s <= 0):
        return background
    return foreground


class DeviceTurn:
    """Owned by the process's composition root and shared by all workers, which `join` it. Safe from any thread.

    A worker takes the turn around one decode step, one prefill chunk, one image or one slice of a load. Within a class
    turns are given in order of arrival. While there is foreground work (text), background work (captions, loads) gets
    `background_share` of the time, and all of it otherwise. Nothing is saved up: idle participants gain nothing, and a
    foreground that does not use the time it is owed loses it second by second, so one that hangs does not block the
    rest.

    A plain `threading.Lock` is not fair, and pure order of arrival would give an image of one second as many turns as
    a decode step of 20 ms.
    """

    def __init__(
        self, background_share: float = DEFAULT_BACKGROUND_SHARE, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if not 0 < background_share < 1:
            raise ValueError(f"background_share must be between 0 and 1, got {background_share}")
        self.background_share = background_share
        self._clock = clock
        self._lock = threading.Lock()
        self._holder: _Ticket | None = None
        self._waiting: list[_Ticket] = []
        self._active: set[Participant] = set()
        self._owed_s = 0.0
        self._settled_at = clock()

    def __repr__(self) -> str:
        return f"<DeviceTurn taken={self._holder is not None} waiting={len(self._waiting)} owed_s={self._owed_s:.3f}>"

    def join(self, name: str, *, is_background: bool) -> Participant:
        """A handle for one worker. A background worker gives way to foreground ones."""
        return Participant(self, name, is_background=is_background)

    @property
    def is_taken(self) -> bool:
        """Whether a thread has the turn now."""
        return self._holder is not None

    def acquire(self, *, is_background: bool = True) -> AbstractContextManager[None]:
        """Block until it is this thread's turn; release it at exit.

        For work without a `Participant`, such as the slices of a load, which should not stall decoding.
        """
        return _Ticket(self, is_background=is_background)

    def _take(self, mine: _Ticket) -> None:
        with self._lock:
            if self._holder is None and not self._waiting and self._active and not mine.is_background:
                self._holder = mine  # nobody is in the way, and what is owed is paid off as before
                return
            self._wait(mine)

    def _wait(self, mine: _Ticket) -> None:
        woken = mine.woken = threading.Condition(self._lock)
        self._settle()
        self._waiting.append(mine)
        try:
            self._grant()
            while self._holder is not mine:
                # A debt runs out with time alone, so the wait is timed; every other change notifies this thread.
                is_timed = mine.is_background and self._owed_s > 0
                mine.wakes_at = self._settled_at + self._owed_s if is_timed else math.inf
                woken.wait(self._owed_s if is_timed else None)
                self._settle()
                self._grant()
        except BaseException:
            self._give_up(mine)
            raise

    def _release(self, mine: _Ticket) -> None:
        """Give the turn back."""
        with self._lock:
            if self._waiting or mine.is_background:
                self._give_up(mine)
            else:
                self._holder = None

    def _give_up(self, mine: _Ticket) -> None:
        """Have the turn no more, or stop waiting for it. Called with the lock held."""
        self._settle()
        if self._holder is mine:
            self._holder = None
        elif mine in self._waiting:
            self._waiting.remove(mine)
        self._grant()

    def _set_active(self, participant: Participant, *, is_active: bool) -> None:
        """Note that a foreground participant has, or no longer has, work between two turns."""
        with self._lock:
            self._settle()
            if is_active:
                self._active.add(participant)
            else:
                self._active.discard(participant)
            self._grant()

    def _settle(self) -> None:
        """Charge the time since the last change. Called before every change, with the lock held."""
        now = self._clock()
        self._owed_s = owed_after(self._view(), now - self._settled_at, self.background_share)
        self._settled_at = now

    def _grant(self) -> None:
        """Grant a free turn to the next waiting thread. Called after every change, with the lock held."""
        chosen = next_turn(self._view())
        if chosen is not None:
            self._holder = self._waiting.pop(chosen)
            self._holder.wake()
        elif self._holder is None and self._waiting:  # the device is kept for the foreground, for `_owed_s` at most
            first = self._waiting[0]
            if first.wakes_at > self._settled_at + self._owed_s + _TIMER_SLACK_S:
                first.wake()

    def _view(self) -> View:
        waiting = tuple(ticket.is_background for ticket in self._waiting)
        holder = self._holder.is_background if self._holder else None
        return View(waiting, holder, bool(self._active) or holder is False or False in waiting, self._owed_s)


class Participant:
    """One worker's handle to the turn, from `DeviceTurn.join`. Used by that worker's thread only."""

    def __init__(self, turn: DeviceTurn, name: str, *, is_background: bool) -> None:
        self.name = name
        self.is_background = is_background
        self._turn = turn
        self._is_active = False

    def __repr__(self) -> str:
        return f"<Participant {self.name} background={self.is_background} active={self._is_active}>"

    def acquire(self) -> AbstractContextManager[None]:
        """Block until it is this participant's turn; release it at exit. Wrap one bounded piece of work."""
        return self._turn.acquire(is_background=self.is_background)

    @property
    def is_taken(self) -> bool:
        """Whether `acquire` would wait now."""
        return self._turn.is_taken

    @property
    def is_active(self) -> bool:
        """Whether it has further work after the current piece, such as rows to decode. Cheap to set repeatedly."""
        return self._is_active

    @is_active.setter
    def is_active(self, is_active: bool) -> None:
        if is_active == self._is_active:
            return
        self._is_active = is_active
        if not self.is_background:
            self._turn._set_active(self, is_active=is_active)  # noqa: SLF001 - the handle is part of the turn

    def leave(self) -> None:
        """Note that the worker has ended, so that no device time is kept for it. Idempotent."""
        self.is_active = False


class _Ticket(AbstractContextManager[None]):
    """One thread's turn, and its wait for it. Guarded by the turn's lock.

    Attributes:
        woken: notified when the thread may go; None = it has not had to wait.
        wakes_at: clock time at which its thread wakes by itself to check whether it may go; infinity = never.
    """

    __slots__ = ("_turn", "is_background", "wakes_at", "woken")

    def __init__(self, turn: DeviceTurn, *, is_background: bool) -> None:
        self._turn = turn
        self.is_background = is_background
        self.wakes_at = math.inf
        self.woken: threading.Condition | None = None

    def wake(self) -> None:
        """Have its thread look whether it may go. Called with the lock held."""
        if self.woken is not None:
            self.woken.notify()

    def __enter__(self) -> None:
        self._turn._take(self)  # noqa: SLF001 - the ticket is part of the turn

    def __exit__(self, *_: object) -> None:
        self._turn._release(self)  # noqa: SLF001
