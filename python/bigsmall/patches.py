"""Fine-tunes as patches to the models they were made from, and what differs between models."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import _core, files
from .errors import OptionError
from .files import Facts, Mode, StrPath
from .progress import ProgressOption, reporting

if TYPE_CHECKING:
    import numpy


def compress_delta(
    src: StrPath,
    base: StrPath,
    dst: StrPath | None = None,
    *,
    mode: Mode = "balanced",
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts:
    """Compress a fine-tune to a patch: `compress` with `delta_from=base`. A patch is never larger than the fine-tune compressed alone."""
    return files.compress(src, dst, delta_from=base, mode=mode, force=force, threads=threads, progress=progress)


def decompress_delta(
    patch: StrPath,
    base: StrPath,
    dst: StrPath | None = None,
    *,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> "dict[str, numpy.ndarray] | Facts":
    """The fine-tune of a patch, as arrays or as the files it was made of: `decompress` with `base`."""
    if dst is None:
        return files.decompress(patch, base=base, threads=threads, progress=progress)
    return files.decompress(patch, dst, base=base, force=force, threads=threads, progress=progress)


def apply(
    base: StrPath,
    patch: StrPath,
    dst: StrPath,
    *,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts:
    """Write the fine-tune that a patch makes of its base, byte for byte.

    Raises:
        PatchBaseError: the patch was made from another base; both fingerprints are told, and nothing is written.
        FormatError, VersionError, CorruptError, OptionError, OSError: as `decompress`.
    """
    return files.decompress(patch, dst, base=base, force=force, threads=threads, progress=progress)


def closest_base(src: StrPath, directories: Sequence[StrPath] = ()) -> Path:
    """The model that `src` is closest to, told from samples of its tensors.

    Args:
        src: a safetensors or `.bs` file, or a directory of either.
        directories: where to look: at their files, at the model directories in them, and at themselves if they are such. By default beside
            `src`.

    Raises:
        OptionError: none of the models there is close.
        OSError: a directory cannot be listed.
    """
    places = [os.fspath(directory) for directory in directories] or [os.fspath(Path(src).resolve().parent)]
    found = _core.closest(src, places)
    if found is None:
        raise OptionError(f"{os.fspath(src)}: no model like it in {', '.join(places)}")
    return Path(found)


def diff(a: StrPath, b: StrPath, *, threads: int = 0, progress: ProgressOption = None) -> Facts:
    """What differs between two models, each a safetensors or `.bs` file or a directory of either.

    Returns:
        `is_same`; `n_common` tensors that both name; `added`, `removed`, lists of `name`, `dtype`, `shape`, `raw_bytes`; `changed`, which
        also has `was` (as `a` has the tensor), `n_words`, `n_differing` (None if dtype or size changed) and `distances`: how many
        words lie 0, 1, 2 to 3, 4 to 7 and so on apart, counted in numbers of the dtype (units in the last place), or None; and
        `identical`: pairs of a tensor of `b` that is added or changed and one of `a` with another name and the same bytes.

    Raises:
        SourceError, FormatError, VersionError, CorruptError, OSError: one of the models cannot be read.
    """
    with reporting(progress, "diff") as report:
        return _core.diff(a, b, threads=threads, progress=report)
