"""Keys and values of whatever holds them."""

from collections.abc import Sequence
from typing import Any

import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def layer_pairs(past_key_values: Any) -> list[Pair]:
    """(keys, values), each `[B, H, T, D]`, of every layer of a transformers cache, a sequence of pairs, or a pair of `[L, H, T, D]`
    tensors.

    TypeError for anything else; ValueError for layers whose keys and values differ in shape (latent attention), which cannot be coded.
    """
    layers = getattr(past_key_values, "layers", None)
    if layers is not None:
        pairs = [(layer.keys, layer.values) for layer in layers if getattr(layer, "keys", None) is not None]
    elif isinstance(past_key_values, Sequence) and len(past_key_values) == 2 and all(_is_stacked(one) for one in past_key_values):
        keys, values = past_key_values
        pairs = [(k[None], v[None]) for k, v in zip(keys, values, strict=True)]
    elif isinstance(past_key_values, Sequence):
        pairs = [(pair[0], pair[1]) for pair in past_key_values]
    else:
        raise TypeError(f"{type(past_key_values).__name__} is no cache of keys and values")
    for i, (keys, values) in enumerate(pairs):
        check_pair(keys, values, i)
    return pairs


def check_pair(keys: torch.Tensor, values: torch.Tensor, layer: int) -> None:
    """ValueError unless both are `[B, H, T, D]` of one shape."""
    if keys.ndim != 4 or keys.shape != values.shape:
        raise ValueError(
            f"layer {layer} has keys {list(keys.shape)} and values {list(values.shape)}: only caches whose keys and values are both "
            "[batch, heads, tokens, head_dim] can be coded; those of latent attention cannot"
        )


def columns(states: Sequence[torch.Tensor], heads: tuple[int, ...]) -> torch.Tensor:
    """States `[B, H, T, D]` of several layers as rows `[B, T, layers · heads · D]`."""
    if len(heads) == states[0].shape[1]:
        parts = [state.transpose(1, 2).flatten(2) for state in states]
    else:
        parts = [state[:, list(heads)].transpose(1, 2).flatten(2) for state in states]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)


def _is_stacked(one: Any) -> bool:
    return isinstance(one, torch.Tensor) and one.ndim == 4
