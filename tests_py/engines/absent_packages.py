"""Stand-ins for packages that vLLM and sglang import and that loading weights does not use: kernels, servers, grammars.

Import this first. Whatever is asked of such a package is there and does nothing. What is installed is used as it is.
"""

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any

COMPILED = ("vllm._C", "vllm._moe_C", "vllm._C_stable_libtorch")


class AnyClass(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __or__(cls, other: Any) -> Any:
        return Any

    __ror__ = __or__


class Anything(metaclass=AnyClass):
    """A value, function, decorator, class and context manager."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __init_subclass__(cls, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return args[0] if len(args) == 1 and callable(args[0]) and not kwargs else Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.any_schema()

    def __class_getitem__(cls, item: Any) -> Any:
        return cls

    def __iter__(self) -> Any:
        return iter(())


class Absent(types.ModuleType):
    __path__: list[str] = []  # noqa: RUF012 - as modules have it

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        # What has a class's name may be inherited from.
        value = AnyClass(name, (Anything,), {}) if name[:1].isupper() else Anything()
        setattr(self, name, value)
        return value


class Finder:
    """Asked last, so that only what is nowhere else is found here."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name in COMPILED or name.partition(".")[0] in self.names:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None: ...


def stand_in(names: str) -> None:
    """Let these packages, named with blanks between, be there; those that are installed are themselves."""
    sys.meta_path.append(Finder([name for name in names.split() if importlib.util.find_spec(name) is None]))
