"""Blosc2: bits of equal weight gathered by a shuffle, then Zstandard."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivals import BufferCodec, Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoint import Checkpoint

RIVAL = Rival("blosc2", (Setting("blosc2 bitshuffle + zstd, level 5"),), requirements=("blosc2==4.14.1",))


class Blosc2(BufferCodec):
    def __init__(self, checkpoint: Checkpoint) -> None:
        import blosc2

        super().__init__(checkpoint)
        self.blosc2 = blosc2
        blosc2.set_nthreads(1)
        self.options = {
            "codec": blosc2.Codec.ZSTD,
            "clevel": 5,
            "typesize": checkpoint.word_bytes,
            "filters": [blosc2.Filter.BITSHUFFLE],
            "filters_meta": [0],
            "nthreads": 1,
        }

    def encode(self, source: memoryview) -> bytes:
        return self.blosc2.compress2(source, **self.options)

    def decode(self, encoded: bytes) -> bytes:
        return self.blosc2.decompress2(encoded, nthreads=1)


def open(checkpoint: Checkpoint, scratch: Path) -> Blosc2:  # noqa: A001
    return Blosc2(checkpoint)
