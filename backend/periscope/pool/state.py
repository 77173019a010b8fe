"""The five states of a model and the ways between them. Pure."""

from __future__ import annotations

from enum import StrEnum


class ModelState(StrEnum):
    """Where a configured model is."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"

    @property
    def is_resident(self) -> bool:
        """Its weights are in memory."""
        return self in {ModelState.READY, ModelState.DRAINING}


#: state -> states it may go to, and what makes it go there.
TRANSITIONS: dict[ModelState, dict[ModelState, str]] = {
    ModelState.UNLOADED: {
        ModelState.LOADING: "wanted, and there is room",
        ModelState.FAILED: "its files cannot be used, or it can never fit",
    },
    ModelState.LOADING: {
        ModelState.READY: "loaded",
        ModelState.FAILED: "could not be loaded",
        ModelState.UNLOADED: "load given up",
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
        ModelState.UNLOADED: "given up",
    },
}


def check_transition(old: ModelState, new: ModelState) -> None:
    """Pure.

    Raises:
        RuntimeError: the table has no such way; a bug in the slot.
    """
    if new not in TRANSITIONS[old]:
        raise RuntimeError(f"a model can not go from {old} to {new}")
