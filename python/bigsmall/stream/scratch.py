"""Memory that layers are decoded into, one after the other."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from ..dtypes import array_shape
from ..torch import dtype_of
from .shards import Shards

ALIGN = 64
"""Tensors begin at multiples of this, as in memory of their own."""


def size(entries: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> int:
    """Bytes that these tensors take in scratch memory."""
    return sum(_aligned(entries[name]["raw_bytes"]) for name in names)


def _aligned(n_bytes: int) -> int:
    return -(-n_bytes // ALIGN) * ALIGN


class Scratch:
    """Memory for the tensors of one layer at a time.

    Args:
        n_bytes: what the largest layer takes, see `size`.
        device: where the tensors are to be. Another than the processor gets them by way of as much memory of the processor.
    """

    def __init__(self, n_bytes: int, device: torch.device) -> None:
        self._host = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._memory = self._host if device.type == "cpu" else torch.empty(n_bytes, dtype=torch.uint8, device=device)
        self._used: torch.cuda.Event | None = None
        self.parameters: dict[int, dict[str, torch.nn.Parameter]] = {}
        """Views of this memory as the parameters of layers, by the layer's number."""

    @property
    def n_bytes(self) -> int:
        """All that it takes, on the device and beside it."""
        return self._host.nbytes + (0 if self._memory is self._host else self._memory.nbytes)

    def decode(self, shards: Shards, names: Iterable[str], threads: int) -> dict[str, torch.Tensor]:
        """Decode tensors here. What was here before is gone. Raises MissingTensorError, CorruptError."""
        places: dict[str, tuple[int, int]] = {}
        start = 0
        for name in names:
            n_bytes = shards.entries[name]["raw_bytes"]
            places[name] = (start, start + n_bytes)
            start += _aligned(n_bytes)
        shards.read_into({name: self._host[first:last] for name, (first, last) in places.items()}, threads=threads)
        if self._memory is not self._host:
            self._copy(start)
        return {name: self._view(shards.entries[name], *place) for name, place in places.items()}

    def mark_used(self) -> None:
        """Note that the device has been told to compute with what is here, and may not have done so yet."""
        if self._memory.device.type == "cuda":
            self._used = torch.cuda.current_stream(self._memory.device).record_event()

    def _copy(self, n_bytes: int) -> None:
        if self._memory.device.type != "cuda":
            self._memory[:n_bytes].copy_(self._host[:n_bytes])
            return
        # Beside what the device computes meanwhile, except with what is still here.
        stream = torch.cuda.Stream(self._memory.device)  # type: ignore[no-untyped-call]
        if self._used is not None:
            stream.wait_event(self._used)
        with torch.cuda.stream(stream):
            self._memory[:n_bytes].copy_(self._host[:n_bytes], non_blocking=True)
        stream.synchronize()

    def _view(self, entry: Mapping[str, Any], first: int, last: int) -> torch.Tensor:
        data = self._memory[first:last]
        return data.view(dtype_of(entry["dtype"])).reshape(array_shape(entry["dtype"], tuple(entry["shape"])))
