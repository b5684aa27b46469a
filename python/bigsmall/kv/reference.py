"""Fixed widths by the book: one value at a time, in plain Python, float64 and zlib. The oracle that tests compare with, and what the
benchmark calls the
reference.

Per head, keys and values apart: subtract the mean, turn into the basis, give each component bits by dynamic programming, spread its min-max
span over its indices, write
the indices bit after bit, and deflate them.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Coded:
    """A section: widths, scales and offsets of the components, rows, and deflated bits."""

    widths: list[int]
    scales: list[float]
    offsets: list[float]
    n_rows: int
    payload: bytes


def allocate(variances: Sequence[float], budget: int, max_bits: int = 16) -> list[int]:
    """Widths that make the sum of λ · 4^-b least, by a table over components and bits used; of equal sums the one with fewer bits."""
    best = [0.0] * (budget + 1)
    chosen: list[list[int]] = []
    for variance in variances:
        errors = [variance * 4.0**-b for b in range(max_bits + 1)]
        after, choice = [math.inf] * (budget + 1), [0] * (budget + 1)
        for used in range(budget + 1):
            for b in range(min(max_bits, used) + 1):
                error = best[used - b] + errors[b]
                if error < after[used]:
                    after[used], choice[used] = error, b
        best = after
        chosen.append(choice)
    used = min(range(budget + 1), key=lambda u: best[u])
    widths = []
    for choice in reversed(chosen):
        widths.append(choice[used])
        used -= choice[used]
    return widths[::-1]


def transform(rows: Matrix, mean: Sequence[float], vectors: Matrix) -> list[list[float]]:
    """(rows - mean) · vectors."""
    columns = list(zip(*vectors, strict=True))
    return [[sum((x - m) * v for x, m, v in zip(row, mean, column, strict=True)) for column in columns] for row in rows]


def restore(coefficients: Matrix, mean: Sequence[float], vectors: Matrix) -> list[list[float]]:
    """coefficients · vectorsᵀ + mean."""
    return [
        [sum(y * v for y, v in zip(row, vector, strict=True)) + m for vector, m in zip(vectors, mean, strict=True)] for row in coefficients
    ]


def encode(coefficients: Matrix, widths: Sequence[int]) -> Coded:
    """Min-max indices of the coefficients `[rows, components]`, packed and deflated."""
    scales, offsets = [], []
    bits: list[int] = []
    for i, width in enumerate(widths):
        column = [row[i] for row in coefficients]
        offset = min(column, default=0.0) if width else 0.0
        span = max(column, default=0.0) - offset if width else 0.0
        scale = max(span, 1e-8) / (2**width - 1) if width else 0.0
        scales.append(scale)
        offsets.append(offset)
        for value in column if width else []:
            index = min(max(round((value - offset) / scale), 0), 2**width - 1)
            bits.extend(index >> place & 1 for place in range(width))
    packed = bytearray(-(-len(bits) // 8))
    for place, bit in enumerate(bits):
        packed[place // 8] |= bit << place % 8
    return Coded(list(widths), scales, offsets, len(coefficients), zlib.compress(bytes(packed), 6))


def decode(coded: Coded) -> list[list[float]]:
    """The coefficients `[rows, components]`. ValueError if the payload has another length."""
    packed = zlib.decompress(coded.payload)
    if len(packed) != -(-sum(coded.widths) * coded.n_rows // 8):
        raise ValueError("the payload has not the length that widths and rows say")
    columns, at = [], 0
    for width, scale, offset in zip(coded.widths, coded.scales, coded.offsets, strict=True):
        column = []
        for _ in range(coded.n_rows):
            index = 0
            for place in range(width):
                index |= (packed[at // 8] >> at % 8 & 1) << place
                at += 1
            column.append(index * scale + offset if width else 0.0)
        columns.append(column)
    return [list(row) for row in zip(*columns, strict=True)] if columns else [[] for _ in range(coded.n_rows)]


def rotate(keys: Matrix, positions: Sequence[int], inv_freq: Sequence[float], sign: float) -> list[list[float]]:
    """Rows of one head, turned by sign · position · frequency, halves paired."""
    turned = []
    for row, position in zip(keys, positions, strict=True):
        half = len(inv_freq)
        out = list(row)
        for i, frequency in enumerate(inv_freq):
            c, s = math.cos(position * frequency), math.sin(position * frequency) * sign
            out[i], out[half + i] = row[i] * c - row[half + i] * s, row[half + i] * c + row[i] * s
        turned.append(out)
    return turned
