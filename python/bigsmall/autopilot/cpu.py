"""The processor, as far as decoding cares."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from .. import _core
from .cgroup import ROOT, groups


@dataclass(frozen=True)
class Cpu:
    """`n_cores` are the machine's logical cores, `n_threads` those that this process may use, `isas` what they can run, best first."""

    model: str
    n_cores: int
    n_threads: int
    isas: list[str]


def cpu(root: Path = ROOT) -> Cpu:
    """This machine's; `root` is for tests."""
    n_cores = os.cpu_count() or 1
    n_threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else n_cores
    return Cpu(_model(root), n_cores, min(n_threads, _quota(root) or n_threads), _core.isas())


def _model(root: Path) -> str:
    try:
        lines = (root / "proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return next(names, "") or platform.processor() or platform.machine()


def _quota(root: Path) -> int | None:
    """The whole cores' worth of time that control groups allow, at least one; None if they allow all."""
    quotas = []
    for group in groups("cpu", root):
        if group.is_v2:
            quota, _, period = group.text("cpu.max").partition(" ")
        else:
            quota, period = group.text("cpu.cfs_quota_us"), group.text("cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period) > 0:
            quotas.append(max(1, int(quota) // int(period)))
    return min(quotas, default=None)
