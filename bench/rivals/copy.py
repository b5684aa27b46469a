"""No compression: what memory itself allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rivals import BufferCodec, Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    from checkpoint import Checkpoint

RIVAL = Rival("copy", (Setting("copy in memory"),))


class Copy(BufferCodec):
    def encode(self, source: memoryview) -> bytearray:
        return bytearray(source)

    def decode(self, encoded: bytes) -> bytearray:
        return bytearray(encoded)


def open(checkpoint: Checkpoint, scratch: Path) -> Copy:  # noqa: A001
    return Copy(checkpoint)
