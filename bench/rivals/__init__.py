"""The compressors that are compared, one file each, behind one interface.

A rival's module has `RIVAL`, which says what it is and at which settings it runs, and `open`, which makes its `Codec`. Only `open`
imports the package behind it, which may be in another environment.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import torch

    from checkpoint import Checkpoint

MODULES = ("copy", "zstd", "blosc2", "pcodec", "zipnn", "published", "bigsmall")


@dataclass(frozen=True)
class Setting:
    """A rival at one setting. `options` go to its module's `open`."""

    label: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rival:
    """`requirements`, arguments for `pip install`, go into an environment of its own; without any it runs in the harness's.

    `dtypes` are those it applies to.
    """

    name: str
    settings: tuple[Setting, ...]
    requirements: tuple[str, ...] = ()
    dtypes: frozenset[str] = frozenset({"BF16", "F16", "F32", "F8_E4M3"})

    def applies_to(self, checkpoint: Checkpoint) -> bool:
        return checkpoint.dtype in self.dtypes

    def setting(self, label: str) -> Setting:
        return next(setting for setting in self.settings if setting.label == label)


class Codec(Protocol):
    """One checkpoint under one rival."""

    def source(self) -> Any:
        """What `encode` takes, made for one call."""

    def encode(self, source: Any) -> Any:
        """Compress the checkpoint, in memory."""

    def size(self, encoded: Any) -> int:
        """Bytes that a file of it takes, all metadata included."""

    def decode(self, encoded: Any) -> Any:
        """Decompress it, in memory."""

    def is_source(self, decoded: Any) -> bool:
        """Whether what was decoded is the checkpoint, byte for byte."""

    def store(self, encoded: Any, path: Path) -> None:
        """Write a file."""

    def load(self, path: Path) -> dict[str, torch.Tensor]:
        """The tensors of a stored file, ready for use."""


class BufferCodec(ABC):
    """A `Codec` of compressors that know only buffers: the checkpoint's data is one, its header is kept as it is.

    One buffer for all tensors is the best case for them: no tensor pays for tables or a frame of its own.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def source(self) -> Any:
        return self.checkpoint.data

    @abstractmethod
    def encode(self, source: Any) -> Any:
        """Compress the buffer."""

    @abstractmethod
    def decode(self, encoded: Any) -> Any:
        """The buffer again."""

    def size(self, encoded: Any) -> int:
        return len(self.checkpoint.header) + len(encoded)

    def is_source(self, decoded: Any) -> bool:
        return self.checkpoint.is_data(decoded)

    def store(self, encoded: Any, path: Path) -> None:
        with path.open("wb") as file:
            file.write(self.checkpoint.header)
            file.write(encoded)

    def load(self, path: Path) -> dict[str, torch.Tensor]:
        with path.open("rb") as file:
            file.seek(len(self.checkpoint.header))
            return self.checkpoint.tensors(self.decode(file.read()))


def all_rivals() -> list[Rival]:
    return [importlib.import_module(f"rivals.{name}").RIVAL for name in MODULES]


def open_codec(name: str, label: str, checkpoint: Checkpoint, scratch: Path) -> Codec:
    """The codec of a rival's setting; `scratch` is a directory for those that work on files only."""
    module = importlib.import_module(f"rivals.{name}")
    codec: Codec = module.open(checkpoint, scratch, **module.RIVAL.setting(label).options)
    return codec
