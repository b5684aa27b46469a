"""Small generated checkpoints of the kinds that the format has a form for. A tensor is `(dtype, shape, bytes)`."""

import itertools
import json
import math
import random
import struct
from collections.abc import Callable, Mapping, Sequence

from bs_layouts import BITS, LAYOUT_OF

Tensor = tuple[str, list[int], bytes]
Tensors = dict[str, Tensor]

FLOAT_CODE = {"BF16": "f", "F16": "e", "F32": "f", "C64": "f", "F64": "d"}  # of module struct; BF16 by way of F32


def source_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file as the safetensors library writes it."""
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + b"".join(data for _, _, data in tensors.values())


def seeded(*key: object) -> random.Random:
    return random.Random(repr(key))


def floats(dtype: str, values: Sequence[float]) -> bytes:
    if dtype == "BF16":
        return high_halves(floats("F32", values))
    return struct.pack(f"<{len(values)}{FLOAT_CODE[dtype]}", *values)


def high_halves(f32: bytes) -> bytes:
    return b"".join(f32[i + 2 : i + 4] for i in range(0, len(f32), 4))


def normal(dtype: str, count: int, scale: float = 0.02, seed: int = 0) -> bytes:
    """`count` words of normally distributed values; of random bits where the dtype has none."""
    rng = seeded(dtype, count, scale, seed)
    if dtype in FLOAT_CODE:
        return floats(dtype, [rng.gauss(0, scale) for _ in range(count)])
    if dtype == "BOOL":
        return bytes(rng.choice([0, 1, 1, 1]) for _ in range(count))
    if LAYOUT_OF[dtype] == LAYOUT_OF["F8_E5M2"]:
        return b"".join(struct.pack("<e", rng.gauss(0, 1))[1:] for _ in range(count))
    return rng.randbytes(count * LAYOUT_OF[dtype].size)


def sparse(dtype: str, count: int) -> bytes:
    rng = seeded("sparse", dtype)
    return b"".join(normal(dtype, 1, seed=i) if rng.random() < 0.1 else bytes(LAYOUT_OF[dtype].size) for i in range(count))


def palette(dtype: str, count: int, distinct: int) -> bytes:
    rng = seeded("palette", dtype, count)
    values = [rng.randbytes(LAYOUT_OF[dtype].size) for _ in range(distinct)]
    return b"".join(rng.choices(values, range(distinct, 0, -1), k=count))


def sequential(dtype: str, count: int) -> bytes:
    return b"".join((1000 + i).to_bytes(LAYOUT_OF[dtype].size, "little") for i in range(count))


def smooth_rows(rows: int, columns: int) -> bytes:
    """F32 rows, each little different from the one before, as those of trained position embeddings are."""
    rng = seeded("rows", rows)
    row, out = [rng.gauss(0, 0.1) for _ in range(columns)], b""
    for _ in range(rows):
        row = [value + rng.gauss(0, 1e-4) for value in row]
        out += struct.pack(f"<{columns}f", *row)
    return out


def every_dtype(words: int) -> Tensors:
    """`words` is a multiple of 24, so that the elements of all dtypes fill them."""
    data = {dtype: normal(dtype, words) for dtype in LAYOUT_OF}
    return {f"weight.{dtype}": (dtype, [4, len(data[dtype]) * 2 // bits], data[dtype]) for dtype, bits in BITS.items()}


def constants() -> Tensors:
    return {
        "zeros": ("F32", [40, 50], bytes(8000)),
        "ones": ("BF16", [3000], b"\x80\x3f" * 3000),
        "scalar": ("F64", [], struct.pack("<d", 0.5)),
        "count": ("I64", [], struct.pack("<q", -3)),
        "flag": ("BOOL", [1], b"\x01"),
        "complex": ("C64", [2, 50], struct.pack("<ff", 1, 1) * 100),
        "empty": ("F16", [0], b""),
        "empty rows": ("F4", [3, 0, 2], b""),
    }


def tied() -> Tensors:
    large, small = normal("BF16", 6000), normal("F32", 20)
    return {
        "embed.weight": ("BF16", [60, 100], large),
        "head.weight": ("BF16", [100, 60], large),
        "same bits": ("F16", [6000], large),
        "a.bias": ("F32", [20], small),
        "b.bias": ("F32", [20], small),
    }


def many_small_tensors() -> Tensors:
    rng, out = seeded("many"), {}
    for i in range(120):
        n, dtype = rng.randrange(1, 40), rng.choice(["F32", "BF16", "F16", "I64"])
        out[f"blocks.{i}.bias"] = (dtype, [n], normal(dtype, n, scale=rng.choice([0.01, 0.1, 1]), seed=i))
    return out


def f32_that_holds_bf16() -> Tensors:
    narrow = b"".join(b"\x00\x00" + high_halves(normal("F32", 1, seed=i)) for i in range(4000))
    return {"all": ("F32", [80, 50], narrow), "some rows": ("F32", [80, 50], narrow[:8000] + normal("F32", 2000))}


def rows_of_different_scale() -> Tensors:
    out: Tensors = {}
    for dtype in ("BF16", "F16", "F32"):
        out[dtype] = (dtype, [96, 128], b"".join(normal(dtype, 128, scale=2.0 ** (i % 7 - 8), seed=i) for i in range(96)))
    return out


def position_embeddings() -> Tensors:
    f32 = smooth_rows(64, 64)
    return {"f32": ("F32", [64, 64], f32), "bf16": ("BF16", [64, 64], high_halves(f32))}


def kernels() -> Tensors:
    """Convolutions: waves and noise, with some words that are zero, infinite, subnormal or not a number."""
    rng, out = seeded("kernels"), {}
    shapes = [
        ("F16", [12, 8, 3, 3]),
        ("BF16", [20, 4, 7]),
        ("BF16", [6, 1, 9]),
        ("F16", [4, 3, 300]),
        ("BF16", [700, 4, 2]),
        ("F32", [3, 2, 33, 33]),
        ("C64", [16, 16, 8]),
        ("C64", []),
        ("F64", [32, 16, 8]),
    ]
    for i, (dtype, shape) in enumerate(shapes):
        count = math.prod(shape) * (2 if dtype == "C64" else 1)
        values = [0.1 * math.sin(j) + rng.gauss(0, 0.02) for j in range(count)]
        for j in rng.sample(range(count), count // 40):
            values[j] = rng.choice([0.0, -0.0, math.inf, math.nan, 1e-7, -6e4])
        out[f"{i}.weight"] = (dtype, shape, floats(dtype, values))
    return out


def kernels_of_different_scale() -> Tensors:
    """For each order of words, a tensor whose scale differs by what runs slowest there."""
    out: Tensors = {}
    for order, sizes in {"iok": (48, 12, 9), "koi": (4, 128, 9), "kio": (128, 4, 9)}.items():
        places = itertools.product(*map(range, sizes))
        scales = [2.0 ** ({"iok": i, "koi": 4 * k + o, "kio": 4 * k + i}[order] % 7 - 8) for o, i, k in places]
        out[order] = ("BF16", list(sizes), b"".join(normal("BF16", 1, scale, seed) for seed, scale in enumerate(scales)))
    return out


def large_and_pruned() -> Tensors:
    """A tensor of which a chunk of `context` is so large that it gets tables, most of it zeros for the sake of a short test."""
    rows = {row: normal("BF16", 4096, seed=row) for row in (0, 1, 40, 1024)}
    return {"weight": ("BF16", [1025, 4096], b"".join(rows.get(row, bytes(8192)) for row in range(1025)))}


def text() -> Tensors:
    return {"tokens": ("U8", [8000], " ".join(str(i * i) for i in range(2000)).encode()[:8000])}


def by_dtype(make: Callable[[str, int], bytes], dtypes: str, count: int) -> Tensors:
    return {dtype: (dtype, [1, count], make(dtype, count)) for dtype in dtypes.split()}


CHECKPOINTS: dict[str, Callable[[], Tensors]] = {
    "no tensors": dict,
    "every dtype": lambda: every_dtype(384),
    "every dtype, longer": lambda: every_dtype(3072),
    "constants": constants,
    "sparse": lambda: by_dtype(sparse, "F32 BF16 F16 U8 I64", 3000),
    "two values": lambda: by_dtype(lambda dtype, count: palette(dtype, count, 2), "F32 F16 I64 U8", 3000),
    "16 values": lambda: by_dtype(lambda dtype, count: palette(dtype, count, 16), "F32 F16 I64 U8", 3000),
    "200 values": lambda: by_dtype(lambda dtype, count: palette(dtype, count, 200), "F32 F16 I64 U8", 3000),
    "tied": tied,
    "many small tensors": many_small_tensors,
    "F32 that holds BF16": f32_that_holds_bf16,
    "rows of different scale": rows_of_different_scale,
    "random integers": lambda: by_dtype(normal, "I8 U16 I32 U64", 2000),
    "sequential integers": lambda: by_dtype(sequential, "I16 I32 U32 I64", 512),
    "position embeddings": position_embeddings,
    "kernels": kernels,
    "kernels of different scale": kernels_of_different_scale,
    "two blocks": lambda: by_dtype(normal, "BF16", 70_000),
    "text": text,
}
