"""KeptImportStructure: what transformers finds in its own files at import, kept from one start to the next.

transformers (5.20 to 5.24) has its names imported when they are used. To know where they are it reads all of its model
files at import, 1,700 of them and twice, because its own cache of 128 folders is smaller than the 560 that it walks
through: 0.55 s of CPU time at every start, for a result that changes only when the package is installed anew. There is
no setting to leave it out, so the function that does it gets a memory here, as its module is imported. Nothing else of
the package is touched, and whatever is not as expected (no such function, an answer of another shape, a package that
was not installed from a wheel) is left to the package: it starts as slowly as before. Exit: when it ships the result.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, Final, TypeAlias

from periscope.core import JSONObject

logger = logging.getLogger(__name__)

_PACKAGE: Final = "transformers"
_MODULE: Final = f"{_PACKAGE}.utils.import_utils"
_FUNCTION: Final = "define_import_structure"
#: The folder that takes long, in the package, and the file in it that names it.
_SLOW: Final = ("models", "models/__init__.py")

#: What has to be installed -> module -> names.
_Structure: TypeAlias = dict[frozenset[str], dict[str, set[str]]]


class KeptImportStructure(MetaPathFinder):
    """Owns the file with the structure, and stays in front of `sys.meta_path`.

    Another thread may be looking for a module just then, and walks through that very list: were one taken out of it,
    that thread would pass over the next, and not find its module.

    Args:
        file: where the structure is kept, by everybody who starts with the same packages. Its folder need not exist.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def install(self) -> None:
        """Be asked for the next import of transformers. Does nothing if it is imported already, or another is asked."""
        if _PACKAGE not in sys.modules and kept_file() is None:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of the one module, found in the usual way, with a loader that knows of this memory."""
        if fullname != _MODULE:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = _Loader(fullname, spec.loader.path, self._remember)
        return spec

    def _remember(self, module: ModuleType) -> None:
        package = Path(str(module.__file__)).parent.parent
        find = getattr(module, _FUNCTION, None)
        version = _installed(package)
        if callable(find) and version is not None:
            setattr(module, _FUNCTION, _Memory(find, package, self.file, version))


def kept_file() -> Path | None:
    """The file that this process keeps it in, for processes that it starts; None if it keeps nothing."""
    return next((finder.file for finder in sys.meta_path if isinstance(finder, KeptImportStructure)), None)


class _Loader(SourceFileLoader):
    """Loads a module as always, then shows it to `loaded`."""

    def __init__(self, fullname: str, path: str, loaded: Callable[[ModuleType], None]) -> None:
        super().__init__(fullname, path)
        self._loaded = loaded

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        super().exec_module(module)
        self._loaded(module)


class _Memory:
    """The function with a memory, on disk, of its answers for the slow folder. Called by the package's imports alone.

    Args:
        find: the package's own function.
        version: changes with each installation of the package.
    """

    def __init__(self, find: Callable[..., Any], package: Path, file: Path, version: str) -> None:
        self._find = find
        self._slow = {str(package / place) for place in _SLOW}
        self._file = file
        self._version = version

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the package's function finds, from the file where it is known."""
        if not args or str(args[0]) not in self._slow:
            return self._find(*args, **kwargs)
        asked = json.dumps([[str(each) for each in args], kwargs], sort_keys=True, default=str)
        kept = _read(self._file, self._version)
        known = _decoded(kept.get(asked))
        if known is not None:
            return known
        found = self._find(*args, **kwargs)
        encoded = _encoded(found)
        if encoded is not None and _decoded(encoded) == found:
            _write(self._file, {"version": self._version, "structures": {**kept, asked: encoded}})
        return found


def _installed(package: Path) -> str | None:
    """A digest of the list of files of this installation, which holds their digests; None = there is none."""
    for record in package.parent.glob(f"{_PACKAGE}-*.dist-info/RECORD"):
        with suppress(OSError):
            return f"{package} {hashlib.sha256(record.read_bytes()).hexdigest()}"
    return None


def _encoded(found: Any) -> list[Any] | None:
    """The structure as JSON; None if it is of another shape."""
    try:
        return [[sorted(needs), {key: sorted(names) for key, names in found[needs].items()}] for needs in found]
    except (AttributeError, TypeError, KeyError):
        return None


def _decoded(encoded: Any) -> _Structure | None:
    """None if it is of another shape, or empty, which no answer is."""
    try:
        # Interned, because the two answers that are asked for have the same names.
        decoded = {
            frozenset(needs): {key: set(map(sys.intern, names)) for key, names in places.items()}
            for needs, places in encoded
        }
    except (AttributeError, TypeError, ValueError):
        return None
    return decoded or None


def _read(file: Path, version: str) -> JSONObject:
    """The structures in the file by what was asked; none if it is not there, of another installation, or damaged."""
    try:
        kept = json.loads(file.read_bytes())
        structures = kept["structures"] if kept["version"] == version else {}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return {}
    return structures if isinstance(structures, dict) else {}


def _write(file: Path, kept: JSONObject) -> None:
    """Replace the file in one step, so that another start reads the old one or the new one."""
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(kept))
        draft.replace(file)
    except OSError as error:
        logger.debug("%s cannot be written, so the next start takes longer: %s", file, error)
        with suppress(OSError):
            draft.unlink(missing_ok=True)
