"""The effects that a plan consists of. Frozen data; the executor carries them out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class Refusal(StrEnum):
    """Why a ticket is refused."""

    TIMED_OUT = "timed out"
    FAILED = "failed"
    TOO_LARGE = "too large"
    NO_ROOM = "no room"
    CANCELLED = "cancelled"
    LOADS_HELD = "loads held"


@dataclass(frozen=True, slots=True)
class Grant:
    """Give the ticket its lease, or tell a load-only ticket that the model is loaded."""

    model: str
    number: int


@dataclass(frozen=True, slots=True)
class Refuse:
    """Give the ticket an error."""

    model: str
    number: int
    reason: Refusal


@dataclass(frozen=True, slots=True)
class Measure:
    """Read the headers of the model's files: are they all there, and how much memory will they take?"""

    model: str


@dataclass(frozen=True, slots=True)
class Load:
    """Start to load; the model's bytes are reserved from now on."""

    model: str


@dataclass(frozen=True, slots=True)
class CancelLoad:
    """Stop loading: no request that may still be served waits for it."""

    model: str


@dataclass(frozen=True, slots=True)
class Drain:
    """Grant no new leases; the model is unloaded after the last one."""

    model: str


@dataclass(frozen=True, slots=True)
class Keep:
    """Do not unload a draining model after all."""

    model: str


@dataclass(frozen=True, slots=True)
class Unload:
    """Free the model now: no request uses it."""

    model: str


Effect: TypeAlias = Grant | Refuse | Measure | Load | CancelLoad | Drain | Keep | Unload


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in this order, and when to plan again if nothing happens (infinity = never)."""

    effects: tuple[Effect, ...]
    wake_at: float
