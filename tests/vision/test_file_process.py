"""FileProcess tells a file that cannot be read from a process that cannot be started."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.errors import ServerBusy
from periscope.vision.file_process import FileProcess


def test_a_process_that_does_not_start_is_no_fault_of_the_file(tmp_path: Path) -> None:
    """The client may try again, and is not told that its file is broken."""
    program = tmp_path / "program.py"
    program.write_text("import nothing_of_that_name\n")
    with pytest.raises(ServerBusy, match="could not start"):
        FileProcess(program).ask(("read",), max_seconds=1.0)
