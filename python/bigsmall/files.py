"""The package's verbs on files and directories."""

import os
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from . import _core
from .care import check_protectable, protect
from .errors import BigSmallError
from .progress import ProgressOption, reporting

if TYPE_CHECKING:
    import numpy
    import torch

StrPath: TypeAlias = str | os.PathLike[str]
Mode: TypeAlias = Literal["balanced", "storage", "inference"]
Format: TypeAlias = Literal["current", "v1"]
Facts: TypeAlias = dict[str, Any]

COMPRESSED_SUFFIX = ".bs"
COMPRESSED_SUFFIXES = (COMPRESSED_SUFFIX, ".bsr", ".bsd")
RESTORED_SUFFIX = ".safetensors"
COMPRESSED_DIR_SUFFIX = "-bs"
RESTORED_DIR_SUFFIX = "-restored"


def compressed_path(src: StrPath) -> Path:
    """Where `compress` writes by default: `model.safetensors` becomes `model.bs`, the directory `llama` becomes `llama-bs`."""
    return _beside(src, (RESTORED_SUFFIX,), COMPRESSED_SUFFIX, COMPRESSED_DIR_SUFFIX)


def restored_path(src: StrPath) -> Path:
    """Where the command line restores by default: `model.bs` becomes `model.safetensors`, `llama-bs` becomes `llama-bs-restored`."""
    return _beside(src, COMPRESSED_SUFFIXES, RESTORED_SUFFIX, RESTORED_DIR_SUFFIX)


def _beside(src: StrPath, old_suffixes: tuple[str, ...], new_suffix: str, dir_suffix: str) -> Path:
    path = Path(src)
    if path.is_dir():
        if path.name in ("", ".."):
            # "." and ".." have no name to append to.
            path = path.resolve()
        return path.with_name(path.name + dir_suffix)
    stem = path.stem if path.suffix in old_suffixes else path.name
    return path.with_name(stem + new_suffix)


def compress(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    delta_from: StrPath | None = None,
    mode: Mode = "balanced",
    format: Format = "current",
    ecc_percent: float | None = None,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts:
    """Compress a safetensors file, or a model directory with its shards, index and small files.

    Args:
        src: the file or directory.
        dst: the output; by default beside the source, see `compressed_path`. For a directory, a name that ends in `.bs` gives
            one file and any other a directory.
        delta_from: a model that this one was made from. Tensors that are smaller as differences to those of that model are stored so, and
            the output is then a patch, which needs `base=` to be read. Both may be safetensors or `.bs`, files or directories.
        mode: `balanced`, `storage` (smallest; may decode slower) or `inference` (fastest to decode).
        format: `current`, or `v1` for files and directories that the published Python package reads too, from its release 1.0.0 on. They
            are larger, slower, without checksums of their blocks, and the mode makes no difference. Tensors without dimensions come back
            from that package with one of size 1.
        ecc_percent: write sidecars for `repair` too, of that many percent of each file; None for none. See `protect`.
        force: replace an existing output, which is otherwise a FileExistsError.
        threads: 0 means one per core. The output does not depend on it.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        `source_bytes`, `compressed_bytes`, `n_tensors`, `n_files`, and the paths written as `outputs`. With `delta_from` also `matched`:
        `n_tensors` that have something like them in the base, `n_differences` that are stored so, and of the `looked_bytes` of matched
        tensors (samples of large ones) those that differ, `changed_bytes`. With `ecc_percent`,
        `ecc_bytes` of all sidecars.

    Raises:
        SourceError: the source is no valid safetensors file.
        OptionError: the mode or format does not exist, or the format has no such dtype; the output is the source or holds it; or `force`
            would replace a device, a pipe, or a directory that is not empty and holds no weights.
        OSError: FileNotFoundError (also for a directory without weights), FileExistsError, PermissionError, a full disk. No partial
            output is left.
    """
    dst = compressed_path(src) if dst is None else dst
    if ecc_percent is not None:
        # Before the long work.
        check_protectable(dst, ecc_percent, force=force)
    with reporting(progress, "compress") as report:
        facts = _core.compress(src, dst, base=delta_from, mode=mode, format=format, force=force, threads=threads, progress=report)
    if ecc_percent is not None:
        facts["ecc_bytes"] = protect(dst, percent=ecc_percent, force=force, threads=threads, progress=progress)
    return facts


@overload
def decompress(
    src: StrPath,
    dst: None = None,
    *,
    base: StrPath | None = None,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> "dict[str, numpy.ndarray]": ...
@overload
def decompress(
    src: StrPath,
    dst: StrPath,
    *,
    base: StrPath | None = None,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts: ...
def decompress(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    base: StrPath | None = None,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> "dict[str, numpy.ndarray] | Facts":
    """Decompress a `.bs` file or a compressed directory: into memory, or back into the files it was made from.

    Args:
        src: the file or directory.
        dst: the output, which will be the source byte for byte; None gives numpy arrays.
        base: what a patch was made from, see `compress`; not needed for other files.
        force: replace an existing output, which is otherwise a FileExistsError.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        Without `dst`, a dict of writable arrays by name, those of all shards together. Types that numpy lacks are views of
        their bits, for example BF16 as uint16: see the table in `bigsmall.numpy`.
        With `dst`, `source_bytes`, `compressed_bytes`, `n_tensors`, `n_files`, and the paths written as `outputs`.

    Raises:
        FormatError, VersionError: the file is no `.bs` file that this release can read.
        CorruptError: data does not match its checksum or digest. No output is left.
        PatchBaseError: a patch without its base, or on another one, which is refused before anything is written.
        OptionError, OSError: as `compress`.
    """
    with reporting(progress, "decompress") as report:
        if dst is not None:
            return _core.decompress(src, dst, base=base, force=force, threads=threads, progress=report)
        from .numpy import load as load_arrays

        return load_arrays(src, base=base, threads=threads, progress=report)


def load(
    path: StrPath,
    device: "str | int | torch.device" = "cpu",
    *,
    base: StrPath | None = None,
    threads: int = 0,
    progress: ProgressOption = None,
    damaged: MutableMapping[str, BigSmallError] | None = None,
) -> "dict[str, torch.Tensor]":
    """The state dict of a `.bs` file or a compressed directory, all shards together.

    Args:
        path: the file or directory.
        device: where the tensors go. On the CPU nothing is copied; another device costs 256 MiB of host memory at a time,
            or the largest tensor.
        base: what a patch was made from.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).
        damaged: a dict that takes the errors of tensors that cannot be decoded, by name; they are then missing from the result.
            Without it the first such error is raised.

    Returns:
        torch tensors by name, in file order. Dtypes are torch's own: see `bigsmall.torch`.

    Raises:
        ModuleNotFoundError: PyTorch is not installed.
        FormatError, VersionError, CorruptError, PatchBaseError, OSError: as `decompress`.
    """
    from .torch import load as load_tensors

    with reporting(progress, "load") as report:
        return load_tensors(path, device, base=base, threads=threads, progress=report, damaged=damaged)


def verify(
    src: StrPath,
    *,
    fast: bool = False,
    sample: float | None = None,
    seed: int | None = None,
    source: StrPath | None = None,
    base: StrPath | None = None,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts:
    """Check a `.bs` file or a compressed directory against the digests of the original tensors.

    Args:
        src: the file or directory.
        fast: check only structure, header and block directories, without decoding.
        sample: the same, and the checksums of that share of all blocks, chosen at random. Tensors of published containers, whose blocks
            have none, count as one block each and are decoded.
        seed: what the choice of blocks follows from; by default another one each time.
        source: the safetensors file or directory, or a `.bs` of it, that the tensors must be equal to: names, dtypes, shapes and bytes.
        base: what patches were made on: safetensors or `.bs`, a file or directory.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        `ok`; `n_tensors`, `n_checked` (decoded), `raw_bytes`; and `problems`, each with `path`, `tensor`, `block`, `bytes` (where the block
        lies in the file: its first byte and the one behind the last), None where unknown, and `message`. Every damaged block of a
        tensor is one.
        Of a sample, `sample` has `seed`, `n_blocks`, `n_sampled`, and `found_share`: were that share of all blocks damaged or more, the
        sample would have met a damaged one with the probability `confidence`.

    Raises:
        OptionError: `sample` is no share, or given together with `fast`.
        OSError: FileNotFoundError, PermissionError. Everything wrong with the data is among the problems.
    """
    seed = int.from_bytes(os.urandom(4)) if seed is None else seed
    with reporting(progress, "verify") as report:
        return _core.verify(src, fast=fast, sample=sample, seed=seed, source=source, base=base, threads=threads, progress=report)


def migrate(
    src: StrPath,
    *,
    mode: Mode = "balanced",
    dry_run: bool = False,
    backup: bool = True,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts:
    """Rewrite a file or directory of the published package in today's format, in its place.

    Every tensor's md5 is checked when it is decoded, and once more when the new file is read back, before the original is touched.
    Beside the original there must be room for the checkpoint itself and for the new files while that lasts.

    Args:
        src: the file or directory.
        mode: as for `compress`.
        dry_run: do all of that, and leave the original as it is.
        backup: keep the original beside the new file, with `.bak` behind its name.
        force: replace an earlier backup, which is otherwise a FileExistsError.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        `was_current`, which says that there was nothing to do; `n_tensors`; `bytes_before` and `bytes_after` of the files; the path of the
        `backup`, or None; and `recoded`, codecs `before` and `after` with `n_tensors`.

    Raises:
        PatchBaseError: a delta, which only its base completes.
        OptionError: a file of two fidelities, of which one would be lost.
        FormatError, VersionError, CorruptError, OSError: as `decompress`.
    """
    with reporting(progress, "migrate") as report:
        return _core.migrate(src, mode=mode, dry_run=dry_run, backup=backup, force=force, threads=threads, progress=report)


def scan(src: StrPath, *, mode: Mode = "balanced", threads: int = 0, progress: ProgressOption = None) -> Facts:
    """Look at a safetensors file or directory before it is compressed.

    Args:
        src: the file or directory.
        mode: what `compress` would be asked for.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        `source_bytes`, `estimated_bytes` (compressed, a guess from samples), `n_shards`, `n_tensors`; `tensors`, each with `name`,
        `dtype`, `shape`, `raw_bytes`, `kind`, `estimated_bytes`, `tied_to`; and `f32`: `n_tensors`, `raw_bytes`, and how many F32
        tensors hold BF16 or F16 values only (`n_bf16_native`, `n_f16_native`, `bf16_native_bytes`, `f16_native_bytes`).

    Raises:
        SourceError: the source is no valid safetensors file.
        OSError: FileNotFoundError, PermissionError.
    """
    with reporting(progress, "scan") as report:
        return _core.scan(src, mode=mode, threads=threads, progress=report)
