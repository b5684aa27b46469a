"""How fast and how small, rivals side by side, in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import environment
import rivals
from checkpoint import Checkpoint
from footprint import peak_during
from stopwatch import fastest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from inputs import Kind
    from results import Facts
    from run import Run

WARM_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(64 << 20)}
"""Makes glibc keep freed memory, so that no tool is timed on the kernel's handing out of fresh pages."""


class Row(NamedTuple):
    """A rival at one setting on one input."""

    kind: Kind
    rival: str
    label: str
    facts: Facts


def measure(run: Run) -> list[Row]:
    return [row for kind in run.kinds for row in measure_kind(run, kind)]


def measure_kind(run: Run, kind: Kind) -> Iterator[Row]:
    path = run.inputs.path(kind)
    checkpoint = Checkpoint(path)
    for rival in rivals.all_rivals():
        for setting in rival.settings if rival.applies_to(checkpoint) else ():
            arguments = {"name": rival.name, "label": setting.label, "path": str(path), "scratch": str(run.scratch)}
            facts = run.results.once(f"speed/{kind.key}/{setting.label}", check_and_clock, rival, arguments)
            yield Row(kind, rival.name, setting.label, facts)


def check_and_clock(rival: rivals.Rival, arguments: dict[str, str]) -> Facts:
    python = environment.interpreter(rival.name, rival.requirements)
    checked = child.call("sections.speed:check", arguments, python)
    return checked | child.call("sections.speed:clock", arguments, python, WARM_MEMORY)


def check(name: str, label: str, path: str, scratch: str) -> Facts:
    """Sizes, and how much memory the first calls took beyond their input. Everything that comes back is compared with the source."""
    checkpoint = Checkpoint(Path(path))
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        codec = rivals.open_codec(name, label, checkpoint, Path(directory))
        source = codec.source()
        encoded, encode_peak = peak_during(lambda: codec.encode(source))
        decoded, decode_peak = peak_during(lambda: codec.decode(encoded))
        if not codec.is_source(decoded):
            raise ValueError(f"{label} does not give the checkpoint back")
        del decoded
        stored = Path(directory, "stored")
        codec.store(encoded, stored)
        if not checkpoint.has_tensors(codec.load(stored)):
            raise ValueError(f"{label} loads other tensors than the checkpoint's")
        return {
            "raw_bytes": len(checkpoint.file),
            "bytes": codec.size(encoded),
            "encode_peak_bytes": encode_peak,
            "decode_peak_bytes": decode_peak,
        }


def clock(name: str, label: str, path: str, scratch: str) -> Facts:
    """Seconds to encode, to decode, and to load a file from the page cache."""
    checkpoint = Checkpoint(Path(path))
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        codec = rivals.open_codec(name, label, checkpoint, Path(directory))
        encode = fastest(codec.encode, codec.source)
        decode = fastest(codec.decode, lambda: encode.result)
        stored = Path(directory, "stored")
        codec.store(encode.result, stored)
        load = fastest(codec.load, lambda: stored)
        return {
            "encode_s": encode.seconds,
            "encode_runs": encode.runs,
            "decode_s": decode.seconds,
            "decode_runs": decode.runs,
            "load_s": load.seconds,
            "load_runs": load.runs,
        }
