"""Other ways of making a cache smaller, reimplemented for comparison: each takes coded tokens' keys and values and gives back what it would
restore, with the bits it needs.

Bits are those an element of the coded tokens takes, with everything that travels with a cache (scales, offsets, norms), and without what
belongs to the model.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .basis import KEY, Group, KVBasis
from .codec import KVCodec
from .int8 import dequantise_int8, quantise_int8
from .quantise import dequantise_minmax, gaussian_levels, minmax_parameters, quantise_minmax
from .states import Pair, columns

Coded = tuple[list[Pair], float]
"""Keys and values `[B, H, N, D]` of all layers as restored, and bits an element."""
BLOCKS = (1, 16, 64, 256)
TYPES = {"none": 0, "int2": 2, "int4": 4, "fp8": 8}
HALF_PAIR_BITS = 32


@dataclass(frozen=True)
class Rival:
    """A scheme: its name, whether it needs a basis, and what it does to keys and values whose first token has that position."""

    name: str
    transform: str
    apply: Callable[[list[Pair], int], Coded]


def n_elements(pairs: list[Pair]) -> int:
    return sum(keys.numel() + values.numel() for keys, values in pairs)


def half(pairs: list[Pair], first: int) -> Coded:
    """16 bits."""
    del first
    return [(keys.bfloat16().float(), values.bfloat16().float()) for keys, values in pairs], 16.0


def fp8(pairs: list[Pair], first: int) -> Coded:
    """E4M3 with one scale a tensor."""
    del first

    def restored(states: torch.Tensor) -> torch.Tensor:
        scale = states.abs().max().clamp_min(1e-30) / 448
        return (states / scale).to(torch.float8_e4m3fn).float() * scale

    return [(restored(keys), restored(values)) for keys, values in pairs], 8.0


def int8(pairs: list[Pair], first: int) -> Coded:
    """int8 with an F16 scale for each token and head."""
    del first
    head_dim = pairs[0][0].shape[-1]
    out = [tuple(dequantise_int8(*quantise_int8(states), torch.float32) for states in pair) for pair in pairs]
    return [(keys, values) for keys, values in out], 8 + 16 / head_dim


def kivi(bits: int, size: int = 32) -> Callable[[list[Pair], int], Coded]:
    """Asymmetric groups of `size` in the manner of KIVI (Liu and others 2024): keys along tokens, values along channels, scale and offset
    in F16."""

    def grouped(states: torch.Tensor) -> torch.Tensor:
        parts = states.unfold(-1, size, size) if states.shape[-1] % size == 0 else states.unsqueeze(-2)
        low, high = parts.amin(-1, keepdim=True), parts.amax(-1, keepdim=True)
        low = low.half().float()
        scale = ((high - low) / (2**bits - 1)).half().float().clamp_min(1e-7)
        return (((parts - low) / scale).round().clamp(0, 2**bits - 1) * scale + low).flatten(-2)

    def apply(pairs: list[Pair], first: int) -> Coded:
        del first
        out = []
        for keys, values in pairs:
            n = keys.shape[2]
            padded = torch.nn.functional.pad(keys.transpose(2, 3).flatten(0, 1), (0, -n % size), mode="replicate")
            padded = padded.reshape(*keys.shape[:2], keys.shape[3], -1)
            out.append((grouped(padded)[..., :n].transpose(2, 3), grouped(values)))
        return out, bits + HALF_PAIR_BITS / min(size, pairs[0][0].shape[-1])

    return apply


def rotated(bits: int) -> Callable[[list[Pair], int], Coded]:
    """A random rotation of each head and Lloyd-Max levels of the normal distribution, with an F16 norm for each vector, in the manner of
    TurboQuant (Zandieh and others 2025)."""

    def apply(pairs: list[Pair], first: int) -> Coded:
        del first
        head_dim = pairs[0][0].shape[-1]
        rotation = torch.linalg.qr(torch.randn(head_dim, head_dim, generator=torch.Generator().manual_seed(0)))[0]
        levels = gaussian_levels(bits)
        middles = (levels[1:] + levels[:-1]) / 2

        def restored(states: torch.Tensor) -> torch.Tensor:
            norm = states.norm(dim=-1, keepdim=True).half().float().clamp_min(1e-7)
            scale = norm / head_dim**0.5
            return levels[torch.bucketize((states @ rotation / scale).contiguous(), middles)] * scale @ rotation.T

        return [(restored(keys), restored(values)) for keys, values in pairs], bits + 16 / head_dim

    return apply


def minmax_deflate(basis: KVBasis, bits: float) -> Callable[[list[Pair], int], Coded]:
    """Principal components of each group with fixed min-max widths, allocated to λ · 4^-b, and zlib: scales and offsets in F16."""
    plan = basis.plan(bits=bits, mode="fixed", method="greedy")

    def code(number: int, coefficients: torch.Tensor) -> tuple[torch.Tensor, int]:
        group = plan.groups[number]
        assert group.widths is not None
        widths = group.widths
        kept = coefficients[:, group.kept]
        parameters = minmax_parameters(kept, widths)
        indices = quantise_minmax(kept, widths, parameters)
        out = torch.zeros_like(coefficients)
        out[:, group.kept] = dequantise_minmax(indices, parameters)
        from .packing import pack_bits

        return out, 8 * len(zlib.compress(pack_bits(indices, bytes(widths.tolist())), 6)) + HALF_PAIR_BITS * len(widths)

    return _in_basis(basis, code)


def paper_dp(basis: KVBasis, ratio: float, sample: list[Pair], first: int) -> Callable[[list[Pair], int], Coded]:
    """Blocks of components with a type each, chosen by dynamic programming over the error that they make on calibration rows, and zlib, in
    the manner of KVTC (Staniszewski and Łańcucki 2025): integers have an F16 scale
    and offset for each token and block."""
    choices: dict[int, list[tuple[int, str]]] = {}

    def prepare(number: int, coefficients: torch.Tensor) -> tuple[torch.Tensor, int]:
        budget = int(16 * basis.groups[number].n_columns / ratio)
        choices[number] = _blocks(coefficients, budget)
        return coefficients, 0

    _in_basis(basis, prepare)(sample, first)

    def code(number: int, coefficients: torch.Tensor) -> tuple[torch.Tensor, int]:
        out, at, n_bits, streams = torch.zeros_like(coefficients), 0, 0, []
        for size, kind in choices[number]:
            part = coefficients[:, at : at + size]
            restored, indices = _typed(part, kind)
            out[:, at : at + size] = restored
            if kind != "none":
                streams.append(indices)
                n_bits += HALF_PAIR_BITS * len(part) if kind != "fp8" else 0
            at += size
        return out, n_bits + 8 * len(zlib.compress(b"".join(streams), 6))

    return _in_basis(basis, code)


def coded(basis: KVBasis, plan: Any) -> Callable[[list[Pair], int], Coded]:
    """This package's own, by a plan."""
    codec = KVCodec(basis, plan)

    def apply(pairs: list[Pair], first: int) -> Coded:
        out: list[Pair] = [pairs[0]] * len(pairs)
        n_bytes = 0
        for layers in basis.layer_sets:
            chunk = codec.encode([pairs[i][0] for i in layers], [pairs[i][1] for i in layers], layer=layers[0], first=first)
            n_bytes += chunk.n_bytes
            for i, pair in zip(layers, codec.decode(chunk), strict=True):
                out[i] = pair
        return out, 8 * n_bytes / n_elements(pairs)

    return apply


def _in_basis(basis: KVBasis, code: Callable[[int, torch.Tensor], tuple[torch.Tensor, int]]) -> Callable[[list[Pair], int], Coded]:
    """Codes the coefficients `[N, r]` of each group and row by `code`, which gives them as restored, and bits."""

    def apply(pairs: list[Pair], first: int) -> Coded:
        n = pairs[0][0].shape[2]
        positions = torch.arange(first, first + n)
        keys = [table.undo(pair[0].float(), positions) for table, pair in zip(basis.rope, pairs, strict=True)]
        values = [pair[1].float() for pair in pairs]
        out = {True: [one.clone() for one in keys], False: [one.clone() for one in values]}
        n_bits = 0
        for number, group in enumerate(basis.groups):
            is_key = group.kind == KEY
            source = keys if is_key else values
            rows = columns([source[i] for i in group.layers], group.heads)
            for row in range(rows.shape[0]):
                restored, bits = code(number, (rows[row] - group.mean) @ group.vectors)
                n_bits += bits
                _scatter(out[is_key], group, row, restored @ group.vectors.T + group.mean)
        redone = [table.redo(one, positions) for table, one in zip(basis.rope, out[True], strict=True)]
        return list(zip(redone, out[False], strict=True)), n_bits / n_elements(pairs)

    return apply


def _scatter(layers: list[torch.Tensor], group: Group, row: int, rows: torch.Tensor) -> None:
    at = 0
    for i in group.layers:
        head_dim = layers[i].shape[-1]
        width = len(group.heads) * head_dim
        part = rows[:, at : at + width].reshape(len(rows), len(group.heads), head_dim).transpose(0, 1)
        layers[i][row, list(group.heads)] = part
        at += width


def _typed(part: torch.Tensor, kind: str) -> tuple[torch.Tensor, bytes]:
    """Coefficients `[N, size]` of a block as restored, and their bytes before zlib."""
    if kind == "none":
        return torch.zeros_like(part), b""
    if kind == "fp8":
        narrow = part.clamp(-448, 448).to(torch.float8_e4m3fn)
        return narrow.float(), narrow.view(torch.uint8).contiguous().numpy().tobytes()
    bits = TYPES[kind]
    low = part.amin(1, keepdim=True).half().float()
    scale = ((part.amax(1, keepdim=True) - low) / (2**bits - 1)).half().float().clamp_min(1e-7)
    indices = ((part - low) / scale).round().clamp(0, 2**bits - 1)
    from .packing import pack_bits

    return indices * scale + low, pack_bits(indices.T.int().contiguous(), bytes([bits] * part.shape[1]))


def _blocks(coefficients: torch.Tensor, budget: int) -> list[tuple[int, str]]:
    """Sizes and types of the leading blocks for a budget of bits a token; what follows them is dropped."""
    n = coefficients.shape[1]
    energy = coefficients.double().square().mean(0)
    after = torch.cat([energy.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.float64)])
    best = torch.full((n + 1, budget + 1), torch.inf, dtype=torch.float64)
    best[0] = 0
    choice: dict[tuple[int, int], tuple[int, str]] = {}
    for end in range(1, n + 1):
        for size in BLOCKS:
            start = end - size
            if start < 0:
                continue
            part = coefficients[:, start:end]
            for kind, bits in TYPES.items():
                cost = bits * size + (HALF_PAIR_BITS if kind.startswith("int") else 0)
                if cost > budget:
                    continue
                error = float((part - _typed(part, kind)[0]).double().square().sum(1).mean())
                total = torch.full((budget + 1,), torch.inf, dtype=torch.float64)
                total[cost:] = best[start, : budget + 1 - cost] + error
                for used in (total < best[end]).nonzero().flatten().tolist():
                    best[end, used] = total[used]
                    choice[end, used] = (size, kind)
    end = int((best[:, budget] + after).argmin())
    used, blocks = budget, []
    while end:
        size, kind = choice[end, used]
        blocks.append((size, kind))
        used -= TYPES[kind] * size + (HALF_PAIR_BITS if kind.startswith("int") else 0)
        end -= size
    return blocks[::-1]


def all_rivals(bases: dict[str, KVBasis], sample: list[Pair], first: int) -> Sequence[Rival]:
    """All schemes, over bases by the name of their grouping."""
    rivals = [Rival("BF16", "none", half), Rival("FP8 E4M3, scale a tensor", "none", fp8), Rival("int8, scale a token", "none", int8)]
    rivals += [Rival(f"KIVI-like, {bits} bits", "none", kivi(bits)) for bits in (4, 2)]
    rivals += [Rival(f"rotation + Lloyd-Max, {bits} bits", "rotation", rotated(bits)) for bits in (4, 3, 2)]
    if "head" in bases:
        rivals += [Rival(f"fixed min-max + zlib, {bits} bits", "head", minmax_deflate(bases["head"], bits)) for bits in (4, 3, 2, 1)]
    for name, basis in bases.items():
        if name != "head":
            rivals += [Rival(f"DP blocks + zlib, {ratio}x", name, paper_dp(basis, ratio, sample, first)) for ratio in (4, 8, 16, 32)]
    for name, basis in bases.items():
        rivals += [Rival(f"bigsmall, step {step}", name, coded(basis, basis.plan(step=step))) for step in (0.25, 0.5, 1.0, 2.0)]
    return rivals
