"""How much memory whole commands take on models much larger than what they may take."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import footprint
import inputs

if TYPE_CHECKING:
    from results import Facts
    from run import Run

FILE_AIM_BYTES = 512 * inputs.MIB
"""Private memory that `compress` and `decompress` to a file stay under, whatever the model."""
LOAD_AIM_BYTES = 128 * inputs.MIB
"""Private memory beyond the tensors that `load` stays under."""


class Case(NamedTuple):
    """A model of drawn BF16 weights in one mode; a smaller one in the slow mode, but of twice what the aim allows."""

    mode: str
    n_bytes: int


CASES = (Case("balanced", 4096 * inputs.MIB), Case("storage", 1024 * inputs.MIB))
QUICK_CASES = (Case("balanced", 1024 * inputs.MIB), Case("storage", 64 * inputs.MIB))


class Row(NamedTuple):
    """`facts` has `model_bytes` and, by step, what was measured: `compress`, `decompress`, `load`."""

    case: Case
    facts: Facts


def measure(run: Run) -> list[Row]:
    return [
        Row(case, run.results.once(f"memory/{case.mode}-{case.n_bytes // inputs.MIB}", weigh, case, run.scratch))
        for case in (QUICK_CASES if run.quick else CASES)
    ]


def weigh(case: Case, scratch: Path) -> Facts:
    """One model there and back. The source is deleted once it is packed: at most the model and its packed form are on disk."""
    needed = 2 * case.n_bytes
    if footprint.available() < needed:
        raise OSError(f"{needed >> 20} MiB of available memory are needed")
    if shutil.disk_usage(scratch).free < needed:
        raise OSError(f"{needed >> 20} MiB of free disk are needed under {scratch}")
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        source, packed, restored = (Path(directory, name) for name in ("model.safetensors", "model.bs", "restored.safetensors"))
        inputs.write_llama(source, case.n_bytes)
        model_bytes, digest = source.stat().st_size, sha256(source)
        steps = {"compress": child.call_watched("sections.memory:compress", {"src": str(source), "dst": str(packed), "mode": case.mode})}
        source.unlink()
        steps["decompress"] = child.call_watched("sections.memory:decompress", {"src": str(packed), "dst": str(restored)})
        if sha256(restored) != digest:
            raise OSError("the restored model is not the source")
        restored.unlink()
        steps["load"] = child.call_watched("sections.memory:load", {"path": str(packed)})
        return {"model_bytes": model_bytes, "packed_bytes": packed.stat().st_size, **steps}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def compress(src: str, dst: str, mode: str) -> Facts:
    import bigsmall

    start = time.perf_counter()
    bigsmall.compress(src, dst, mode=mode)
    return {"seconds": time.perf_counter() - start}


def decompress(src: str, dst: str) -> Facts:
    import bigsmall

    start = time.perf_counter()
    bigsmall.decompress(src, dst)
    return {"seconds": time.perf_counter() - start}


def load(path: str) -> Facts:
    """Also the bytes of the tensors, and the private memory of the process before, torch being imported."""
    import bigsmall.torch

    before = footprint.private()
    start = time.perf_counter()
    tensors = bigsmall.torch.load(path)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tensor_bytes": sum(tensor.nbytes for tensor in tensors.values()), "private_before_bytes": before}
