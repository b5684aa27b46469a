"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import rivals

ROOT = Path(__file__).resolve().parents[1]


def describe() -> dict[str, str]:
    """Names and values, for a table."""
    import bigsmall

    core = bigsmall._core
    harness = [f"{name} {version(name)}" for name in ("numpy", "safetensors", "torch")]
    pins = [requirement.replace("==", " ") for rival in rivals.all_rivals() for requirement in rival.requirements if "==" in requirement]
    return {
        "processor": processor(),
        "cores seen": str(os.cpu_count()),
        "instruction sets of the codec": ", ".join(core.isas()),
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, {' '.join(platform.libc_ver())}",
        "Python": platform.python_version(),
        "bigsmall": f"{bigsmall.__version__}, {revision()}",
        "packages": ", ".join(harness),
        "rivals": ", ".join(pins).replace("bigsmall ", "published bigsmall "),
    }


def processor() -> str:
    """The model name and whether it is virtual, as Linux tells them."""
    facts = Path("/proc/cpuinfo").read_text()
    name = re.search(r"^model name\s*:\s*(.+)$", facts, re.MULTILINE)
    family = re.search(r"^cpu family\s*:\s*(.+)$", facts, re.MULTILINE)
    text = name[1] if name else platform.machine()
    if family:
        text += f", family {family[1]}"
    return f"{text}, virtual machine" if re.search(r"^flags\s*:.*\bhypervisor\b", facts, re.MULTILINE) else text


def revision() -> str:
    """The commit of the sources, and whether they differ from it."""
    try:
        commit = git("rev-parse", "--short=12", "HEAD")
        changed = git("status", "--porcelain", "--", "src", "python", "Cargo.toml", "Cargo.lock")
    except (OSError, subprocess.CalledProcessError):
        return "sources without a repository"
    return f"commit {commit}{' with changes' if changed else ''}"


def git(*arguments: str) -> str:
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout.strip()
