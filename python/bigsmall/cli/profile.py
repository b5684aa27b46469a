"""Measure this machine once, for plan and run: memory, cores, disk, decoding, GPUs.

Later calls print what was saved. GPUs are asked through NVML alone (pip install 'bigsmall[gpu]'), which makes no CUDA context."""

import argparse
from pathlib import Path

from ..autopilot import gpus, probing
from ..autopilot.profile import Place, Profile, default_path, read
from .arguments import add_json
from .outcome import Exit
from .printer import emit, note

MAX_SAMPLE_MB = 64 << 10


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="measure again, and replace what was saved")
    parser.add_argument("--path", metavar="FILE", type=Path, help="where it is saved; default: ~/.bigsmall/profile.json")
    parser.add_argument("--sample-mb", metavar="N", type=_sample, default=256, help="MiB that are read to measure the disk; default: 256")
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    path = default_path() if args.path is None else args.path
    profile = None if args.force else _saved(path)
    is_new = profile is None
    if profile is None:
        with Place(path) as place:
            profile = probing.probe(path.parent, args.sample_mb << 20)
            place.write(profile)
    emit({"path": str(path), "measured_now": is_new, **profile.to_json()}, _lines(path, profile), as_json=args.json)
    return Exit.DONE


def _saved(path: Path) -> Profile | None:
    """What the file holds, unless it is not of this machine as it is now."""
    try:
        saved = read(path)
    except FileNotFoundError:
        return None
    other = "another release wrote it" if saved is None else probing.same_machine(saved)
    if other is None:
        return saved
    note(f"{path} is not of this machine ({other}): measuring")
    return None


def _lines(path: Path, profile: Profile) -> list[str]:
    cpu, memory, disk = profile.cpu, profile.memory, profile.disk
    free = "unknown" if memory.available_bytes is None else f"{memory.available_bytes / 1e9:.2f} GB"
    limit = " (limit of the control group)" if memory.limited_by == "cgroup" else ""
    speed = disk.method if disk.bytes_per_s is None else f"{disk.bytes_per_s / 1e9:.3f} GB/s sequential ({disk.method})"
    usable = "" if cpu.n_threads == cpu.n_cores else f", {cpu.n_threads} of them usable"
    return [
        f"profile: {path}",
        f"  cpu: {cpu.n_cores} logical cores{usable} | {cpu.model} | {' '.join(cpu.isas)}",
        f"  ram: {memory.total_bytes / 1e9:.2f} GB total{limit}, {free} free at probe",
        f"  disk: {speed}",
        f"  gpu: {gpus.describe(profile.gpus, profile.no_gpus)}",
        f"  kernels: {_rates(profile.kernels)} (one thread, in memory)",
        f"  loads: {_rates(profile.loads)} (all threads, from the page cache into new memory)",
        f"  copies: {profile.copy_bytes_per_s / 1e9:.1f} GB/s (all threads)",
    ]


def _rates(rates: dict[str, float]) -> str:
    return ", ".join(f"{kind.lower()} {rate / 1e6:,.0f} MB/s" for kind, rate in rates.items())


def _sample(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_SAMPLE_MB:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of MiB from 1 to {MAX_SAMPLE_MB}")
    return int(text)
