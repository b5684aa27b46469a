"""How much memory there is."""

import os
from dataclasses import dataclass
from pathlib import Path

from ..stream.memory import resident_set
from .cgroup import ROOT, groups


@dataclass(frozen=True)
class Memory:
    """What this process may use: the machine's memory, or less if a control group limits it.

    `available_bytes` can be had without anything being swapped out or killed; None where the system does not tell. `process_bytes` is what
    this process has already. `limited_by` is `RAM` or `cgroup`.
    """

    total_bytes: int
    available_bytes: int | None
    process_bytes: int
    limited_by: str


def memory(root: Path = ROOT) -> Memory:
    """What there is now; `root` is for tests."""
    machine = _kibibytes(root / "proc/meminfo")
    total, available = machine.get("MemTotal"), machine.get("MemAvailable")
    if total is None:
        return Memory(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), None, 0, "RAM")
    limited_by = "RAM"
    for group in groups("memory", root):
        limit = group.number("memory.max", "memory.limit_in_bytes")
        # Version 1 writes a number near 2^63 where there is no limit.
        if limit is None or limit >= machine["MemTotal"]:
            continue
        used = group.number("memory.current", "memory.usage_in_bytes") or 0
        # The kernel gives up pages of files that nobody used lately before it kills.
        counters = dict(line.split(maxsplit=1) for line in group.text("memory.stat").splitlines() if " " in line)
        used -= int(counters.get("inactive_file" if group.is_v2 else "total_inactive_file", 0))
        left = max(0, limit - max(0, used))
        available = left if available is None else min(available, left)
        if limit < total:
            total, limited_by = limit, "cgroup"
    return Memory(total, available, resident_set() or 0, limited_by)


def _kibibytes(path: Path) -> dict[str, int]:
    """The sizes in a file of lines like `MemTotal: 16 kB`, in bytes."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines)
    return {field[0].rstrip(":"): int(field[1]) * 1024 for field in fields if len(field) == 3 and field[2] == "kB"}
