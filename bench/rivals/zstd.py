"""Zstandard on the bytes as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivals import BufferCodec, Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoint import Checkpoint

RIVAL = Rival(
    "zstd",
    (
        Setting("zstd -3", {"level": 3, "threads": 0}),
        Setting("zstd -3 -T2 (encode only)", {"level": 3, "threads": 2}),
    ),
    requirements=("zstandard==0.25.0",),
)


class Zstd(BufferCodec):
    def __init__(self, checkpoint: Checkpoint, level: int, threads: int) -> None:
        import zstandard

        super().__init__(checkpoint)
        self.compressor = zstandard.ZstdCompressor(level=level, threads=threads)
        self.decompressor = zstandard.ZstdDecompressor()

    def encode(self, source: memoryview) -> bytes:
        return self.compressor.compress(source)

    def decode(self, encoded: bytes) -> bytes:
        return self.decompressor.decompress(encoded)


def open(checkpoint: Checkpoint, scratch: Path, level: int, threads: int) -> Zstd:  # noqa: A001
    return Zstd(checkpoint, level, threads)
