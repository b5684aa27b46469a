"""Files of the published package: decoded by that package, and by this one."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import environment
import inputs
from checkpoint import Checkpoint
from rivals import published as rival
from stopwatch import fastest

if TYPE_CHECKING:
    from results import Facts
    from run import Run

DTYPES = ("BF16", "F16", "F32")
AIM = 8.0
"""How many times as fast as the published package, on all cores."""
LEAST_BYTES = 100_000_000


class Row(NamedTuple):
    """`facts` of a model of one dtype."""

    dtype: str
    facts: Facts


def measure(run: Run) -> list[Row]:
    n_bytes = LEAST_BYTES // 10 if run.quick else LEAST_BYTES
    with tempfile.TemporaryDirectory(dir=run.scratch) as directory:
        return [Row(dtype, run.results.once(f"published/{dtype}", make_and_clock, dtype, directory, n_bytes)) for dtype in DTYPES]


def make_and_clock(dtype: str, directory: str, n_bytes: int) -> Facts:
    source, packed = Path(directory, f"{dtype}.safetensors"), Path(directory, f"{dtype}.bs")
    inputs.write_small_llama(source, dtype, n_bytes)
    python = environment.interpreter(rival.RIVAL.name, rival.RIVAL.requirements)
    arguments = {"source": str(source), "packed": str(packed)}
    theirs = child.call("sections.published:compress_and_clock_theirs", arguments, python)
    ours = child.call("sections.published:clock_ours", arguments)
    source.unlink()
    packed.unlink()
    return theirs | ours


def compress_and_clock_theirs(source: str, packed: str) -> Facts:
    """Seconds that the published package takes to decode the file that it makes, as it comes: it has one thread and checks nothing."""
    codec = rival.open(Checkpoint(Path(source)), Path(packed).parent)
    codec.store(codec.encode(codec.source()), Path(packed))
    timing = fastest(codec.decode, lambda: Path(packed))
    if not codec.is_source(timing.result):
        raise ValueError("the published package does not give the checkpoint back")
    return {"theirs_s": timing.seconds, "theirs_runs": timing.runs}


def clock_ours(source: str, packed: str) -> Facts:
    """Seconds that this package takes for the same, on all cores and on one, the md5 of every tensor checked."""
    import bigsmall

    checkpoint = Checkpoint(Path(source))
    facts: Facts = {"raw_bytes": len(checkpoint.data), "bytes": Path(packed).stat().st_size}
    for key, threads in (("ours", 0), ("ours_1", 1)):
        timing = fastest(lambda path, threads=threads: bigsmall.decompress(path, threads=threads), lambda: packed)
        if not checkpoint.has_arrays(timing.result):
            raise ValueError("another checkpoint comes back")
        facts |= {f"{key}_s": timing.seconds, f"{key}_runs": timing.runs}
    return facts
