"""DeferredImports: packages that mlx-vlm and transformers import at once, for work that a server seldom gives them.

mlx-vlm (0.7) imports `requests` for pictures at addresses, which it is never asked for here, and transformers (5.20 to
5.24) imports `sentencepiece` for tokenizers that have no tokenizer.json. Together they and what they bring took 6 MiB
and 60 ms of every start. Whoever uses one of them gets it then, as if it had been imported before. Exit: when the two
import them where they use them.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

#: None of them does anything when it is imported that others would notice.
_SELDOM_USED: Final = frozenset({"requests", "sentencepiece"})


class DeferredImports(MetaPathFinder):
    """Has these packages loaded at the first use of a name in them. Owns no state; any thread.

    Args:
        packages: top-level names. What is imported already, or not installed, is as it would be without this.
    """

    def __init__(self, packages: frozenset[str] = _SELDOM_USED) -> None:
        self._packages = packages

    def install(self) -> None:
        """Be asked for all imports from now on."""
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of one of the packages, found in the usual way, with a loader that waits.

        A module in a package is looked for once that is loaded, as in any import: it may need the names of it.
        """
        package = fullname.partition(".")[0]
        if package not in self._packages:
            return None
        if fullname != package:
            _load(sys.modules.get(package))
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Waiting(spec.loader)
        return spec


class _Waiting(Loader):
    """Makes a module that is loaded when it is asked for a name that it does not have yet."""

    def __init__(self, inside: Loader) -> None:
        self._inside = inside

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As without this loader."""
        return self._inside.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Only be ready to."""
        module.__dict__["__getattr__"] = _Load(module, self._inside)
        module.__loader__ = self._inside
        if module.__spec__ is not None:
            module.__spec__.loader = self._inside


class _Load:
    """The `__getattr__` of a module that is not loaded yet. Any thread: one loads, others wait for it."""

    def __init__(self, module: ModuleType, loader: Loader) -> None:
        self._module = module
        self._loader = loader
        self._lock = threading.RLock()
        self._has_begun = False

    def __call__(self, name: str) -> Any:
        """A name of the module, once all of its code has run.

        Raises:
            AttributeError: it has no such name; or not yet, and its own code asks.
        """
        with self._lock:
            if self._has_begun and self._module.__dict__.get("__getattr__") is self:
                raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}", name=name)
            self.load()
        return getattr(self._module, name)

    def load(self) -> None:
        """Run all of the module's code, unless that has begun."""
        names = self._module.__dict__
        with self._lock:
            if self._has_begun:
                return
            self._has_begun = True
            try:
                self._loader.exec_module(self._module)
            except BaseException:
                self._has_begun = False  # the next who asks tries again
                raise
            if names.get("__getattr__") is self:
                del names["__getattr__"]


def _load(module: ModuleType | None) -> None:
    """Have a module loaded that waits for it."""
    load = None if module is None else module.__dict__.get("__getattr__")
    if isinstance(load, _Load):
        load.load()
