"""The `.bs` files that make up a compressed model."""

import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

from .errors import FormatError, VersionError, located

INDEX_NAME = "bigsmall.index.json"
INDEX_FORMAT = "bigsmall-index"
INDEX_VERSION = 1


def shard_paths(path: str | os.PathLike[str]) -> list[Path]:
    """The file itself, or the shards that the index of a compressed directory names, in its order.

    Raises FileNotFoundError where there is nothing, FormatError for a directory without an index or with a bad one.
    """
    path = Path(path)
    if not path.is_dir():
        return [path]
    index_path = path / INDEX_NAME
    if not index_path.exists():
        raise located(FormatError, f"a directory without {INDEX_NAME} is no compressed model", path=path)
    return [path / name for name in _shard_names(index_path)]


def _shard_names(index_path: Path) -> list[str]:
    try:
        index: Any = json.loads(index_path.read_bytes())
        index_format, version = index["format"], index["version"]
        names = [shard["file"] for shard in index["shards"]]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise located(FormatError, "not an index of a compressed model", path=index_path) from error
    if index_format != INDEX_FORMAT:
        raise located(FormatError, f"format is {index_format!r} where {INDEX_FORMAT!r} belongs", path=index_path)
    if version != INDEX_VERSION:
        raise located(VersionError, f"index version {version!r}; this release knows {INDEX_VERSION}", path=index_path)
    for name in names:
        # An index must not lead out of its own directory.
        if not isinstance(name, str) or not name or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or "\\" in name:
            raise located(FormatError, f"{name!r} is no name of a shard", path=index_path)
    if len(set(names)) < len(names) or not names:
        raise located(FormatError, "a shard is named twice" if names else "no shards", path=index_path)
    return names
