"""Every tensor of a compressed model, decoded."""

import os
from collections.abc import Callable, Iterator, MutableMapping
from typing import TypeAlias

from ._core import Reader, Tensor, packed_files
from .errors import BigSmallError, FormatError, located
from .progress import Progress

Damaged: TypeAlias = MutableMapping[str, BigSmallError]
"""Takes the errors of tensors that cannot be decoded, by name."""

Wanted: TypeAlias = Callable[[str], bool]
"""Whether the tensor of that name is wanted."""


def decoded_tensors(
    path: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    damaged: Damaged | None = None,
    batch_bytes: int | None = None,
    wanted: Wanted | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) for every tensor of a `.bs` file or of all shards of a compressed directory, in file order.

    Those that are not `wanted` are neither read nor decoded. At most `batch_bytes` raw bytes are decoded ahead of the consumer, where a
    single tensor is not larger; None decodes a shard at once. A tensor that cannot be decoded is left out and put into `damaged`; without
    `damaged` its error is raised.
    """
    readers = [Reader(file, base=base) for file in packed_files(path)]
    seen: set[str] = set()
    total_bytes = sum(raw_bytes for reader in readers for _, raw_bytes in _batches(reader, None, wanted))
    done_bytes = 0
    for reader in readers:
        for names, raw_bytes in _batches(reader, batch_bytes, wanted):
            part = None if progress is None else _part_of(progress, done_bytes, total_bytes)
            tensors = reader.tensors(names, threads=threads, progress=part)
            tensors.reverse()
            for name in names:
                # Popped, so that a consumer that moves a tensor elsewhere frees this copy.
                tensor = tensors.pop()
                if name in seen:
                    raise located(FormatError, "is in an earlier shard too", path=reader.path, tensor=name)
                seen.add(name)
                if not isinstance(tensor, BaseException):
                    yield name, tensor
                elif damaged is None:
                    raise tensor
                else:
                    damaged[name] = tensor
            done_bytes += raw_bytes


def _part_of(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _total: progress(before + done, total)


def _batches(reader: Reader, batch_bytes: int | None, wanted: Wanted | None) -> Iterator[tuple[list[str], int]]:
    """(names, raw bytes) of runs of tensors that together stay within `batch_bytes`, unless one alone does not."""
    names: list[str] = []
    raw_bytes = 0
    for entry in reader.entries():
        if wanted is not None and not wanted(entry["name"]):
            continue
        if names and batch_bytes is not None and raw_bytes + entry["raw_bytes"] > batch_bytes:
            yield names, raw_bytes
            names, raw_bytes = [], 0
        names.append(entry["name"])
        raw_bytes += entry["raw_bytes"]
    if names:
        yield names, raw_bytes
