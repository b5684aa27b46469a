"""Calling a function right after a module has been imported for the first time, by whomever."""

import importlib
import importlib.abc
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class PostImport(importlib.abc.MetaPathFinder):
    """Finds the modules that are waited for as everyone else does, with a loader that calls the function afterwards."""

    def __init__(self) -> None:
        self._waiting: dict[str, Callable[[ModuleType], None]] = {}

    def add(self, name: str, function: Callable[[ModuleType], None]) -> None:
        """Call `function` with the module of that name when it has been imported; if it is already, `catch_up` does so.

        It must bear to be called twice, since several threads may import the module. The import fails with what it raises.
        """
        self._waiting[name] = function
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def catch_up(self, name: str) -> None:
        """Call the function for a module that is imported, after waiting for a thread that is still importing it."""
        if name in sys.modules and name in self._waiting:
            self.imported(importlib.import_module(name))

    def clear(self) -> None:
        """Wait for nothing any more."""
        self._waiting.clear()
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def imported(self, module: ModuleType) -> None:
        function = self._waiting.get(module.__name__)
        if function is not None:
            function(module)
            self._waiting.pop(module.__name__, None)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._waiting:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = Notifying(spec.loader, self)
                return spec  # type: ignore[no-any-return]
        return None


class Notifying(importlib.abc.Loader):
    """A module's own loader, which is the one that the module names once it is there."""

    def __init__(self, loader: Any, waiting: PostImport) -> None:
        self._loader = loader
        self._waiting = waiting

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        self._waiting.imported(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)
