"""What a compressed model asks of a machine, by its headers alone."""

import os
from collections import Counter
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from .._core import Reader, packed_files
from ..layers import layer_of
from .disk import cached_share
from .rates import PER_WORD, Kind, kind_of

MIB = 1 << 20
CHUNK_WORDS, CHUNK_BYTES, CONTEXT_CHUNK_BYTES = 4 * MIB, 16 * MIB, 64 * MIB
"""Of a tensor, the most that is decoded at a time by one thread."""
KEPT_PACK_BYTES = 64 * MIB
"""Of small tensors that are put together, the most that a file's reader keeps decoded."""
MAX_THREADS = 1024
PUBLISHED_VERSIONS = (1, 2)
"""Containers whose tensors are decoded as wholes, and their parts put together then."""


@dataclass(frozen=True)
class Fidelity:
    """How near the loaded weights are to those that were compressed."""

    name: str
    label: str
    is_exact: bool
    decoded_as: str = "perfect"
    """What readers call it."""


PERFECT = Fidelity("perfect", "bit-exact", is_exact=True)
FAST = Fidelity("fast", "lossy INT4", is_exact=False, decoded_as="fast")
TINY = Fidelity("tiny", "lossy INT3", is_exact=False, decoded_as="tiny3")
FIDELITIES = (PERFECT, FAST, TINY)
"""The nearest first."""


@dataclass(frozen=True)
class Variant:
    """A model at one fidelity.

    `file_bytes` are read for it, and `raw_bytes` are then in memory; `decoded_bytes` are those that each kind's rate counts. A layer at a
    time takes `non_layer_bytes` and `largest_layer_bytes`; `layer_count` may be 0. `kept_bytes` stay with
    the files' readers while they are open. `work_bytes`: what decoding a chunk takes besides, for those that take most, the largest first.
    """

    fidelity: Fidelity
    file_bytes: int
    raw_bytes: int
    decoded_bytes: dict[Kind, int]
    tensor_count: int
    layer_count: int
    largest_layer_bytes: int
    non_layer_bytes: int
    kept_bytes: int
    work_bytes: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """`variants`: the nearest to the original first. `cached_share`: how much of its files is in the page cache, 0 if unknown."""

    path: str
    variants: tuple[Variant, ...]
    cached_share: float

    @property
    def best(self) -> Variant:
        return self.variants[0]


def read_model(path: str | os.PathLike[str]) -> Model:
    """A `.bs` file or compressed directory. Raises FormatError, VersionError or OSError as `decompress` does."""
    files = packed_files(path)
    readers = [Reader(file) for file in files]
    variants = (_variant(PERFECT, readers),)
    cached = sum((cached_share(Path(file)) or 0.0) * Path(file).stat().st_size for file in files)
    return Model(os.fspath(path), variants, cached / variants[0].file_bytes)


def _variant(fidelity: Fidelity, readers: list[Reader]) -> Variant:
    decoded: Counter[Kind] = Counter()
    layers: Counter[str | None] = Counter()
    work: list[int] = []
    tensor_count = raw_bytes = kept_bytes = 0
    for reader in readers:
        packed_bytes = packed_blob_bytes = 0
        is_published = reader.version in PUBLISHED_VERSIONS
        for entry in reader.entries():
            if entry["is_packed"]:
                packed_bytes += entry["raw_bytes"]
                packed_blob_bytes += entry["compressed_bytes"]
            else:
                work += [2 * entry["raw_bytes"]] if is_published else _work_bytes(entry)
            kind = kind_of(entry["codec"], entry["dtype"], is_published=is_published)
            decoded[kind] += entry["raw_bytes"] * PER_WORD[kind] // _word_bytes(entry) if kind in PER_WORD else entry["raw_bytes"]
            raw_bytes += entry["raw_bytes"]
            layers[layer_of(entry["name"])] += entry["raw_bytes"]
            tensor_count += 1
        work.append(min(packed_blob_bytes, CHUNK_BYTES))
        kept_bytes += min(packed_bytes, KEPT_PACK_BYTES)
    non_layer_bytes = layers.pop(None, 0)
    return Variant(
        fidelity=fidelity,
        file_bytes=sum(reader.file_bytes for reader in readers),
        raw_bytes=raw_bytes,
        decoded_bytes=dict(decoded),
        tensor_count=tensor_count,
        layer_count=len(layers),
        largest_layer_bytes=max(layers.values(), default=0),
        non_layer_bytes=non_layer_bytes,
        kept_bytes=kept_bytes,
        work_bytes=tuple(sorted(work, reverse=True)[:MAX_THREADS]),
    )


def _work_bytes(entry: dict[str, Any]) -> list[int]:
    """What a thread holds while it decodes a chunk, for each chunk of a tensor: its blob.

    Words in another order than the source's are decoded all at once, and then moved.
    """
    raw_bytes, blob_bytes = entry["raw_bytes"], entry["compressed_bytes"]
    if raw_bytes == 0 or entry["tied_to"] is not None:
        return []
    if entry["order"] is not None:
        return [raw_bytes + blob_bytes]
    chunk_bytes = CONTEXT_CHUNK_BYTES if entry["codec"] == "context" else min(CHUNK_BYTES, CHUNK_WORDS * _word_bytes(entry))
    n_chunks = -(-raw_bytes // chunk_bytes)
    return [-(-blob_bytes // n_chunks)] * min(n_chunks, MAX_THREADS)


def _word_bytes(entry: dict[str, Any]) -> int:
    # Elements of less than a byte are put together into words of one.
    n_elements: int = prod(entry["shape"])
    return max(1, int(entry["raw_bytes"]) // max(1, n_elements))
