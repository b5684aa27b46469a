"""What the operating system is told about the files that layers are decoded from."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .shards import Shards

if TYPE_CHECKING:
    from pathlib import Path


class PageCache:
    """Has the system read ahead what will be decoded, and, where files are to stay on disk, forget what has been.

    Where a system takes no advice, nothing is done.

    Args:
        shards: the files.
        forget: whether pages leave the system's cache once they have been decoded.
    """

    def __init__(self, shards: Shards, *, forget: bool) -> None:
        self._shards = shards
        self._forget = forget
        self._files: dict[Path, int] = {}
        self._expected: tuple[str, ...] = ()

    def expect(self, names: Sequence[str]) -> None:
        """Tensors that will be decoded soon."""
        wanted = tuple(names)
        if wanted != self._expected:
            self._expected = wanted
            self._advise(names, "POSIX_FADV_WILLNEED")

    def done(self, names: Sequence[str]) -> None:
        """Tensors that have been decoded."""
        if self._forget:
            self._advise(names, "POSIX_FADV_DONTNEED")

    def close(self) -> None:
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _advise(self, names: Sequence[str], advice: str) -> None:
        if not names or not hasattr(os, "posix_fadvise"):
            return
        for path, start, stop in self._shards.file_ranges(names):
            if path not in self._files:
                self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            os.posix_fadvise(self._files[path], start, stop - start, getattr(os, advice))
