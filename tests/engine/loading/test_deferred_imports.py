"""A package whose import is deferred is loaded at the first use of a name in it, and then as it always was."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from periscope.engine.loading.deferred_imports import DeferredImports

PACKAGE = "seldom_used_package"
#: What the package's code reads and does: `sys` holds it, which both sides have.
SEEN = "seldom_used_package_seen"

CODE = f"""
import sys
seen = sys.{SEEN}
seen.runs.append(__name__)
seen.is_running.set()
assert seen.may_end.wait(60)
from .inner import answer
from . import inner as also_inner
if seen.breaks:
    raise seen.breaks.pop()
__version__ = "1"
def later(): return answer + 1
"""
WITH_ITS_OWN = CODE + "\ndef __getattr__(name): return f'made for {name}'\n"


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """What the package's code tells and is told, while imports of the package are deferred."""
    told = SimpleNamespace(runs=[], breaks=[], is_running=threading.Event(), may_end=threading.Event(), at=tmp_path)
    told.may_end.set()
    setattr(sys, SEEN, told)
    write(tmp_path, CODE)
    sys.path.insert(0, str(tmp_path))
    finder = DeferredImports(frozenset({PACKAGE, "not_there_at_all"}))
    finder.install()
    yield told
    sys.meta_path.remove(finder)
    sys.path.remove(str(tmp_path))
    delattr(sys, SEEN)
    for name in [each for each in sys.modules if each.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def write(at: Path, code: str) -> None:
    (at / PACKAGE).mkdir(exist_ok=True)
    (at / PACKAGE / "__init__.py").write_text(code)
    (at / PACKAGE / "inner.py").write_text("answer = 41\n")
    importlib.invalidate_caches()


def imported() -> ModuleType:
    return importlib.import_module(PACKAGE)


def test_an_import_runs_nothing_and_the_first_name_runs_all_of_it_once(seen: SimpleNamespace) -> None:
    """However often it is imported before."""
    package = imported()
    assert imported() is package
    assert seen.runs == []
    assert package.later() == 42
    assert package.__version__ == "1"
    assert seen.runs == [PACKAGE]
    assert not hasattr(package, "__getattr__")


def test_names_can_be_imported_from_it(seen: SimpleNamespace) -> None:
    """One, all of them, and a module in it."""
    names: dict[str, object] = {}
    exec(f"import {PACKAGE}.inner\nfrom {PACKAGE} import later, inner\nfrom {PACKAGE} import *", names)  # noqa: S102
    assert {"later", "answer", "inner", "also_inner"} <= set(names)
    assert seen.runs == [PACKAGE]


def test_a_module_in_it_finds_the_names_that_it_needs(seen: SimpleNamespace) -> None:
    """Although it is imported before anybody has used the package, whose own code imports it."""
    write(seen.at, CODE)
    (seen.at / PACKAGE / "inner.py").write_text("from . import other\nanswer = other.answer\n")
    (seen.at / PACKAGE / "other.py").write_text("answer = 41\n")
    importlib.invalidate_caches()
    inner = importlib.import_module(f"{PACKAGE}.inner")
    assert (inner.answer, seen.runs) == (41, [PACKAGE])
    assert imported().later() == 42


def test_a_name_that_it_does_not_have_is_missed_as_always(seen: SimpleNamespace) -> None:
    """Before it is loaded, and afterwards."""
    package = imported()
    for _ in range(2):
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            _ = package.nothing
    assert seen.runs == [PACKAGE]


def test_a_package_that_makes_names_itself_goes_on_to(seen: SimpleNamespace) -> None:
    """Its own `__getattr__` takes the place of the one that loads."""
    write(seen.at, WITH_ITS_OWN)
    assert imported().anything == "made for anything"
    assert imported().more == "made for more"
    assert seen.runs == [PACKAGE]


def test_what_fails_at_the_import_fails_at_the_use_and_is_tried_again(seen: SimpleNamespace) -> None:
    """With the same error, which whoever uses it can catch."""
    package = imported()
    seen.breaks.append(ImportError("no such library"))
    with pytest.raises(ImportError, match="no such library"):
        package.later()
    assert package.later() == 42


def test_threads_that_use_it_at_once_all_get_it(seen: SimpleNamespace) -> None:
    """One runs its code; one that asks meanwhile waits for the name and does not miss it."""
    package = imported()
    seen.may_end.clear()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(getattr, package, "later")
        assert seen.is_running.wait(60)
        others = [threads.submit(getattr, package, name) for name in ("later", "__version__")]
        seen.may_end.set()
        assert first.result()() == 42
        assert [each.result() for each in others] == [package.later, "1"]
    assert seen.runs == [PACKAGE]


def test_a_package_that_is_not_installed_is_missed_at_the_import(seen: SimpleNamespace) -> None:
    """Libraries ask so whether they can do something."""
    with pytest.raises(ModuleNotFoundError, match="not_there_at_all"):
        importlib.import_module("not_there_at_all")
    assert seen.runs == []


def test_the_model_libraries_get_what_they_use() -> None:
    """mlx-vlm is imported without the packages, and each of them works at its first use."""
    program = """
import sys
from periscope.engine.loading.deferred_imports import DeferredImports
DeferredImports().install()
import mlx_vlm.utils, transformers.tokenization_utils_sentencepiece as tokenizers
heavy = {"urllib3", "charset_normalizer", "sentencepiece._sentencepiece"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert mlx_vlm.utils.requests.Request("GET", "http://localhost/", params={"a": 1}).prepare().url.endswith("?a=1")
assert tokenizers.spm.SentencePieceProcessor().GetPieceSize is not None
assert heavy <= set(sys.modules), heavy - set(sys.modules)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)  # noqa: S603
    assert ended.returncode == 0, ended.stderr
