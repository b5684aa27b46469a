"""How fast this project's codec is by itself, on one thread, for each instruction set that this machine can run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
from checkpoint import Checkpoint
from sections.speed import WARM_MEMORY

if TYPE_CHECKING:
    from inputs import Kind
    from results import Facts
    from run import Run

MODES = ("balanced", "inference", "storage")

ENOUGH_S = 3.0
MOST_RUNS = 30


class Aim(NamedTuple):
    """Raw BF16 bytes a second to reach on one thread of an AVX-512 machine; None where nothing is asked."""

    encode: float | None
    decode: float


AIMS = {"avx512": Aim(1.5e9, 4.5e9), "avx2": Aim(None, 2.2e9), "scalar": Aim(None, 0.45e9)}


class Row(NamedTuple):
    kind: Kind
    isa: str
    mode: str
    facts: Facts


def measure(run: Run) -> list[Row]:
    import bigsmall

    rows = []
    best, *others = bigsmall._core.isas()
    for kind in run.kinds:
        for isa, mode in [*((best, mode) for mode in MODES), *((isa, MODES[0]) for isa in others)]:
            arguments = {"path": str(run.inputs.path(kind)), "isa": isa, "mode": mode}
            facts = run.results.once(
                f"codec/{kind.key}/{isa}-{mode}", child.call, "sections.codec:clock", arguments, sys.executable, WARM_MEMORY
            )
            rows.append(Row(kind, isa, mode, facts))
    return rows


def clock(path: str, isa: str, mode: str) -> Facts:
    """The matrices of the file as one tensor, without files and digests. `codec_speed` compares what comes back by itself."""
    from bigsmall._core import codec_speed

    checkpoint = Checkpoint(Path(path))
    data, row_words = checkpoint.matrices()

    def speed(repeat: int) -> dict[str, float]:
        return codec_speed(data, checkpoint.dtype, row_words, mode=mode, isa=isa, repeat=repeat)

    first = speed(1)
    run_s = first["raw_bytes"] * (1 / first["encode_bytes_per_s"] + 1 / first["decode_bytes_per_s"])
    repeat = min(MOST_RUNS, int(ENOUGH_S / run_s))
    runs = [first, speed(repeat)] if repeat else [first]
    return {
        "raw_bytes": int(first["raw_bytes"]),
        "bytes": int(first["coded_bytes"]),
        "encode_s": first["raw_bytes"] / max(run["encode_bytes_per_s"] for run in runs),
        "decode_s": first["raw_bytes"] / max(run["decode_bytes_per_s"] for run in runs),
        "runs": 1 + repeat,
    }
