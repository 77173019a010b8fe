"""DESIGN.md files and CONTRIBUTING.md are true of the code: every file and name that they mention exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BACKEND = ROOT / "backend"
DOCUMENTS = sorted(
    [*ROOT.glob("DESIGN.md"), ROOT / "CONTRIBUTING.md", *BACKEND.rglob("DESIGN.md"), *ROOT.glob("tests/**/DESIGN.md")]
)

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\s]+)`")
_BRACES = re.compile(r"\{([^{}]*)\}")
_FILE = re.compile(r"[\w./-]+\.(py|md|yaml|toml|json)|[\w.-]+(/[\w.-]+)*/")
_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
#: Words in all lower case may also be values and settings, which the code has as strings; these must be identifiers.
_CODE_ONLY = re.compile(r".*([A-Z]|\(\)|^_).*")


def mentions(text: str) -> Iterator[str]:
    """What a document has in backticks, and the Python files in its fenced blocks; `{a,b}.py` are two files."""
    for block in _FENCED.findall(text):
        yield from re.findall(r"[\w/-]+\.py", block)
    for span in _SPAN.findall(_FENCED.sub("", text)):
        yield from _expanded(span)


def _expanded(span: str) -> list[str]:
    if (braces := _BRACES.search(span)) is None:
        return [span]
    before, after = span[: braces.start()], span[braces.end() :]
    return [each for part in braces[1].split(",") for each in _expanded(f"{before}{part}{after}")]


def fault_of(mention: str, folder: Path) -> str | None:
    """What is wrong with a mention in a document of this folder; None where it is right or names nothing of ours."""
    if _FILE.fullmatch(mention):
        return None if _exists(mention, folder) else f"there is no file {mention}"
    name = mention.removesuffix("()")
    if not _NAME.fullmatch(name):
        return None
    identifiers, strings = words()
    known = identifiers if _CODE_ONLY.match(mention) else identifiers | strings
    missing = [part for part in name.split(".") if part not in known]
    return f"there is no {'.'.join(missing)} in the code" if missing else None


def _exists(path: str, folder: Path) -> bool:
    """It is there from the document's folder or the root, or somewhere in the backend as the end of a path."""
    if any((base / path).exists() for base in (folder, ROOT)):
        return True
    return any(each.exists() for each in BACKEND.rglob(path.rstrip("/")))


@cache
def words() -> tuple[frozenset[str], frozenset[str]]:
    """All identifiers that the code defines or uses, and its strings: values of enums, names of settings."""
    names: set[str] = set()
    strings: set[str] = set()
    for file in BACKEND.rglob("*.py"):
        names.update(file.relative_to(BACKEND).with_suffix("").parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            match node:
                case ast.Constant(value=str(text)):
                    strings.add(text)
                case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name) | ast.keyword(arg=str(name)):
                    names.add(name)
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    names.add(node.name)
                case ast.alias():
                    names.update(node.name.split("."), [node.asname or ""])
    return frozenset(names), frozenset(strings)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_design_document_mentions_only_what_exists(document: Path) -> None:
    """Who renames or moves something renames it in the design as well."""
    text = document.read_text(encoding="utf-8")
    faults = {fault for mention in mentions(text) if (fault := fault_of(mention, document.parent))}
    assert not faults


def test_there_are_design_documents() -> None:
    """Those of the rooms are found; a wrong folder would make the test above true of nothing."""
    assert {str(path.parent.relative_to(BACKEND)) for path in DOCUMENTS if path.is_relative_to(BACKEND)} >= {
        "periscope/captions",
        "periscope/engine",
        "periscope/pool",
    }


def test_what_does_not_exist_is_found() -> None:
    """Classes, functions, constants, members, files and folders; not prose, routes or settings."""
    text = """`ModelPoool` `plan` `plann()` `_NO_SUCH` `Slot.facts` `Slot.fact_s` `slot.py` `slotty.py` `pool/`
    `pooled/` `pool/{slot,nothing}.py` `POST /v1/x` `/v1/models` `Retry-After` `a -> b` `wait_timeout_s`
    `queued` `ttl` `mx.eval`
```
pool/planner.py  pool/planned.py
```
"""
    faults = [fault_of(mention, BACKEND / "periscope") for mention in mentions(text)]
    assert {fault for fault in faults if fault} == {
        "there is no ModelPoool in the code",
        "there is no plann in the code",
        "there is no _NO_SUCH in the code",
        "there is no fact_s in the code",
        "there is no file slotty.py",
        "there is no file pooled/",
        "there is no file pool/nothing.py",
        "there is no file pool/planned.py",
    }


def imports_of(file: Path) -> set[str]:
    """Dotted names of the modules that a file imports, also those for type checking alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.update((node.module, *(f"{node.module}.{name.name}" for name in node.names)))
        elif isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
    return found


def test_no_two_modules_import_each_other() -> None:
    """Directly or around a corner, also for type checking: a reader can begin at the bottom and go up."""
    files = {
        ".".join(file.relative_to(BACKEND).with_suffix("").parts): file
        for file in BACKEND.rglob("*.py")
        if file.name != "__init__.py"
    }
    graph = {name: imports_of(file) & files.keys() - {name} for name, file in files.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' <- '.join(error.args[1])}")
