"""Keeping files intact: sidecars that find and mend damage."""

import os
from pathlib import Path
from typing import Any

from . import _core
from .errors import OptionError
from .progress import ProgressOption, reporting

DEFAULT_PERCENT = 14.0
"""Size of a sidecar where nothing else is asked for."""

LEAST_PERCENT, MOST_PERCENT = 5.0, 100.0

REPAIRED_SUFFIX = ".repaired"
REPAIRED_DIR_SUFFIX = "-repaired"
INDEX = "bigsmall.index.json"


def protect(
    path: str | os.PathLike[str],
    *,
    percent: float = DEFAULT_PERCENT,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> int:
    """Write the sidecar `PATH.ecc` of a file, of any kind, or those of a compressed directory's shards and index.

    What a sidecar mends is on the page `docs/format/ecc.md`: with the default of 14 percent, any stretch of 9 percent of the file, or one
    wrong byte in 200 of file and sidecar, wherever they are.

    Args:
        path: the file or directory.
        percent: size of the sidecar in percent of the file, from 5 to 100. Sidecars of small files take more.
        force: replace existing sidecars.
        threads: 0 means one per core. The sidecar does not depend on it.
        progress: True for a bar on stderr, or a function called with (bytes done, bytes in all).

    Returns:
        The bytes of all sidecars.

    Raises:
        OptionError: `percent` is none of these, or the file is empty.
        OSError: FileNotFoundError, FileExistsError, PermissionError, a full disk.
    """
    n_bytes = 0
    for file in _members(Path(path)):
        with reporting(progress, "protect") as report:
            n_bytes += _core.protect(file, percent=percent, force=force, threads=threads, progress=report)
    return n_bytes


def check_protectable(path: str | os.PathLike[str], percent: float, *, force: bool) -> None:
    """Raise what `protect` would, as far as that can be known before there is the file."""
    if not LEAST_PERCENT <= percent <= MOST_PERCENT:
        raise OptionError(f"parity of {percent:g} % is not to be had: {LEAST_PERCENT:g} to {MOST_PERCENT:g} are possible")
    sidecar = _core.sidecar_path(path)
    if not force and not Path(path).is_dir() and os.path.lexists(sidecar):
        raise FileExistsError(17, os.strerror(17), sidecar)


def repaired_path(path: str | os.PathLike[str]) -> Path:
    """Where `repair` writes by default: `model.bs` becomes `model.bs.repaired`, the directory `llama-bs` becomes `llama-bs-repaired`."""
    path = Path(path)
    if path.is_dir() and path.name in ("", ".."):
        path = path.resolve()
    return path.with_name(path.name + (REPAIRED_DIR_SUFFIX if path.is_dir() else REPAIRED_SUFFIX))


def repair(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str] | None = None,
    *,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> list[dict[str, Any]]:
    """Mend a file with its sidecar `SRC.ecc`, or every file of a directory that has one. The damaged files stay as they are.

    Sidecars of the published package are read, too.

    Args:
        src: the file or directory.
        dst: the mended file, or the directory for those that were damaged; by default beside the source, see `repaired_path`. The
            sidecar is written anew beside the file if either was damaged. What is intact is not written again.
        force: replace existing outputs.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (bytes done, bytes in all).

    Returns:
        For each file `path`; `found_bytes`, its size, and `file_bytes`, the size that it had; `damaged`, the places where it was, as pairs
        of a first byte and the one behind the last, near ones taken together; `sidecar_damaged`; and `outputs`, the paths that were
        written.

    Raises:
        CorruptError: a file cannot be mended; nothing was written.
        FormatError, VersionError: the sidecar is none.
        OptionError, OSError: as `protect`.
    """
    dst = repaired_path(src) if dst is None else dst
    with reporting(progress, "repair") as report:
        return _core.repair(src, dst, force=force, threads=threads, progress=report)


def _members(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    index = path / INDEX
    return [*map(Path, _core.packed_files(path)), *([index] if index.exists() else [])]
