"""How fast tensors are decoded: which kinds differ, and how fast each is on this machine."""

import json
import statistics
import struct
import tempfile
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Literal, NamedTuple

from .. import _core

Kind = Literal["BF16", "F16", "F32", "F8", "storage", "stored", "published"]
"""Tensors of one kind are decoded at one rate: floats of that width, those that `storage` mode made small, bytes as they are, and those
in the published package's format."""

N_RUNS = 3
KERNEL_WORDS = 1 << 20
ROW_WORDS = 1024
ROW_BYTES = 4 * ROW_WORDS
SLOW_BYTES = 1 << 20
"""Enough of a sample for what takes long to decode."""


class Sample(NamedTuple):
    """Trained weights that were cast to a type, compressed in a mode or a format."""

    dtype: str
    word_bytes: int
    mode: str = "balanced"
    form: Literal["current", "v1"] = "current"
    max_bytes: int = 1 << 62


SAMPLES: dict[Kind, Sample] = {
    "BF16": Sample("BF16", 2),
    "F16": Sample("F16", 2),
    "F32": Sample("F32", 4),
    "F8": Sample("F8_E5M2", 1),
    "storage": Sample("BF16", 2, "storage", max_bytes=SLOW_BYTES),
    "stored": Sample("U8", 1),
    "published": Sample("BF16", 2, form="v1"),
}


PER_WORD: dict[Kind, int] = {"storage": 2, "published": 2}
"""Kinds that are slow enough for it to be words that take time, however wide they are, and the bytes of those in the sample."""


def kind_of(codec: str, dtype: str, *, is_published: bool = False) -> Kind:
    """The kind of a tensor with that codec and dtype; `is_published` if the published package's format holds it."""
    if is_published:
        return "published"
    if codec in ("stored", "zstd", "constant", "empty"):
        return "stored"
    if codec == "context":
        return "storage"
    if dtype in ("BF16", "F16"):
        return "BF16" if dtype == "BF16" else "F16"
    if dtype in ("I16", "U16"):
        return "F16"
    return "F8" if dtype.startswith(("F8", "F6", "F4")) or dtype in ("U8", "I8", "BOOL") else "F32"


def kernel_rates(directory: Path) -> dict[str, float]:
    """Raw bytes per second that one thread decodes, by kind: in memory, or from a file there where it is another format."""
    rates: dict[str, float] = {}
    for kind, sample in SAMPLES.items():
        if sample.form != "current":
            rates[kind] = _load_rate(kind, directory, sample.max_bytes, threads=1)
        elif kind != "stored":
            words = _cast(kind)[: min(KERNEL_WORDS * sample.word_bytes, sample.max_bytes)]
            facts = _core.codec_speed(words, sample.dtype, ROW_WORDS, mode=sample.mode, repeat=_n_runs(kind))
            rates[kind] = facts["decode_bytes_per_s"]
    return rates


def load_rates(directory: Path, sample_bytes: int) -> dict[str, float]:
    """Raw bytes per second that all threads load from the page cache into new memory, by kind; the median of some runs."""
    return {kind: _load_rate(kind, directory, sample_bytes) for kind in SAMPLES}


def _load_rate(kind: Kind, directory: Path, sample_bytes: int, *, threads: int = 0) -> float:
    sample = SAMPLES[kind]
    n_bytes = max(1, min(sample_bytes, sample.max_bytes) // ROW_BYTES) * ROW_BYTES
    with tempfile.TemporaryDirectory(prefix=".bigsmall-probe-", dir=directory) as scratch:
        source, path = Path(scratch, "sample.safetensors"), Path(scratch, "sample.bs")
        # What is chosen for each tensor decides its speed there, so they are left as they are.
        source.write_bytes(_demo() if sample.form == "v1" else _checkpoint(kind, sample, n_bytes))
        _core.compress(source, path, mode=sample.mode, format=sample.form)
        return _core.Reader(path).raw_bytes / statistics.median(_load_s(path, threads) for _ in range(_n_runs(kind)))


def _n_runs(kind: Kind) -> int:
    return 1 if kind in PER_WORD else N_RUNS


def _load_s(path: Path, threads: int) -> float:
    reader = _core.Reader(path)
    started = time.perf_counter()
    tensors = reader.tensors(threads=threads)
    elapsed_s = time.perf_counter() - started
    del tensors
    return elapsed_s


def _checkpoint(kind: Kind, sample: Sample, n_bytes: int) -> bytes:
    """A safetensors file of that many bytes of tensors, no two of which are alike."""
    words = _cast(kind)
    header: dict[str, object] = {}
    parts = []
    row_bytes = ROW_WORDS * sample.word_bytes
    for at, (start, stop) in enumerate(_ranges(n_bytes, len(words) // row_bytes * row_bytes)):
        # Turned by some words, so that none is stored as a reference to another.
        turn = (at * 1009 * sample.word_bytes) % len(words)
        turned = words[turn:] + words[:turn]
        header[f"layers.{at}"] = {
            "dtype": sample.dtype,
            "shape": [(stop - start) // row_bytes, ROW_WORDS],
            "data_offsets": [start, stop],
        }
        parts.append(turned[: stop - start])
    text = json.dumps(header).encode()
    return b"".join([struct.pack("<Q", len(text)), text, *parts])


def _ranges(n_bytes: int, part_bytes: int) -> Iterator[tuple[int, int]]:
    for start in range(0, n_bytes, part_bytes):
        yield start, min(start + part_bytes, n_bytes)


def _cast(kind: Kind) -> bytes:
    """The words of the model in the package, in the type of that kind. Only the speed of decoding them matters."""
    bf16 = _trained_words()
    n_words = len(bf16) // 2
    if kind in ("BF16", "storage"):
        return bf16
    if kind == "stored":
        # Low bytes of weights repeat in no way that can be coded.
        return _noise(len(bf16))
    wide = bytearray(4 * n_words)
    wide[2::4], wide[3::4] = bf16[::2], bf16[1::2]
    if kind == "F32":
        noise = _noise(2 * n_words)
        wide[0::4], wide[1::4] = noise[::2], noise[1::2]
        return bytes(wide)
    halves = struct.pack(f"<{n_words}e", *struct.unpack(f"<{n_words}f", wide))
    # The upper byte of an F16 is an F8_E5M2.
    return halves if kind == "F16" else halves[1::2]


def _trained_words() -> bytes:
    data = _demo()
    (header_bytes,) = struct.unpack_from("<Q", data)
    return data[8 + header_bytes :]


def _demo() -> bytes:
    return (resources.files(__package__.rpartition(".")[0]) / "data" / "demo.safetensors").read_bytes()


def _noise(n_bytes: int) -> bytes:
    import random

    return random.Random(0).randbytes(n_bytes)
