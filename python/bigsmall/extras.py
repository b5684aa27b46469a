"""Packages that are needed for some things only, and come with the extras of this one."""

import importlib
from types import ModuleType


def require(package: str, extra: str, use: str) -> ModuleType:
    """Import an optional package; `use` says what it is needed for.

    Raises ModuleNotFoundError that names the `pip install` where it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name is not None and not f"{package}.".startswith(f"{error.name}."):
            # It is there, but something of its own is missing.
            raise
        top = package.partition(".")[0]
        raise ModuleNotFoundError(f"{use} needs {top}: pip install 'bigsmall[{extra}]'", name=package) from error
