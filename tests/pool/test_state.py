"""The table of transitions between states."""

from __future__ import annotations

import pytest

from periscope.core import ModelState
from periscope.pool.state import TRANSITIONS, check_transition


@pytest.mark.parametrize("old", list(ModelState))
@pytest.mark.parametrize("new", list(ModelState))
def test_only_transitions_of_the_table_are_allowed(old: ModelState, new: ModelState) -> None:
    """A transition that is not in the table raises; one that is does not."""
    if new in TRANSITIONS[old]:
        check_transition(old, new)
    else:
        with pytest.raises(RuntimeError):
            check_transition(old, new)
