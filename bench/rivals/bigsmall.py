"""This project: a whole safetensors file to a whole `.bs` file, every digest made and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivals import Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from checkpoint import Checkpoint

MODES = ("balanced", "storage", "inference")

RIVAL = Rival(
    "bigsmall",
    (
        *(Setting(f"bigsmall {mode}", {"mode": mode, "threads": 1}) for mode in MODES),
        Setting("bigsmall balanced, 2 threads", {"mode": "balanced", "threads": 2}),
    ),
)


class BigSmall:
    def __init__(self, checkpoint: Checkpoint, mode: str, threads: int) -> None:
        import bigsmall

        self.bigsmall = bigsmall
        self.checkpoint = checkpoint
        self.mode = mode
        self.threads = threads

    def source(self) -> bytes:
        return self.checkpoint.file

    def encode(self, source: bytes) -> bytes:
        return self.bigsmall._core.compress_bytes(source, mode=self.mode, threads=self.threads)

    def size(self, encoded: bytes) -> int:
        return len(encoded)

    def decode(self, encoded: bytes) -> bytes:
        return self.bigsmall._core.decompress_bytes(encoded, threads=self.threads)

    def is_source(self, decoded: bytes) -> bool:
        return decoded == self.checkpoint.file

    def store(self, encoded: bytes, path: Path) -> None:
        path.write_bytes(encoded)

    def load(self, path: Path) -> dict[str, torch.Tensor]:
        return self.bigsmall.load(path, threads=self.threads)


def open(checkpoint: Checkpoint, scratch: Path, mode: str, threads: int) -> BigSmall:  # noqa: A001
    return BigSmall(checkpoint, mode, threads)
