"""From a file to tensors in memory of their own, beside `safetensors.torch.load_file`."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import inputs
from stopwatch import in_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from results import Facts
    from run import Run

WARM, COLD = "the page cache", "a cold disk"
RUNS = {WARM: 7, COLD: 4}


class Reader(NamedTuple):
    """A way to get at a model's tensors; `suffix` is that of the file it reads."""

    key: str
    label: str
    suffix: str
    threads: int


AIMS = {WARM: 1.0, COLD: 1.3}
"""How many times as fast as safetensors, on all cores."""

SAFETENSORS = Reader("safetensors", "safetensors `load_file`, each tensor cloned", ".safetensors", 0)
BIGSMALL = Reader("bigsmall", "bigsmall `load`, all cores", ".bs", 0)
READERS = (
    Reader("read", "plain `read` of the safetensors file into fresh memory, for comparison", ".safetensors", 0),
    SAFETENSORS,
    BIGSMALL,
    Reader("bigsmall", "bigsmall `load`, 1 thread", ".bs", 1),
)


class Row(NamedTuple):
    """`facts` by state of the file, `WARM` or `COLD`."""

    reader: Reader
    facts: dict[str, Facts]


def measure(run: Run) -> list[Row]:
    n_bytes = (256 if run.quick else 1024) * inputs.MIB
    rows = []
    with tempfile.TemporaryDirectory(dir=run.scratch) as directory:
        model = Path(directory, "model")
        for reader in READERS:
            facts = {
                state: run.results.once(
                    f"load/{reader.key}-{reader.threads} {state}, backed", make_and_clock, reader, state, model, n_bytes
                )
                for state in RUNS
            }
            rows.append(Row(reader, facts))
    return rows


def make_and_clock(reader: Reader, state: str, model: Path, n_bytes: int) -> Facts:
    """Makes the model and its packed form as well, when the first reader wants them."""
    if not model.with_suffix(".bs").exists():
        inputs.write_llama(model.with_suffix(".safetensors"), n_bytes)
        child.call("sections.load:pack", {"model": str(model)})
    path = str(model.with_suffix(reader.suffix))
    return child.call("sections.load:clock", {"reader": reader.key, "path": path, "threads": reader.threads, "state": state})


def pack(model: str) -> Facts:
    import bigsmall

    return bigsmall.compress(f"{model}.safetensors", f"{model}.bs")


def clock(reader: str, path: str, threads: int, state: str) -> Facts:
    """Seconds of every run, each in a fork: imports are done, memory is fresh."""
    load = loader(reader, path, threads)
    prepare = evict if state == COLD else Path.read_bytes
    times = []
    n_bytes = Path(path).with_suffix(".safetensors").stat().st_size
    for _ in range(RUNS[state]):
        prepare(Path(path))
        back_memory(n_bytes + n_bytes // 4)
        times.append(in_fork(load))
    return {"bytes": Path(path).stat().st_size, "times_s": times}


def loader(reader: str, path: str, threads: int) -> Callable[[], object]:
    """A call that loads the file, everything it needs imported already."""
    if reader == "read":
        return Path(path).read_bytes
    if reader == "safetensors":
        from safetensors.torch import load_file

        return lambda: {name: tensor.clone() for name, tensor in load_file(path).items()}
    import bigsmall.torch

    return lambda: bigsmall.torch.load(path, threads=threads)


def back_memory(n_bytes: int) -> None:
    """Have the host of a virtual machine back that much free memory in large pages.

    A guest may tell its host which large pages are free (`page_reporting`), and the host takes what is behind them; whoever gets them
    next waits longer for the host than any reader here takes. Small pages are not reported.
    """
    with mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_HUGEPAGE)
        for offset in range(0, n_bytes, mmap.PAGESIZE):
            memory[offset] = 1


def evict(path: Path) -> None:
    """Have the kernel forget the file's contents, and make sure that it did."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # So that looking reads a page ahead at most.
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for offset in range(0, path.stat().st_size, 64 * inputs.MIB):
            if is_cached(file.fileno(), offset):
                raise OSError(f"{path.name} stays in the page cache")


def is_cached(descriptor: int, offset: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True
