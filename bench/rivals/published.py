"""The published Python package of the same name. It works on files; with one worker it stays in this process."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from rivals import Rival, Setting

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

    from checkpoint import Checkpoint

VERSION = "4.0.0"
VERSIONS = ("1.0.0", "3.2.0", VERSION)
"""Those whose files are read here, and which read the files written for them."""


def requirements(version: str) -> tuple[str, ...]:
    return (f"bigsmall=={version}",)


RIVAL = Rival("published", (Setting(f"published bigsmall {VERSION}"),), requirements=requirements(VERSION))


def environment_name(version: str) -> str:
    """Of `environment.interpreter`."""
    return RIVAL.name if version == VERSION else f"{RIVAL.name}-{version}"


class Published:
    def __init__(self, checkpoint: Checkpoint, scratch: Path) -> None:
        # Or each import asks the package index for the newest version.
        os.environ |= {"BIGSMALL_DISABLE_VERSION_CHECK": "1", "BIGSMALL_DECODE_THREADS": "1"}
        import bigsmall

        if bigsmall.__version__ != VERSION:
            raise RuntimeError(f"this environment has bigsmall {bigsmall.__version__}, not {VERSION}")
        self.bigsmall = bigsmall
        self.checkpoint = checkpoint
        self.packed = scratch / "published.bs"

    def source(self) -> Path:
        return self.checkpoint.path

    def encode(self, source: Path) -> Path:
        self.bigsmall.compress(source, self.packed, workers=1, progress=False)
        return self.packed

    def size(self, encoded: Path) -> int:
        return encoded.stat().st_size

    def decode(self, encoded: Path) -> dict[str, np.ndarray]:
        return self.bigsmall.decompress(encoded, progress=False)

    def is_source(self, decoded: dict[str, np.ndarray]) -> bool:
        return self.checkpoint.has_arrays(decoded)

    def store(self, encoded: Path, path: Path) -> None:
        shutil.copyfile(encoded, path)

    def load(self, path: Path) -> dict[str, torch.Tensor]:
        return self.bigsmall.load(path, progress=False)


def open(checkpoint: Checkpoint, scratch: Path) -> Published:  # noqa: A001
    return Published(checkpoint, scratch)
