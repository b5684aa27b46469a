"""The `.bs` files of a model, where a framework would look for safetensors files."""

import errno
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from .errors import FormatError, located
from .files import COMPRESSED_SUFFIX, RESTORED_SUFFIX, StrPath

INDEX = "bigsmall.index.json"
"""The file of a compressed directory that says what its shards hold."""

MAGIC = b"BGSM"


class Place(Protocol):
    """Where a model's files are."""

    def find(self, name: str) -> Path | None:
        """The file of that name, None if there is none or it cannot be had now."""

    def get(self, names: Sequence[str]) -> list[Path]:
        """The files of these names. Raises OSError where one is missing."""


class Folder:
    """The files of a folder."""

    def __init__(self, path: StrPath) -> None:
        self._path = Path(path)

    def find(self, name: str) -> Path | None:
        file = self._path / name
        return file if file.is_file() else None

    def get(self, names: Sequence[str]) -> list[Path]:
        for name in names:
            if self.find(name) is None:
                message = f"{os.strerror(errno.ENOENT)}, but an index says that it holds tensors of the model"
                raise FileNotFoundError(errno.ENOENT, message, str(self._path / name))
        return [self._path / name for name in names]


class ModelFiles(NamedTuple):
    """The files that hold a model."""

    files: list[Path]
    weight_map: dict[str, str]
    """The name of the file that holds a tensor; empty for a single file without an index."""


def is_packed(path: StrPath) -> bool:
    """Whether a file begins as `.bs` files do."""
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def packed_name(name: str) -> str:
    """`model.bs` for `model.safetensors`."""
    return name.removesuffix(RESTORED_SUFFIX) + COMPRESSED_SUFFIX


def find(place: Place, weights: str, index: str, *, variant: str | None = None) -> ModelFiles | None:
    """The `.bs` files in place of the safetensors file `weights`, or of the shards that a safetensors `index` names.

    They are told by `bigsmall.index.json`, which describes the model without a variant, by their own names, or by a safetensors index
    whose shards have been compressed one by one.

    Args:
        place: where files are looked for.
        weights: the name of the safetensors file, with its variant.
        index: that of the index of a sharded model, with its variant.
        variant: None, or such as `fp16`.

    Raises FileNotFoundError where an index names a shard that is missing, FormatError where it is no index.
    """
    if variant is None and (file := place.find(INDEX)) is not None:
        return _of_index(place, read_weight_map(file))
    if (file := place.find(packed_name(weights))) is not None:
        return ModelFiles([file], {})
    if (file := place.find(index)) is not None:
        weight_map = {tensor: packed_name(name) for tensor, name in read_weight_map(file).items()}
        if any(place.find(name) is not None for name in weight_map.values()):
            return _of_index(place, weight_map)
    return None


def only_one(path: StrPath) -> ModelFiles | None:
    """The `.bs` file of a folder that holds a single one, whatever its name."""
    files = sorted(Path(path).glob(f"*{COMPRESSED_SUFFIX}"))
    return ModelFiles(files, {}) if len(files) == 1 else None


def is_complete(path: StrPath, weights: str, index: str) -> bool:
    """Whether a folder has a safetensors model: the file, or the index with every shard that it names."""
    place = Folder(path)
    if place.find(weights) is not None:
        return True
    file = place.find(index)
    return file is not None and all(place.find(name) is not None for name in set(read_weight_map(file).values()))


def read_weight_map(index: Path) -> dict[str, str]:
    """Tensor to file, as an index of either kind says. Raises FormatError."""
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        names = set(weight_map.values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise located(FormatError, "this is no index of a model", path=index) from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise located(FormatError, f"{name!r} is not the name of a file in its directory", path=index)
    return dict(weight_map)


def _of_index(place: Place, weight_map: dict[str, str]) -> ModelFiles:
    return ModelFiles(place.get(sorted(set(weight_map.values()))), weight_map)
