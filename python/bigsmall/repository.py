"""A model by its path or by its name on the Hub."""

import errno
import os
import re
from pathlib import Path
from typing import Any

from .extras import require
from .files import COMPRESSED_SUFFIX, RESTORED_SUFFIX, StrPath
from .model_files import INDEX

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")

HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only", "force_download")
"""What `local_copy` takes, named as everywhere around the Hub."""

PACKED = (f"*{COMPRESSED_SUFFIX}", INDEX)
SAFETENSORS = (f"*{RESTORED_SUFFIX}", f"*{RESTORED_SUFFIX}.index.json")
BESIDE_WEIGHTS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")
"""Configuration, tokenizer and a model's own code."""


def local_copy(path_or_repo: StrPath, *, beside_weights: bool = False, **options: Any) -> Path:
    """The path of a model's file or folder; a Hub repository is downloaded into the Hub's cache first.

    Of a repository the `.bs` files are taken, or the safetensors files where it has none.

    Args:
        path_or_repo: a path, or a repository such as `user/model`.
        beside_weights: whether the small files of a repository are needed too.
        options: for the Hub, see `HUB_OPTIONS`.

    Raises:
        FileNotFoundError: neither a path nor a repository, or there are no weights.
        OSError: what the Hub's client raises, among them for a repository that does not exist.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    path = Path(path_or_repo)
    if path.exists():
        if path.is_dir() and not has_weights(path):
            raise FileNotFoundError(errno.ENOENT, NO_WEIGHTS, str(path))
        return path
    if isinstance(path_or_repo, Path) or REPOSITORY.fullmatch(os.fspath(path_or_repo)) is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    hub = require("huggingface_hub", "hf", "a Hub repository")
    beside = BESIDE_WEIGHTS if beside_weights else ()
    for weights in (PACKED, SAFETENSORS):
        # No weights of components: those in folders belong to a pipeline.
        folder = Path(hub.snapshot_download(path_or_repo, allow_patterns=[*weights, *beside], ignore_patterns=["*/*"], **options))
        if has_weights(folder):
            return folder
    raise FileNotFoundError(errno.ENOENT, NO_WEIGHTS, os.fspath(path_or_repo))


NO_WEIGHTS = f"it holds neither {COMPRESSED_SUFFIX} nor {RESTORED_SUFFIX} files"


def has_weights(folder: Path) -> bool:
    # There is no folder for the files of a repository of which none was wanted.
    files = folder.iterdir() if folder.is_dir() else ()
    return any(file.suffix in (COMPRESSED_SUFFIX, RESTORED_SUFFIX) or file.name == INDEX for file in files)


def has_packed(path: Path) -> bool:
    """Whether a folder holds `.bs` files, or a file is one by its name."""
    if path.is_dir():
        return any(file.suffix == COMPRESSED_SUFFIX or file.name == INDEX for file in path.iterdir())
    return path.suffix != RESTORED_SUFFIX
