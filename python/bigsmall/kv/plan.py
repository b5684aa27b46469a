"""How finely a basis' components are kept: a step with entropy-coded indices, fixed widths, or everything."""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from .. import _core
from ..errors import FormatError
from .basis import BIN_SIGMA, KEY, MAX_FIXED_BITS, N_BINS, Group, KVBasis
from .quantise import gaussian_levels

ENTROPY, FIXED, LOSSLESS = "entropy", "fixed", "lossless"
MODES = (ENTROPY, FIXED, LOSSLESS)
MINMAX, LLOYD = "minmax", "lloyd"
RADIUS = 127
"""Largest index with a symbol of its own."""
MAX_EVALUATED = 2047
"""Largest index that is told apart when a step is judged."""
LEAST_BITS = 0.01
"""Components whose index would carry less are not coded."""
LEAST_COUNT = 20
"""Counts from which the mean of what was counted represents an index better than its middle does."""
DEAD_ZONE = 0.12
LLOYD_BITS = 8
FORMAT = "bigsmall-kv-plan"
N_BISECTIONS = 24


@dataclass(frozen=True)
class GroupPlan:
    """What is kept of a group: components `kept` `[r']` (int64).

    With a step: `step`, frequencies `freqs` of each component's indices, their values `centroids` `[r', 2A + 1]`. With fixed widths:
    `widths` `[r']`
    (uint8), and for Lloyd's levels `sigmas` `[r']`.
    """

    kept: torch.Tensor
    step: float = 0.0
    freqs: tuple[tuple[int, ...], ...] = ()
    centroids: torch.Tensor | None = None
    widths: torch.Tensor | None = None
    sigmas: torch.Tensor | None = None


@dataclass(frozen=True)
class KVPlan:
    """How caches are coded in a basis. `expected_bits`: bits an element of the calibration data, without sinks, window and heads;
    `expected_nmse`: squared error as a share of the
    variance. A plan without groups is lossless and needs no basis."""

    mode: str
    quantiser: str
    basis_id: str
    groups: tuple[GroupPlan, ...]
    dead_zone: float
    expected_bits: float
    expected_nmse: float

    @property
    def is_lossy(self) -> bool:
        return self.mode != LOSSLESS

    @classmethod
    def lossless(cls) -> "KVPlan":
        """Every word is kept."""
        return cls(LOSSLESS, "", "", (), 0.0, math.nan, 0.0)

    @cached_property
    def id(self) -> str:
        """32 hexadecimal digits: the MD5 of the stored form, or nothing for the lossless plan."""
        return hashlib.md5(self.to_bytes(), usedforsecurity=False).hexdigest() if self.is_lossy else ""

    def to_bytes(self) -> bytes:
        """A safetensors file, the same bytes for the same plan."""
        from safetensors.torch import save

        tensors = {}
        for i, group in enumerate(self.groups):
            for name in ("kept", "centroids", "widths", "sigmas"):
                if getattr(group, name) is not None:
                    tensors[f"g{i}.{name}"] = getattr(group, name).contiguous()
        header = {
            "mode": self.mode,
            "quantiser": self.quantiser,
            "basis": self.basis_id,
            "dead_zone": self.dead_zone,
            "expected_bits": None if math.isnan(self.expected_bits) else self.expected_bits,
            "expected_nmse": self.expected_nmse,
            "groups": [{"step": group.step, "freqs": group.freqs} for group in self.groups],
        }
        return bytes(save(tensors, metadata={FORMAT: json.dumps(header, sort_keys=True)}))

    @classmethod
    def from_bytes(cls, data: bytes) -> "KVPlan":
        """The plan of `to_bytes`. FormatError if it is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            tensors = load(data)
            metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
            header = json.loads(metadata[FORMAT])
            groups = tuple(_group_of(i, one, tensors) for i, one in enumerate(header["groups"]))
            bits = header["expected_bits"]
            return cls(
                header["mode"],
                header["quantiser"],
                header["basis"],
                groups,
                header["dead_zone"],
                math.nan if bits is None else bits,
                header["expected_nmse"],
            )
        except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(f"this is no plan of a cache: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file."""
        Path(path).write_bytes(self.to_bytes())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "KVPlan":
        """The plan of a file. FormatError if it is none."""
        return cls.from_bytes(Path(path).read_bytes())


def _group_of(i: int, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> GroupPlan:
    kept = tensors[f"g{i}.kept"]
    freqs = tuple(tuple(one) for one in header["freqs"])
    optional = {name: tensors.get(f"g{i}.{name}") for name in ("centroids", "widths", "sigmas")}
    lengths = {len(one) for one in optional.values() if one is not None} | ({len(freqs)} if freqs else set())
    if kept.ndim != 1 or kept.dtype != torch.int64 or lengths - {len(kept)}:
        raise ValueError(f"group {i} contradicts itself")
    return GroupPlan(kept, header["step"], freqs, **optional)


def make_plan(
    basis: KVBasis,
    *,
    ratio: float | None = None,
    bits: float | None = None,
    step: float | None = None,
    max_nmse: float | None = None,
    mode: str = ENTROPY,
    quantiser: str | None = None,
    method: str = "hull",
    key_weight: float = 1.0,
    value_weight: float = 1.0,
    dead_zone: float = DEAD_ZONE,
) -> KVPlan:
    """A plan for one wish: `ratio` (16-bit elements to coded ones), `bits` an element, `step` in units of each group's standard deviation,
    or `max_nmse`.

    `mode` "entropy" codes indices of one step with tables, "fixed" gives each component a width by `method` (greedy, hull, dp) and no step
    or nmse, "lossless" keeps every word and needs no wish.
    `quantiser`: "deadzone" for entropy; "minmax" (default) or "lloyd" for fixed. Weights above 1 make keys or values finer: they are those
    of their squared errors. ValueError for what cannot be.
    """
    if mode == LOSSLESS:
        return KVPlan.lossless()
    wishes = {"ratio": ratio, "bits": bits, "step": step, "max_nmse": max_nmse}
    given = {name: value for name, value in wishes.items() if value is not None}
    if len(given) != 1:
        raise ValueError(f"a plan needs one of {', '.join(wishes)}")
    ((wish, value),) = given.items()
    if not (math.isfinite(value) and value > 0 and key_weight > 0 and value_weight > 0 and 0 <= dead_zone < 0.5):
        raise ValueError("wishes and weights must be positive, and the dead zone below a half")
    if mode == ENTROPY and quantiser in (None, "deadzone"):
        weights = [key_weight if group.kind == KEY else value_weight for group in basis.groups]
        return _entropy_plan(basis, wish, value, weights, dead_zone)
    if mode == FIXED and quantiser in (None, MINMAX, LLOYD):
        if wish not in ("ratio", "bits"):
            raise ValueError("fixed widths are asked for by ratio or bits")
        # Of equal weighted errors w · 4^-b, whose widths lie half a bit apart for each doubling of a weight.
        shift = math.log2(key_weight / value_weight) / 4
        return _fixed_plan(basis, 16 / value if wish == "ratio" else value, quantiser or MINMAX, method, shift)
    raise ValueError(f"no mode {mode!r} with quantiser {quantiser!r}")


def _entropy_plan(basis: KVBasis, wish: str, value: float, weights: list[float], dead_zone: float) -> KVPlan:
    at = _Evaluation(basis, weights, dead_zone)
    if wish == "step":
        step = value
    elif wish == "max_nmse":
        step = _bisect(lambda step: at(step).nmse <= value)
    else:
        bits = 16 / value if wish == "ratio" else value
        # The finest step that does not take more bits.
        step = 1 / _bisect(lambda inverse: at(1 / inverse).bits <= bits)
    found = at(step)
    return KVPlan(ENTROPY, "deadzone", basis.id, tuple(found.groups), dead_zone, found.bits, found.nmse)


def _bisect(holds: Callable[[float], bool]) -> float:
    """About the largest number of 2^-12 … 2^12 for which `holds`, which small ones fulfil and large ones do not."""
    low, high = -12.0, 12.0
    for _ in range(N_BISECTIONS):
        middle = (low + high) / 2
        if holds(2.0**middle):
            low = middle
        else:
            high = middle
    return float(2.0**low)


@dataclass(frozen=True)
class _Found:
    groups: list[GroupPlan]
    bits: float
    nmse: float


class _Evaluation:
    """What a step would take and lose, from the histograms of calibration."""

    def __init__(self, basis: KVBasis, weights: list[float], dead_zone: float) -> None:
        self.basis, self.weights, self.dead_zone = basis, weights, dead_zone
        self.densities = [_Density(group) for group in basis.groups]

    def __call__(self, step: float) -> _Found:
        plans, total_bits, total_columns, nmse = [], 0.0, 0, 0.0
        for group, weight, density in zip(self.basis.groups, self.weights, self.densities, strict=True):
            delta = max(step * group.sigma / math.sqrt(weight), 1e-30)
            plan, bits, error = _group_plan(group, density, delta, self.dead_zone)
            plans.append(plan)
            total_bits += bits
            total_columns += group.n_columns
            nmse += error / max(float(group.variances.double().sum()), 1e-300) * group.n_columns
        return _Found(plans, total_bits / total_columns, nmse / total_columns)


class _Density:
    """The histograms of a group's coefficients as densities that are constant within a bin; sums up to any point."""

    def __init__(self, group: Group) -> None:
        self.width = (group.variances.double().sqrt() * BIN_SIGMA).clamp_min(1e-30)[:, None]
        self.counts = group.counts.double()
        self.starts = (torch.arange(N_BINS) - N_BINS // 2 - 0.5)[None] * self.width
        ends = self.starts + self.width
        masses = self.counts
        moments = self.counts * (self.starts + ends) / 2
        squares = self.counts * (self.starts.square() + self.starts * ends + ends.square()) / 3
        zero = torch.zeros_like(self.width)
        self.before = [torch.cat([zero, sums.cumsum(1)], 1) for sums in (masses, moments, squares)]

    def up_to(self, points: torch.Tensor) -> list[torch.Tensor]:
        """Counts, sums and sums of squares of all coefficients below the points `[r, k]`."""
        low, high = self.starts[:, :1], self.starts[:, -1:] + self.width
        points = points.clamp(low, high)
        bins = ((points - low) / self.width).long().clamp(0, N_BINS - 1)
        start = self.starts.gather(1, bins)
        density = self.counts.gather(1, bins) / self.width
        parts = (points - start, (points.square() - start.square()) / 2, (points**3 - start**3) / 3)
        return [before.gather(1, bins) + density * part for before, part in zip(self.before, parts, strict=True)]


def _group_plan(group: Group, density: _Density, delta: float, dead_zone: float) -> tuple[GroupPlan, float, float]:
    """The plan of a group with that step, its bits a token, and its squared error a token."""
    reach = float(density.width.max()) * (N_BINS // 2) / delta if len(group.variances) else 0
    radius = int(min(max(reach, 1) + 1, MAX_EVALUATED))
    indices = torch.arange(-radius, radius + 1, dtype=torch.float64)
    inner = (indices[radius + 1 :] - 0.5 + dead_zone) * delta
    edges = torch.cat([-inner.flip(0), inner]).expand(len(group.variances), -1)
    ends = torch.full((len(group.variances), 1), torch.inf, dtype=torch.float64)
    below = density.up_to(torch.cat([-ends, edges, ends], 1))
    mass, moment, square = (sums.diff(dim=1) for sums in below)
    has_centroid = (mass >= LEAST_COUNT) & (indices.abs() <= RADIUS)
    centroids = torch.where(has_centroid, moment / mass.clamp_min(1), indices * delta)
    n = max(int(group.counts[0].sum()), 1) if len(group.counts) else 1
    errors = (square - 2 * centroids * moment + centroids.square() * mass).sum(1).clamp_min(0) / n
    counts = mass.round().long()
    freqs, bits = _core.kv_fit_tables(counts.contiguous().numpy(), len(counts))
    bits_each = torch.tensor(bits, dtype=torch.float64) / n
    kept = (bits_each >= LEAST_BITS).nonzero().flatten()
    whole = square.sum(1) / n
    is_kept = torch.zeros(len(counts), dtype=torch.bool)
    is_kept[kept] = True
    error = float(torch.where(is_kept, errors, whole).sum())
    tables = tuple(tuple(freqs[i]) for i in kept.tolist())
    near = min(radius, max((len(table) // 2 - 1 for table in tables), default=0))
    return GroupPlan(kept, delta, tables, centroids[kept, radius - near : radius + near + 1].float()), float(bits_each[kept].sum()), error


def _fixed_plan(basis: KVBasis, bits: float, quantiser: str, method: str, shift: float) -> KVPlan:
    plans, nmse, used, columns = [], 0.0, 0.0, 0
    for group, errors in _curves(basis, quantiser):
        budget = max(0, int((bits + (shift if group.kind == KEY else -shift)) * group.n_columns))
        max_bits = errors.shape[1] - 1
        if method == "greedy":
            # Of the variances alone, as in the scheme that fixed widths are compared with.
            widths = _core.kv_allocate(group.variances.double().numpy(), budget, max_bits=max_bits)
        else:
            widths = _core.kv_allocate(errors.double().contiguous().numpy(), budget, max_bits=max_bits, method=method, measured=True)
        all_widths = torch.frombuffer(bytearray(widths), dtype=torch.uint8) if widths else torch.zeros(0, dtype=torch.uint8)
        kept = all_widths.nonzero().flatten()
        sigmas = group.variances[kept].sqrt() if quantiser == LLOYD else None
        plans.append(GroupPlan(kept, widths=all_widths[kept], sigmas=sigmas))
        error = errors.double().gather(1, all_widths.long()[:, None]).sum()
        nmse += float(error / group.variances.double().sum().clamp_min(1e-300)) * group.n_columns
        used += float(all_widths.sum())
        columns += group.n_columns
    return KVPlan(FIXED, quantiser, basis.id, tuple(plans), 0.0, used / columns, nmse / columns)


def _curves(basis: KVBasis, quantiser: str) -> Iterator[tuple[Group, torch.Tensor]]:
    """Squared error `[r, max bits + 1]` of each group's components for each width."""
    for group in basis.groups:
        if quantiser == MINMAX:
            yield group, group.minmax[:, : MAX_FIXED_BITS + 1]
            continue
        grid = torch.linspace(-6, 6, 4097, dtype=torch.float64)
        density = torch.exp(-grid.square() / 2)
        density /= density.sum()
        errors = [1.0]
        for width in range(1, LLOYD_BITS + 1):
            levels = gaussian_levels(width).double()
            nearest = (grid[:, None] - levels).abs().amin(1)
            errors.append(float((nearest.square() * density).sum()))
        yield group, group.variances[:, None].double() * torch.tensor(errors, dtype=torch.float64)
