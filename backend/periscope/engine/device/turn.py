"""The turn at the accelerator: one bounded piece of work at a time, in fair shares between text and captions.

Owns no thread: workers block here on theirs. Knows nothing of models, and no clock but the one it is given.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

DEFAULT_BACKGROUND_SHARE = 0.25
#: A waiting thread is not woken to set its timer anew for less than this.
_TIMER_SLACK_S = 0.001


@dataclass(frozen=True, slots=True)
class View:
    """All that a decision rests on.

    Attributes:
        waiting: `is_background` of each that waits for the turn, the longest first.
        holder: `is_background` of the one that has the turn; None = it is free.
        has_active_foreground: a foreground participant waits, holds the turn, or is between two pieces of work.
        owed_s: device time that the foreground gets before the next background turn; below zero, the background's
            credit: foreground time that it has waited through beyond what was owed.
    """

    waiting: tuple[bool, ...]
    holder: bool | None
    has_active_foreground: bool
    owed_s: float


def owed_after(view: View, elapsed_s: float, background_share: float) -> float:
    """Pure: `owed_s` when things have stood as in the view for `elapsed_s`."""
    if not view.has_active_foreground:  # 1. what is owed is void when nobody is there to use it
        return 0.0
    if view.holder is True:  # 2. background work is paid for afterwards: its length is not known before
        return view.owed_s + elapsed_s * (1 - background_share) / background_share
    left_s = view.owed_s - elapsed_s  # 3. the foreground's work, or the free device kept for it: it had its chance
    return left_s if any(view.waiting) else max(left_s, 0.0)  # 4. a background that does not wait saves nothing up


def next_turn(view: View) -> int | None:
    """Pure: which of those who wait takes the turn now; None = nobody may."""
    if view.holder is not None:
        return None
    foreground, background = (view.waiting.index(kind) if kind in view.waiting else None for kind in (False, True))
    if background is not None and (not view.has_active_foreground or view.owed_s <= 0):
        return background
    return foreground


class DeviceTurn:
    """Owned by the process's composition root and shared by all workers, which `join` it.

    A worker takes the turn around one decode step, one prefill chunk, one image or one slice of a load. Among equals
    the first to come is the first served. While foreground work (text) is there, background work (captions, loads)
    gets `background_share` of the time, and all of it otherwise. Nothing is saved up: not by those who are idle, and
    a foreground that does not come for what it is owed loses it second by second, so none that hangs stops the rest.

    A plain `threading.Lock` is not fair at all, and first come, first served would give an image of one second as
    many turns as a decode step of 20 ms.
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
        """A worker's own handle: background = it makes way for those that are not."""
        return Participant(self, name, is_background=is_background)

    @contextmanager
    def held(self, *, is_background: bool = True) -> Iterator[None]:
        """Block until it is this thread's turn; give it on at exit.

        Without a handle this is for one-off pieces such as the slices of a load, which should not stall decoding.
        """
        ticket = _Ticket(self._lock, is_background=is_background)
        try:
            self._acquire(ticket)
            yield
        finally:
            self._release(ticket)

    def _acquire(self, mine: _Ticket) -> None:
        with self._lock:
            self._settle()
            self._waiting.append(mine)
            self._grant()
            while self._holder is not mine:
                # What is owed runs out without anybody's doing; of all else that helps this thread is told.
                is_timed = mine.is_background and self._owed_s > 0
                mine.looks_at = self._settled_at + self._owed_s if is_timed else math.inf
                mine.woken.wait(self._owed_s if is_timed else None)
                self._settle()
                self._grant()

    def _release(self, mine: _Ticket) -> None:
        """Also for a wait that an exception ended."""
        with self._lock:
            self._settle()
            if self._holder is mine:
                self._holder = None
            elif mine in self._waiting:
                self._waiting.remove(mine)
            self._grant()

    def _set_active(self, participant: Participant, *, is_active: bool) -> None:
        """Only foreground participants: a background one counts while it waits."""
        with self._lock:
            self._settle()
            if is_active:
                self._active.add(participant)
            else:
                self._active.discard(participant)
            self._grant()

    def _settle(self) -> None:
        """Charge the time since the last change. Before every change, under the lock."""
        now = self._clock()
        self._owed_s = owed_after(self._view(), now - self._settled_at, self.background_share)
        self._settled_at = now

    def _grant(self) -> None:
        """Hand a free turn to whoever is next. After every change, under the lock."""
        chosen = next_turn(self._view())
        if chosen is not None:
            self._holder = self._waiting.pop(chosen)
            self._holder.woken.notify()
        elif self._holder is None and self._waiting:  # the device is kept for the foreground, for `_owed_s` at most
            first = self._waiting[0]
            if first.looks_at > self._settled_at + self._owed_s + _TIMER_SLACK_S:
                first.woken.notify()

    def _view(self) -> View:
        waiting = tuple(ticket.is_background for ticket in self._waiting)
        holder = self._holder.is_background if self._holder else None
        return View(waiting, holder, bool(self._active) or holder is False or False in waiting, self._owed_s)


class Participant:
    """One worker's handle at the turn. Get it from `DeviceTurn.join`; used by that worker's thread."""

    def __init__(self, turn: DeviceTurn, name: str, *, is_background: bool) -> None:
        self.name = name
        self.is_background = is_background
        self._turn = turn
        self._is_active = False

    def __repr__(self) -> str:
        return f"<Participant {self.name} background={self.is_background} active={self._is_active}>"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Block until it is this participant's turn; give it on at exit. Around one bounded piece of work."""
        with self._turn.held(is_background=self.is_background):
            yield

    @property
    def is_active(self) -> bool:
        """It has more to do than the piece it holds or waits with: rows to decode. Cheap to set again and again."""
        return self._is_active

    @is_active.setter
    def is_active(self, is_active: bool) -> None:
        if is_active == self._is_active:
            return
        self._is_active = is_active
        if not self.is_background:
            self._turn._set_active(self, is_active=is_active)  # noqa: SLF001 - the handle is part of the turn

    def leave(self) -> None:
        """Idempotent. The worker has ended: nothing is kept for it any more."""
        self.is_active = False


class _Ticket:
    """One wait for the turn. Guarded by the turn's lock.

    Attributes:
        looks_at: when its thread looks by itself whether it may go.
    """

    def __init__(self, lock: threading.Lock, *, is_background: bool) -> None:
        self.is_background = is_background
        self.looks_at = math.inf
        self.woken = threading.Condition(lock)
