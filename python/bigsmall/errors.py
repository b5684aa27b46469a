"""The package's own exceptions.

- `BigSmallError`: their base. `path`, `tensor` and `block` say where, each None when unknown.
- `FormatError`: not a `.bs` file, or one that contradicts itself. `VersionError`: one of a version or codec this release does not know.
- `CorruptError`: data that does not match its checksum or digest.
- `SourceError`: a checkpoint to be compressed that is not valid safetensors.
- `PatchBaseError`: a patch without the base that it was made from, or on another one.
- `OptionError`, also a `ValueError`: an impossible request.
- `MissingTensorError`, also a `KeyError`: no tensor has that name.
- `FrameworkError`: a package that loads models is of a version that cannot be hooked.

What the operating system refuses is raised as the builtin `OSError` that fits: `FileNotFoundError`, `FileExistsError`, and so on.
"""

import os
from typing import TypeVar

from ._core import BigSmallError, CorruptError, FormatError, MissingTensorError, OptionError, PatchBaseError, SourceError, VersionError

__all__ = [
    "BigSmallError",
    "CorruptError",
    "FormatError",
    "FrameworkError",
    "MissingTensorError",
    "OptionError",
    "PatchBaseError",
    "SourceError",
    "VersionError",
    "located",
]

E = TypeVar("E", bound=BigSmallError)


class FrameworkError(BigSmallError):
    """A package that loads models is of a version that this release does not know."""


def located(kind: type[E], message: str, *, path: str | os.PathLike[str], tensor: str | None = None) -> E:
    """An exception of that kind, worded and attributed as the compiled core does it."""
    at_tensor = "" if tensor is None else f'tensor "{tensor}": '
    error = kind(f"{os.fspath(path)}: {at_tensor}{message}")
    error.path, error.tensor = os.fspath(path), tensor
    return error
