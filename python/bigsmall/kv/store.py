"""Keys and values by layer, kept losslessly between turns: a store, not a transformers cache.

For a cache that a model can be given, see `TransformCodedCache` (with `KVPlan.lossless()` for an exact one).
"""

from dataclasses import dataclass
from typing import Any

import torch

from .int8 import dequantise_int8, quantise_int8
from .states import Pair
from .words import code_of, decode_words, encode_words


@dataclass(frozen=True)
class _Entry:
    parts: tuple[Any, Any]
    shapes: tuple[tuple[int, ...], tuple[int, ...]]
    dtype: torch.dtype
    device: torch.device
    n_bytes: int
    raw_bytes: int


class KVStore:
    """Keys and values of layers, coded when they are set and decoded when they are got. What is set again replaces what was there, in all
    counts.

    `device`: where `get` puts tensors; None for where they came from.
    """

    is_lossy = False

    def __init__(self, device: str | torch.device | None = "cpu") -> None:
        self.device = None if device is None else torch.device(device)
        self._entries: dict[int, _Entry] = {}

    def set(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep tensors of any shapes, BF16, F16, F32 or FP8. TypeError for other dtypes, or two that differ."""
        if keys.dtype != values.dtype:
            raise TypeError(f"keys are {keys.dtype} and values {values.dtype}")
        code_of(keys.dtype)
        parts = (self._encode(keys), self._encode(values))
        raw_bytes = sum(int(one.numel() * one.element_size()) for one in (keys, values))
        self._entries[layer] = _Entry(
            parts, (tuple(keys.shape), tuple(values.shape)), keys.dtype, keys.device, sum(map(self._size, parts)), raw_bytes
        )

    def append(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Add tokens `[..., T, D]` to those of the layer, if it has any."""
        if self.has(layer):
            before = self.get(layer)
            keys, values = torch.cat([before[0].to(keys.device), keys], -2), torch.cat([before[1].to(values.device), values], -2)
        self.set(layer, keys, values)

    def get(self, layer: int) -> Pair:
        """Keys and values. KeyError for a layer that was not set; CorruptError if memory was damaged."""
        entry = self._entries[layer]
        device = entry.device if self.device is None else self.device
        keys, values = (self._decode(part, entry.dtype, shape).to(device) for part, shape in zip(entry.parts, entry.shapes, strict=True))
        return keys, values

    def has(self, layer: int) -> bool:
        return layer in self._entries

    def memory_usage(self) -> int:
        """Bytes of what is kept."""
        return sum(entry.n_bytes for entry in self._entries.values())

    def raw_size(self) -> int:
        """Bytes of the tensors that were set."""
        return sum(entry.raw_bytes for entry in self._entries.values())

    def compression_ratio(self) -> float:
        """Kept bytes as a share of the tensors'; 1 for an empty store."""
        return self.memory_usage() / self.raw_size() if self.raw_size() else 1.0

    def clear(self) -> None:
        self._entries.clear()

    def __len__(self) -> int:
        return len(self._entries)

    def _encode(self, tensor: torch.Tensor) -> Any:
        return encode_words(tensor)

    def _decode(self, part: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        return decode_words(part, dtype, shape)

    def _size(self, part: Any) -> int:
        return len(part)


class CompressedKVCache(KVStore):
    """A lossless store in host memory."""


class GPUCompressedKVCache(KVStore):
    """A lossless store whose tensors come back on the device that they were on. They are coded by the CPU, and kept in host memory."""

    def __init__(self, device: str | torch.device | None = None) -> None:
        super().__init__(device)


class LossyKVCacheGPU(KVStore):
    """A store of int8 numbers with a scale for each token and head, on the tensors' own device: half of 16-bit states. Lossy."""

    is_lossy = True

    def __init__(self, device: str | torch.device | None = None) -> None:
        super().__init__(device)

    def _encode(self, tensor: torch.Tensor) -> Any:
        return quantise_int8(tensor)

    def _decode(self, part: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        numbers, scale = part
        return dequantise_int8(numbers, scale, dtype).reshape(shape)

    def _size(self, part: Any) -> int:
        return sum(int(one.numel() * one.element_size()) for one in part)


class AutoKVCache(KVStore):
    """The lossless store, with the names that callers of the older package know."""

    def __init__(self, device: str | torch.device | None = "cpu", mode: str = "auto") -> None:
        if mode not in ("auto", "cpu", "gpu"):
            raise ValueError(f"no mode {mode!r}: there are auto, cpu and gpu")
        super().__init__(device)
        self.mode = mode

    def backend_of(self, layer: int) -> str:
        """What codes a layer's tensors: always the CPU. KeyError for a layer that was not set."""
        if not self.has(layer):
            raise KeyError(layer)
        return "cpu"


def get_kv_cache(device: str | torch.device | None = "cpu", mode: str = "auto", **options: Any) -> Any:
    """A store (`mode` auto, cpu, gpu, lossy), or a transformers cache: int8 (needs `config=`), transform (needs `config=`, `basis=`,
    `plan=`). ValueError for any other mode, TypeError for
    options that it does not take."""
    stores = {"cpu": CompressedKVCache, "gpu": GPUCompressedKVCache, "lossy": LossyKVCacheGPU, "auto": AutoKVCache}
    if mode in stores:
        return stores[mode](device, **options)
    if mode == "int8":
        from .int8 import Int8KVCache

        return Int8KVCache(**options)
    if mode == "transform":
        from .cache import TransformCodedCache

        return TransformCodedCache(**options)
    raise ValueError(f"no mode {mode!r}: there are {', '.join([*stores, 'int8', 'transform'])}")
