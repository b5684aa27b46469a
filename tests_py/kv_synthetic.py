"""Keys and values like those of a model: a few directions that carry most, tokens that resemble the one before, rotated keys."""

from functools import cache
from typing import Any

import torch
from transformers import LlamaConfig

from bigsmall.kv import KVBasis, KVCalibrator, RopeTable

CONFIG = LlamaConfig(
    hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2, head_dim=16, vocab_size=64
)
RANK = 8


def cache_of(n_tokens: int, seed: int, batch: int = 1, rotated: bool = True) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(keys, values) `[batch, 2, n_tokens, 16]` of two layers, float32."""
    table = RopeTable.from_config(CONFIG)
    model, chance = torch.Generator().manual_seed(77), torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(2):
        pair = []
        for _ in range(2):
            directions = torch.randn(RANK, 32, generator=model) * (torch.arange(1, RANK + 1) ** -0.7)[:, None]
            mean = torch.randn(32, generator=model)
            latent = torch.randn(batch, n_tokens, RANK, generator=chance)
            for t in range(1, n_tokens):
                latent[:, t] = 0.7 * latent[:, t - 1] + 0.71 * latent[:, t]
            rows = latent @ directions + 0.03 * torch.randn(batch, n_tokens, 32, generator=chance) + mean
            pair.append(rows.reshape(batch, n_tokens, 2, 16).transpose(1, 2))
        if rotated:
            pair[0] = table.redo(pair[0], torch.arange(n_tokens))
        pairs.append((pair[0], pair[1]))
    return pairs


@cache
def calibrated(group: Any, dtype: torch.dtype = torch.bfloat16) -> KVBasis:
    """A basis of three such caches."""
    calibrator = KVCalibrator(CONFIG, group=group)
    for seed in range(3):
        calibrator.observe(cache_of(400, seed))
    return calibrator.finish(dtype=dtype, description="synthetic")
