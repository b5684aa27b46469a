"""Rotary position embedding, done and undone.

Keys are cached after each pair of coordinates was rotated by position · frequency. Rotated keys spread over more principal components than
the keys themselves, so they are turned back before they are coded and turned again afterwards. With one table for both directions that is
the identity, whatever the table: a wrong one costs compression only.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

HALF = "half"
INTERLEAVED = "interleaved"
PAIRINGS = (HALF, INTERLEAVED)
"""Coordinate i is paired with i + d/2, or 2i with 2i + 1."""

INTERLEAVED_MODELS = frozenset({"gptj", "codegen", "cohere", "cohere2", "ernie4_5", "glm", "glm4", "helium"})
"""Model types whose `apply_rotary_pos_emb` pairs neighbours."""


@dataclass(frozen=True)
class RopeTable:
    """The rotation of one layer's keys.

    `inv_freq`: radians a position, one for each pair, `rotary_dim / 2` of them. `scale`: what cosines and sines are multiplied with (YaRN,
    LongRoPE). Coordinates from `rotary_dim` on are not rotated. ValueError for a table that describes no rotation.
    """

    inv_freq: tuple[float, ...]
    head_dim: int
    pairing: str = HALF
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.pairing not in PAIRINGS:
            raise ValueError(f"no pairing {self.pairing!r}: there are {', '.join(PAIRINGS)}")
        if self.rotary_dim > self.head_dim:
            raise ValueError(f"{self.rotary_dim} coordinates cannot be rotated in heads of {self.head_dim}")
        if not (math.isfinite(self.scale) and self.scale > 0 and all(map(math.isfinite, self.inv_freq))):
            raise ValueError("frequencies and scale must be finite, and the scale positive")

    @property
    def rotary_dim(self) -> int:
        return 2 * len(self.inv_freq)

    @classmethod
    def none(cls, head_dim: int) -> "RopeTable":
        """No rotation at all."""
        return cls((), head_dim)

    @classmethod
    def from_config(cls, config: Any, layer_type: str | None = None) -> "RopeTable":
        """The table of a transformers config; without rotation where the config has no `rope_parameters`.

        Frequencies that change with the length of the sequence (dynamic, LongRoPE) are those of short ones. ValueError for an odd head
        dimension or an unknown kind of scaling.
        """
        config = config.get_text_config(decoder=True)
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        parameters = getattr(config, "rope_parameters", None)
        if parameters and "rope_type" not in parameters:
            parameters = parameters.get(layer_type or "full_attention")
        if not parameters:
            return cls.none(head_dim)
        pairing = INTERLEAVED if config.model_type in INTERLEAVED_MODELS else HALF
        kind = parameters.get("rope_type", "default")
        if kind == "default":
            share = parameters.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0))
            rotary_dim = int(head_dim * share)
            if rotary_dim % 2:
                raise ValueError(f"heads of {rotary_dim} rotated coordinates have no pairs")
            theta = parameters["rope_theta"]
            return cls(tuple(theta ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)), head_dim, pairing)
        from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

        if kind not in ROPE_INIT_FUNCTIONS:
            raise ValueError(f"rotary embeddings of kind {kind!r} are not known")
        by_layer = {"layer_type": layer_type} if "rope_type" not in config.rope_parameters else {}
        inv_freq, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), **by_layer)
        return cls(tuple(inv_freq.double().tolist()), head_dim, pairing, float(scale))

    @classmethod
    def from_model(cls, model: Any, layer_type: str | None = None) -> "RopeTable":
        """The table of a model: the frequencies of its rotary module where it has one, otherwise those of its config."""
        made = cls.from_config(model.config, layer_type)
        for module in model.modules():
            frequencies = getattr(module, f"{layer_type}_inv_freq", None)
            scale = getattr(module, f"{layer_type}_attention_scaling", None)
            if frequencies is None:
                frequencies, scale = getattr(module, "inv_freq", None), getattr(module, "attention_scaling", None)
            if isinstance(frequencies, torch.Tensor) and frequencies.ndim == 1 and 2 * len(frequencies) <= made.head_dim:
                return cls(tuple(frequencies.double().tolist()), made.head_dim, made.pairing, float(scale or 1.0))
        return made

    def undo(self, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys `[..., T, D]` (float32) as they were before positions `[T]` rotated them."""
        return self._rotate(keys, positions, -1.0, 1.0 / self.scale)

    def redo(self, keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Keys `[..., T, D]` (float32), rotated to positions `[T]`."""
        return self._rotate(keys, positions, 1.0, self.scale)

    def _rotate(self, keys: torch.Tensor, positions: torch.Tensor, sign: float, scale: float) -> torch.Tensor:
        if keys.shape[-1] != self.head_dim:
            raise ValueError(f"keys have {keys.shape[-1]} coordinates, the table is for {self.head_dim}")
        if not self.inv_freq:
            return keys
        cos, sin = _cos_sin(self.inv_freq, positions)
        cos, sin = (cos * scale).to(keys.device), (sin * (scale * sign)).to(keys.device)
        turned = keys[..., : self.rotary_dim]
        if self.pairing == HALF:
            first, second = turned.chunk(2, dim=-1)
        else:
            first, second = turned[..., 0::2], turned[..., 1::2]
        out = torch.empty_like(keys)
        half = self.rotary_dim // 2
        places = (
            (slice(0, half), slice(half, self.rotary_dim))
            if self.pairing == HALF
            else (slice(0, self.rotary_dim, 2), slice(1, self.rotary_dim, 2))
        )
        out[..., places[0]] = first * cos - second * sin
        out[..., places[1]] = second * cos + first * sin
        out[..., self.rotary_dim :] = keys[..., self.rotary_dim :]
        return out


def _cos_sin(inv_freq: tuple[float, ...], positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`[T, pairs]` float32, of angles in float64: at position 10^5 a float32 angle is off by hundredths."""
    start, n = (int(positions[0]), len(positions)) if len(positions) else (0, 0)
    if n and int(positions[-1]) == start + n - 1 and bool((positions[1:] - positions[:-1] == 1).all()):
        return _consecutive(inv_freq, start, n)
    return _of(inv_freq, positions.double().cpu())


@lru_cache(maxsize=64)
def _consecutive(inv_freq: tuple[float, ...], start: int, n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return _of(inv_freq, torch.arange(start, start + n, dtype=torch.float64))


def _of(inv_freq: tuple[float, ...], positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    angles = positions[:, None] * torch.tensor(inv_freq, dtype=torch.float64)
    return angles.cos().float(), angles.sin().float()
