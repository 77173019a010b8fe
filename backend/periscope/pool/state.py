"""The transitions between the five states of a model. Pure."""

from __future__ import annotations

from periscope.core import ModelState

#: For each state, the states that may follow it and why they do.
TRANSITIONS: dict[ModelState, dict[ModelState, str]] = {
    ModelState.UNLOADED: {
        ModelState.LOADING: "wanted, and there is room",
        ModelState.FAILED: "its files cannot be used, or it can never fit",
    },
    ModelState.LOADING: {
        ModelState.READY: "loaded",
        ModelState.FAILED: "could not be loaded",
        ModelState.UNLOADED: "load cancelled",
    },
    ModelState.READY: {
        ModelState.DRAINING: "to be unloaded",
        ModelState.FAILED: "its worker ended",
    },
    ModelState.DRAINING: {
        ModelState.UNLOADED: "last lease released",
        ModelState.READY: "its memory is not wanted any more",
        ModelState.FAILED: "its worker ended",
    },
    ModelState.FAILED: {
        ModelState.LOADING: "wanted again after the back-off",
        ModelState.UNLOADED: "unloaded by command",
    },
}


def check_transition(old: ModelState, new: ModelState) -> None:
    """Check one transition against the table. Pure.

    Raises:
        RuntimeError: the table has no such transition; a bug in the life cycle.
    """
    if new not in TRANSITIONS[old]:
        raise RuntimeError(f"a model can not go from {old} to {new}")
