"""Answers of launchctl."""

from __future__ import annotations

import pytest

from periscope.service.launchctl import Answer, SystemLaunchctl


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer(0), 0),
        (Answer(113, err="Could not find service"), 113),
        (Answer(5, err="Bootstrap failed: 125: Domain does not support specified action\n"), 125),
        (Answer(5, err="Bootstrap failed: 5: Input/output error\nTry re-running"), 5),
        (Answer(0, err="failed: 9: but not really"), 0),
    ],
)
def test_the_number_in_the_sentence_counts(answer: Answer, code: int) -> None:
    """Some versions exit with 5 whatever happened."""
    assert answer.code == code


def test_a_machine_without_launchctl_gets_an_answer() -> None:
    """Not a traceback; on a Mac this is a command that launchctl does not know."""
    answer = SystemLaunchctl().run("no-such-verb-of-launchctl")
    assert answer.status != 0
    assert answer.reason
