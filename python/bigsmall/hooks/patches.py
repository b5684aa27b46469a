"""Functions of other packages that stand replaced, and putting them back."""

import functools
import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

from ..errors import FrameworkError

Function: TypeAlias = Callable[..., Any]
Wrap: TypeAlias = Callable[[Function], Function]
"""Makes the replacement of a function."""


class Patches:
    """Replaces functions until `undo`."""

    def __init__(self) -> None:
        self._is_active = True
        self._undo: list[Callable[[], None]] = []

    def function(self, module: ModuleType, name: str, wrap: Wrap) -> None:
        """Replace a module's function, also where other modules have imported it by name."""
        original = _member(module, name)
        replacement = self._switched(original, wrap(original))
        _rebind(original, replacement)
        self._undo.append(lambda: _rebind(replacement, original))

    def variable(self, module: ModuleType, name: str, value: Any) -> None:
        """Replace what a module calls by that name, in that module alone."""
        members = vars(module)
        original = members[name]
        members[name] = value

        def undo() -> None:
            if members.get(name) is value:
                members[name] = original

        self._undo.append(undo)

    def method(self, owner: type, name: str, wrap: Wrap) -> None:
        """Replace a class's method, which stays a static or class method if it is one."""
        original = inspect.getattr_static(owner, name, None)
        if original is None:
            raise FrameworkError(f"{owner.__module__}.{owner.__name__} has no {name}")
        is_wrapped = isinstance(original, (staticmethod, classmethod))
        inner = original.__func__ if is_wrapped else original
        replacement = self._switched(inner, wrap(inner))
        member = type(original)(replacement) if is_wrapped else replacement
        setattr(owner, name, member)

        def undo() -> None:
            # Where someone has replaced it after us, ours stays below theirs and passes calls on.
            if inspect.getattr_static(owner, name, None) is member:
                setattr(owner, name, original)

        self._undo.append(undo)

    def undo(self) -> None:
        """Put everything back."""
        self._is_active = False
        while self._undo:
            self._undo.pop()()

    def _switched(self, original: Function, replacement: Function) -> Function:
        @functools.wraps(original)
        def switched(*args: Any, **kwargs: Any) -> Any:
            return (replacement if self._is_active else original)(*args, **kwargs)

        return switched


class Parameters:
    """The parameters of a function by name, so that neither their order nor others beside them matter.

    Raises FrameworkError where one that is needed does not exist.
    """

    def __init__(self, function: Function, *needed: str) -> None:
        self._signature = inspect.signature(function)
        missing = [name for name in needed if name not in self._signature.parameters]
        if missing:
            raise FrameworkError(f"{function.__module__}.{function.__qualname__} has no parameter {missing[0]}")

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
        """A call's arguments, defaults included. Raises TypeError as the call would."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound


def _member(module: ModuleType, name: str) -> Function:
    member = vars(module).get(name)
    if not callable(member):
        raise FrameworkError(f"{module.__name__} has no function {name}")
    return member  # type: ignore[no-any-return]


def _rebind(old: Function, new: Function) -> None:
    """Every global variable of a module that is `old` becomes `new`."""
    for module in list(sys.modules.values()):
        if isinstance(module, ModuleType):
            members = vars(module)
            for name in [name for name, value in list(members.items()) if value is old]:
                members[name] = new
