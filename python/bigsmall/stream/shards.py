"""The files of a compressed model as one."""

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._core import Reader, Tensor
from ..errors import FormatError, MissingTensorError, located


class Shards:
    """All tensors of a compressed model, whichever of its files holds them.

    Threads may share it.

    Args:
        readers: the open files.

    Raises FormatError where two files have a tensor of the same name.
    """

    def __init__(self, readers: Sequence[Reader]) -> None:
        self.readers = list(readers)
        self.entries: dict[str, dict[str, Any]] = {}
        self._reader_of: dict[str, Reader] = {}
        for reader in self.readers:
            for entry in reader.entries():
                name = entry["name"]
                if name in self.entries:
                    raise located(FormatError, "is in an earlier shard too", path=reader.path, tensor=name)
                self.entries[name] = entry
                self._reader_of[name] = reader

    @property
    def bytes_read(self) -> int:
        """Bytes read from the files since they were opened, held ones each time that they are used."""
        return sum(reader.bytes_read for reader in self.readers)

    def raw_bytes(self, names: Iterable[str]) -> int:
        """Bytes of these tensors, decoded."""
        return sum(self.entries[name]["raw_bytes"] for name in names)

    def compressed_bytes(self, names: Iterable[str]) -> int:
        """Bytes of these tensors in the files, and their shares of what tensors are packed in together."""
        return sum(self.entries[name]["compressed_bytes"] for name in names)

    def tensors(self, names: Iterable[str], *, threads: int = 0) -> dict[str, Tensor]:
        """Decoded tensors by name, in the order asked for. Raises MissingTensorError, CorruptError."""
        names = list(names)
        found: dict[str, Tensor] = {}
        for reader, own in self._by_reader(names):
            for name, tensor in zip(own, reader.tensors(own, threads=threads), strict=True):
                if isinstance(tensor, BaseException):
                    raise tensor
                found[name] = tensor
        return {name: found[name] for name in names}

    def read_into(self, out: Mapping[str, Any], *, threads: int = 0) -> None:
        """Decode tensors into CPU arrays of as many bytes. Raises MissingTensorError, CorruptError."""
        for reader, own in self._by_reader(out):
            for error in reader.read_into(own, [out[name] for name in own], threads=threads):
                if error is not None:
                    raise error

    def hold(self, names: Iterable[str]) -> int:
        """Read what tensors are decoded from and hold it in memory. Returns the bytes that this takes."""
        return sum(reader.hold(own) for reader, own in self._by_reader(names))

    def release(self, names: Iterable[str]) -> None:
        """Let go of what was held for the same tensors."""
        for reader, own in self._by_reader(names):
            reader.release(own)

    def close(self) -> None:
        """Close the files; what is decoded from them afterwards is a ValueError."""
        self.readers.clear()
        self._reader_of.clear()
        self.entries.clear()

    def file_ranges(self, names: Iterable[str]) -> list[tuple[Path, int, int]]:
        """(file, first byte, one past the last) of what tensors are decoded from."""
        return [(Path(reader.path), start, stop) for reader, own in self._by_reader(names) for start, stop in reader.stored_ranges(own)]

    def _by_reader(self, names: Iterable[str]) -> Iterator[tuple[Reader, list[str]]]:
        if not self.readers:
            raise ValueError("the model is closed")
        groups: defaultdict[int, list[str]] = defaultdict(list)
        readers = {id(reader): reader for reader in self.readers}
        for name in names:
            reader = self._reader_of.get(name)
            if reader is None:
                raise located(
                    MissingTensorError, f'there is no tensor "{name}"', path=os.path.commonpath([one.path for one in self.readers])
                )
            groups[id(reader)].append(name)
        return ((readers[key], group) for key, group in groups.items())
