"""Where keys and values are coded: the principal components of each group of their columns, fitted once for a model."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..errors import FormatError
from .rope import RopeTable

KEY, VALUE = "k", "v"
FORMAT = "bigsmall-kv-basis"
N_BINS = 129
"""Bins of a component's histogram: each an eighth of its standard deviation wide, the middle one around 0, the outermost ones with all
beyond."""
BIN_SIGMA = 0.125
MAX_FIXED_BITS = 16


@dataclass(frozen=True)
class Group:
    """Columns that are coded together: heads `heads` of layers `layers`, keys or values, side by side in that order.

    `mean` `[p]`, `vectors` `[p, r]` orthonormal columns by falling variance, `variances` `[r]` (float32); `counts` `[r, N_BINS]` int64, the
    histogram of
    each coefficient; `minmax` `[r, 17]` float32, mean squared error of min-max indices of 0 … 16 bits.
    """

    kind: str
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    mean: torch.Tensor
    vectors: torch.Tensor
    variances: torch.Tensor
    counts: torch.Tensor
    minmax: torch.Tensor

    @property
    def n_columns(self) -> int:
        return int(self.mean.shape[0])

    @cached_property
    def sigma(self) -> float:
        """Root mean square of the group's columns about their mean."""
        return float((self.variances.double().sum() / self.n_columns).sqrt())


TENSORS = ("mean", "vectors", "variances", "counts", "minmax")


@dataclass(frozen=True)
class KVBasis:
    """The basis of a model. Save it once, next to the model; caches name it by its `id`."""

    groups: tuple[Group, ...]
    rope: tuple[RopeTable, ...]
    """One table a layer."""
    heads: tuple[int, ...]
    head_dims: tuple[int, ...]
    sink: int
    description: Mapping[str, Any]
    """What it was fitted on."""

    @property
    def n_layers(self) -> int:
        return len(self.heads)

    @cached_property
    def layer_sets(self) -> tuple[tuple[int, ...], ...]:
        """Layers that are coded together."""
        return tuple(sorted({group.layers for group in self.groups}))

    def groups_of(self, layers: tuple[int, ...]) -> list[tuple[int, Group]]:
        """Groups of a set of layers, with their numbers."""
        return [(i, group) for i, group in enumerate(self.groups) if group.layers == layers]

    @cached_property
    def id(self) -> str:
        """32 hexadecimal digits: the MD5 of all that coding depends on."""
        digest = hashlib.md5(usedforsecurity=False)
        digest.update(json.dumps(self._metadata(), sort_keys=True).encode())
        for name, tensor in sorted(self._tensors().items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def plan(self, **options: Any) -> Any:
        """A plan for this basis; see `bigsmall.kv.plan.make_plan`."""
        from .plan import make_plan

        return make_plan(self, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file."""
        from safetensors.torch import save_file

        header = {"id": self.id, "description": dict(self.description), **self._metadata()}
        # One entry: with several, safetensors writes them in any order.
        save_file(self._tensors(), os.fspath(path), metadata={FORMAT: json.dumps(header)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "KVBasis":
        """The basis of a file. FormatError if it is none, or not what its id says."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(os.fspath(path), "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise FormatError(f"{Path(path)}: no basis of a cache: {error}") from None
        if FORMAT not in metadata:
            raise FormatError(f"{Path(path)}: no basis of a cache")
        try:
            header = json.loads(metadata[FORMAT])
            made = cls._from(header, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise FormatError(f"{Path(path)}: the basis contradicts itself: {error}") from None
        if made.id != header.get("id"):
            raise FormatError(f"{Path(path)}: the basis is not the one that its id names")
        return made

    @classmethod
    def _from(cls, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> "KVBasis":
        groups = []
        for i, one in enumerate(header["groups"]):
            parts = {name: tensors[f"g{i}.{name}"] for name in TENSORS}
            p, r = parts["vectors"].shape
            shapes = {"mean": (p,), "variances": (r,), "counts": (r, N_BINS), "minmax": (r, MAX_FIXED_BITS + 1)}
            if any(tuple(parts[name].shape) != shape for name, shape in shapes.items()):
                raise ValueError(f"group {i} has tensors of other shapes")
            if one["kind"] not in (KEY, VALUE):
                raise ValueError(f"group {i} is of neither keys nor values")
            groups.append(Group(one["kind"], tuple(one["layers"]), tuple(one["heads"]), **{**parts, "vectors": parts["vectors"].float()}))
        rope = tuple(RopeTable(tuple(one["inv_freq"]), one["head_dim"], one["pairing"], one["scale"]) for one in header["rope"])
        return cls(tuple(groups), rope, tuple(header["heads"]), tuple(header["head_dims"]), header["sink"], header["description"])

    def _metadata(self) -> dict[str, Any]:
        return {
            "groups": [{"kind": g.kind, "layers": list(g.layers), "heads": list(g.heads)} for g in self.groups],
            "rope": [{"inv_freq": list(t.inv_freq), "head_dim": t.head_dim, "pairing": t.pairing, "scale": t.scale} for t in self.rope],
            "heads": list(self.heads),
            "head_dims": list(self.head_dims),
            "sink": self.sink,
        }

    def _tensors(self) -> dict[str, torch.Tensor]:
        tensors = {}
        for i, group in enumerate(self.groups):
            for name in TENSORS:
                tensor = getattr(group, name)
                tensors[f"g{i}.{name}"] = (narrowest(tensor) if name == "vectors" else tensor).contiguous()
        return tensors


def narrowest(tensor: torch.Tensor) -> torch.Tensor:
    """The same numbers in the smallest float dtype that holds them exactly."""
    for dtype in (torch.bfloat16, torch.float16):
        narrow = tensor.to(dtype)
        if torch.equal(narrow.float(), tensor):
            return narrow
    return tensor
