"""A safetensors file in memory, as the rivals see it."""

from __future__ import annotations

import json
import struct
from collections import Counter
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import torch

TORCH_DTYPES = {
    "BF16": "bfloat16",
    "F16": "float16",
    "F32": "float32",
    "F8_E4M3": "float8_e4m3fn",
    "I64": "int64",
}


class Entry(NamedTuple):
    """One tensor; `start` and `end` are bytes from the beginning of the data."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


class Checkpoint:
    """The whole file, its data (everything after the header) as one buffer, and its tensors."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.read_bytes()
        (header_bytes,) = struct.unpack_from("<Q", self.file)
        self.header = self.file[: 8 + header_bytes]
        self.data = memoryview(self.file)[8 + header_bytes :]
        self.entries = {
            name: Entry(facts["dtype"], tuple(facts["shape"]), *facts["data_offsets"])
            for name, facts in json.loads(self.header[8:]).items()
            if name != "__metadata__"
        }

    @property
    def dtype(self) -> str:
        """The dtype that most of the bytes have."""
        sizes: Counter[str] = Counter()
        for entry in self.entries.values():
            sizes[entry.dtype] += entry.end - entry.start
        return sizes.most_common(1)[0][0]

    @property
    def word_bytes(self) -> int:
        entry = next(entry for entry in self.entries.values() if entry.dtype == self.dtype)
        return (entry.end - entry.start) // prod(entry.shape)

    def matrices(self) -> tuple[bytes, int]:
        """The matrices of the main dtype back to back, and the row length in words of the largest."""
        entries = [entry for entry in self.entries.values() if entry.dtype == self.dtype and len(entry.shape) == 2]
        largest = max(entries, key=lambda entry: entry.end - entry.start)
        return b"".join(self.data[entry.start : entry.end] for entry in entries), largest.shape[1]

    def tensors(self, data: object) -> dict[str, torch.Tensor]:
        """The tensors as views of `data`, a decoded copy of this file's data."""
        import torch

        return {
            name: torch.frombuffer(data, dtype=getattr(torch, TORCH_DTYPES[entry.dtype]), count=prod(entry.shape), offset=entry.start).view(
                entry.shape
            )
            for name, entry in self.entries.items()
        }

    def is_data(self, data: bytes | bytearray | np.ndarray) -> bool:
        """Whether `data`, any buffer, holds exactly this file's data."""
        return np.array_equal(np.frombuffer(memoryview(data).cast("B"), np.uint8), np.frombuffer(self.data, np.uint8))

    def has_arrays(self, arrays: Mapping[str, np.ndarray]) -> bool:
        """Whether the arrays have this file's names and bytes, whatever numpy calls their dtypes."""
        return arrays.keys() == self.entries.keys() and all(
            np.array_equal(
                np.ascontiguousarray(array).reshape(-1).view(np.uint8),
                np.frombuffer(self.data[self.entries[name].start : self.entries[name].end], np.uint8),
            )
            for name, array in arrays.items()
        )

    def has_tensors(self, tensors: Mapping[str, torch.Tensor]) -> bool:
        """Whether the torch tensors have this file's names and bytes."""
        import torch

        return self.has_arrays({name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy() for name, tensor in tensors.items()})


def write(path: Path, dtype: str, shapes: Mapping[str, tuple[int, ...]], chunks: Iterable[memoryview], word_bytes: int = 2) -> None:
    """Write a safetensors file of one dtype of `word_bytes`; `chunks` are its tensors' bytes in order, in pieces of any size."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, shape in shapes.items():
        end = offset + word_bytes * prod(shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for chunk in chunks:
            file.write(chunk)
