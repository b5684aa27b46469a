"""A cache that keeps keys and values as bytes with a scale for each token and head."""

from typing import Any

import torch
from transformers.cache_utils import DYNAMIC_LAYER_TYPE_MAPPING, Cache, DynamicLayer, get_layer_types_and_kwargs

from .states import Pair, check_pair

LARGEST = 127


def quantise_int8(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """States `[..., D]` as int8 and F16 scales `[...]`: round(x / scale), scale = max |x| / 127. Numbers that are not finite stay what they
    are only as far as a scale can tell: ValueError."""
    if not bool(states.isfinite().all()):
        raise ValueError("keys or values are not finite: they have no scale")
    scale = (states.float().abs().amax(-1) / LARGEST).half()
    # A scale that F16 rounds to zero would divide by it; one beyond its range cannot be stored.
    scale = scale.clamp(torch.finfo(torch.float16).smallest_normal, torch.finfo(torch.float16).max)
    return (states.float() / scale.float().unsqueeze(-1)).round().clamp(-LARGEST, LARGEST).to(torch.int8), scale


def dequantise_int8(numbers: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The states, in `dtype`."""
    return (numbers.float() * scale.float().unsqueeze(-1)).to(dtype)


class Int8Layer(DynamicLayer):
    """Keys and values as int8 `[B, H, T, D]` and F16 scales `[B, H, T]`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__()
        self.key_scale: torch.Tensor | None = None
        self.value_scale: torch.Tensor | None = None

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        check_pair(key_states, value_states, -1)
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.key_scale = quantise_int8(key_states[:, :, :0])
        self.values, self.value_scale = quantise_int8(value_states[:, :, :0])
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Pair:
        """Append tokens; all keys and values in the dtype that they came in, those of this call included, from their bytes."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        for name, states in (("key", key_states), ("value", value_states)):
            numbers, scale = quantise_int8(states)
            setattr(self, f"{name}s", torch.cat([getattr(self, f"{name}s"), numbers], dim=2))
            setattr(self, f"{name}_scale", torch.cat([getattr(self, f"{name}_scale"), scale], dim=2))
        return self.all_states()

    def all_states(self) -> Pair:
        """Keys and values of all tokens, `[B, H, T, D]`."""
        assert self.key_scale is not None
        assert self.value_scale is not None
        return dequantise_int8(self.keys, self.key_scale, self.dtype), dequantise_int8(self.values, self.value_scale, self.dtype)

    def reset(self) -> None:
        super().reset()
        self.key_scale = self.value_scale = None

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)
        if self.key_scale is not None and self.value_scale is not None:
            n = self.keys.shape[2]
            self.key_scale, self.value_scale = self.key_scale[:, :, :n], self.value_scale[:, :, :n]

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._scales(lambda scale: scale.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._scales(lambda scale: scale[indices])

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        super().reorder_cache(beam_idx)
        self._scales(lambda scale: scale.index_select(0, beam_idx.to(scale.device)))

    def _scales(self, change: Any) -> None:
        if self.key_scale is not None and self.value_scale is not None and self.get_seq_length():
            self.key_scale, self.value_scale = change(self.key_scale), change(self.value_scale)


class Int8KVCache(Cache):
    """A drop-in for transformers' `DynamicCache` in a little more than half the memory of 16-bit states: 2 · layers · heads · (head_dim +
    2) bytes a token.

    Lossy: each number is off by up to half of its token's and head's scale. Layers that are not full attention are those of `DynamicCache`.
    """

    def __init__(self, config: Any) -> None:
        layer_types, per_layer = get_layer_types_and_kwargs(config.get_text_config(decoder=True))
        layers = [
            Int8Layer() if kind == "full_attention" else DYNAMIC_LAYER_TYPE_MAPPING[kind](**kwargs)
            for kind, kwargs in zip(layer_types, per_layer, strict=True)
        ]
        super().__init__(layers=layers)

    def nbytes(self) -> int:
        """Bytes of all numbers and scales, of the layers that are kept as such."""
        layers = [layer for layer in self.layers if isinstance(layer, Int8Layer) and layer.is_initialized]
        tensors: list[Any] = [tensor for layer in layers for tensor in (layer.keys, layer.values, layer.key_scale, layer.value_scale)]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
