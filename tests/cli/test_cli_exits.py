"""How commands end."""

from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from periscope.cli.exits import CommandFailed, ExitCode, exits
from periscope.errors import AuthenticationFailed, ConfigError, GenerationFailed, ModelNotFound
from tests.cli.process import TIMEOUT_S


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (CommandFailed("no"), 1, "no\n"),
        (CommandFailed("held", ExitCode.PORT_HELD), 75, "held\n"),
        (ConfigError(("a.yaml:1: one", "a.yaml:2: two")), 78, "a.yaml:1: one\na.yaml:2: two\n"),
        (ModelNotFound("who?"), 4, "who?\n"),
        (AuthenticationFailed("key?"), 7, "key?\n"),
        (GenerationFailed("oh"), 1, "oh\n"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_errors_on_purpose_are_a_sentence_and_a_code(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """On stderr, without a traceback."""
    with pytest.raises(typer.Exit) as ended, exits():
        raise error
    assert ended.value.exit_code == code
    assert tuple(capsys.readouterr()) == ("", told)


def test_a_bug_keeps_its_traceback() -> None:
    """What nobody raised on purpose is not dressed up as a sentence."""
    with pytest.raises(ZeroDivisionError), exits():
        _ = 1 / 0


def test_a_thread_that_never_ends_does_not_keep_the_process() -> None:
    """After the deadline the process is gone with the code it was to have."""
    program = (
        "import threading\n"
        "from periscope.cli.exits import end_process_after\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "end_process_after(0.1, 75)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], timeout=TIMEOUT_S, check=False)  # noqa: S603
    assert ended.returncode == 75
