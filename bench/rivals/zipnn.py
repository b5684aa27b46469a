"""ZipNN: bytes of equal weight gathered, Huffman codes for those that repeat."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivals import BufferCodec, Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoint import Checkpoint

NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F8_E4M3": "float8_e4m3fn"}

RIVAL = Rival(
    "zipnn",
    (Setting("zipnn", {"threads": 1}), Setting("zipnn, 2 threads", {"threads": 2})),
    # What it depends on is in the harness, where torch may lack the libraries for GPUs, which pip would add here.
    requirements=("--no-deps", "zipnn==0.5.4"),
    dtypes=frozenset(NAMES),
)


class ZipNN(BufferCodec):
    def __init__(self, checkpoint: Checkpoint, threads: int) -> None:
        import zipnn

        super().__init__(checkpoint)
        self.zipnn = zipnn.ZipNN(input_format="byte", bytearray_dtype=NAMES[checkpoint.dtype], threads=threads)

    def source(self) -> bytearray:
        # ZipNN reorders the bytes of its input in place.
        return bytearray(self.checkpoint.data)

    def encode(self, source: bytearray) -> bytes:
        return self.zipnn.compress(source)

    def decode(self, encoded: bytes) -> bytes:
        return self.zipnn.decompress(encoded)


def open(checkpoint: Checkpoint, scratch: Path, threads: int) -> ZipNN:  # noqa: A001
    return ZipNN(checkpoint, threads)
