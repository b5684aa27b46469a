"""pcodec at its default level. It has no BF16, whose words it takes as integers, and advises against numbers of 8 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from rivals import BufferCodec, Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoint import Checkpoint

NUMPY_DTYPES = {"BF16": "<u2", "F16": "<f2", "F32": "<f4"}

RIVAL = Rival("pcodec", (Setting("pcodec, level 8"),), requirements=("pcodec==1.1.0",), dtypes=frozenset(NUMPY_DTYPES))


class Pcodec(BufferCodec):
    def __init__(self, checkpoint: Checkpoint) -> None:
        from pcodec import ChunkConfig, standalone

        super().__init__(checkpoint)
        self.standalone = standalone
        self.config = ChunkConfig(compression_level=8)
        self.dtype = NUMPY_DTYPES[checkpoint.dtype]

    def encode(self, source: memoryview) -> bytes:
        return self.standalone.simple_compress(np.frombuffer(source, self.dtype), self.config)

    def decode(self, encoded: bytes) -> np.ndarray:
        return self.standalone.simple_decompress(encoded)


def open(checkpoint: Checkpoint, scratch: Path) -> Pcodec:  # noqa: A001
    return Pcodec(checkpoint)
