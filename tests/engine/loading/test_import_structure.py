"""What transformers finds in its own files at import is kept, and the import is as it was in all other respects."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

#: Imports transformers with the memory, and tells how many of its model files were read, and what it found.
PROGRAM = """
import json, sys
from pathlib import Path
from periscope.engine.loading.import_structure import KeptImportStructure

read = set()
def watch(event, args):
    if event == "open" and "/models/" in str(args[0]) and str(args[0]).endswith(".py"):
        read.add(str(args[0]))

sys.addaudithook(watch)
if sys.argv[1] != "-":
    KeptImportStructure(Path(sys.argv[1])).install()
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen2VLProcessor

print(json.dumps({
    "read": len(read),
    "names": sorted(transformers.__all__),
    "models": sorted(transformers.models.__all__),
    "places": dict(sorted(transformers._class_to_module.items())),
    "missing": {key: sorted(map(str, needs)) for key, needs in sorted(transformers._object_missing_backend.items())},
}))
"""
#: Looks for a module, while another thread imports the package's module between two of the finders that are asked.
TWO_THREADS = """
import sys, threading
from importlib.machinery import FrozenImporter
from pathlib import Path
from periscope.engine.loading.import_structure import KeptImportStructure

class Halfway(list):
    other = threading.Thread(target=__import__, args=("transformers.utils.import_utils",))

    def __iter__(self):
        for finder in super().__iter__():
            yield finder
            if finder is FrozenImporter and self.other.ident is None:
                self.other.start()
                self.other.join()

sys.path.insert(0, sys.argv[1])
KeptImportStructure(Path(sys.argv[1]) / "imports.json").install()
sys.meta_path = Halfway(sys.meta_path)
import sought
print(sorted(name for name in sys.modules if name.startswith("transformers.")))
"""
#: A package in its place, whose function answers with something else; it tells what it was asked.
STRANGE = """
def define_import_structure(module_path, prefix=None):
    print("asked", prefix)
    return ["something", "else"]
"""


def imported(file: Path | None) -> dict[str, Any]:
    ended = _run(PROGRAM, "-" if file is None else file)
    assert ended.returncode == 0, ended.stderr
    told: dict[str, Any] = json.loads(ended.stdout)
    return told


@pytest.fixture(scope="module")
def plain() -> dict[str, Any]:
    """An import without the memory, which reads the models' files."""
    told = imported(None)
    assert told["read"] > 1000
    return told


def test_the_second_import_reads_no_model_files(tmp_path: Path, plain: dict[str, Any]) -> None:
    """And finds the same names in the same places with the same needs.

    The file is its owner's alone, like all in its folder.
    """
    file = tmp_path / "new" / "imports.json"
    first, second = imported(file), imported(file)
    assert first == plain
    assert second.pop("read") < 50
    assert second == {name: value for name, value in plain.items() if name != "read"}
    assert [(path.name, path.stat().st_mode & 0o777) for path in file.parent.iterdir()] == [("imports.json", 0o600)]


@pytest.mark.parametrize(
    "damage",
    ["[" * 100_000, '{"version": "of another one", "structures": {}}', [["strange"]], []],
    ids=["deep", "of another", "strange", "empty"],
)
def test_what_cannot_be_used_is_made_again(tmp_path: Path, plain: dict[str, Any], damage: str | list[Any]) -> None:
    """A damaged file, one of another installation, and one with answers of a wrong shape cost one slow import."""
    file = tmp_path / "imports.json"
    if isinstance(damage, list):
        imported(file)
        kept = json.loads(file.read_text())
        kept["structures"] = dict.fromkeys(kept["structures"], damage)
        file.write_text(json.dumps(kept))
    else:
        file.write_text(damage)
    assert imported(file) == plain
    assert imported(file)["read"] < 50


def test_a_place_that_cannot_be_written_changes_nothing(tmp_path: Path, plain: dict[str, Any]) -> None:
    """The import is as slow as without the memory."""
    (tmp_path / "file").write_text("")
    assert imported(tmp_path / "file" / "imports.json") == plain


def test_a_module_that_another_thread_looks_for_is_found(tmp_path: Path) -> None:
    """As the reader of texts in images does while the first model is loaded."""
    _write_package(tmp_path, init="")
    (tmp_path / "sought.py").write_text("")
    ended = _run(TWO_THREADS, tmp_path)
    assert ended.stdout == "['transformers.utils', 'transformers.utils.import_utils']\n", ended.stderr


def test_a_package_of_another_shape_is_let_be(tmp_path: Path) -> None:
    """Its own function answers every time, and nothing is kept."""
    ask = "define_import_structure(str(__import__('pathlib').Path(__file__).parent / 'models'), prefix='models')"
    _write_package(
        tmp_path, init=f"from .utils.import_utils import define_import_structure\nfound = {ask}\nfound = {ask}\n"
    )
    program = (
        "import sys; from pathlib import Path\n"
        "from periscope.engine.loading.import_structure import KeptImportStructure\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "file = Path(sys.argv[1])\n"
        "KeptImportStructure(file).install()\n"
        "import transformers\n"
        "print(transformers.found, file.exists())\n"
    )
    ended = _run(program, tmp_path / "imports.json")
    assert ended.stdout.split("\n") == ["asked models", "asked models", "['something', 'else'] False", ""], ended.stderr


def _write_package(folder: Path, *, init: str) -> None:
    """A package in the place of transformers, as pip installs one."""
    package = folder / "transformers"
    (package / "utils").mkdir(parents=True)
    record = folder / "transformers-9.0.dist-info" / "RECORD"
    record.parent.mkdir()
    record.write_text("")
    (package / "__init__.py").write_text(init)
    (package / "utils" / "__init__.py").write_text("")
    (package / "utils" / "import_utils.py").write_text(STRANGE)


def _run(program: str, argument: Path | str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, str(argument)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
