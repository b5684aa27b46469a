"""Memory of processes, as Linux counts it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")


def peak_during(call: Callable[[], Result]) -> tuple[Result, int]:
    """The result of a call, and by how many bytes the resident memory of this process rose above its start at most."""
    # 5 resets the high-water mark to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("self", "VmRSS")
    result = call()
    return result, max(0, resident("self", "VmHWM") - before)


def private(process: int | str = "self") -> int:
    """Bytes of memory that belong to the process alone. Mapped files are not counted: the kernel takes their pages back at will."""
    return resident(process, "RssAnon")


def available() -> int:
    """Bytes that new memory can have without swapping."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return 0 if match is None else int(match[1]) << 10


def resident(process: int | str, field: str) -> int:
    """A field of the process's status, in bytes; 0 once the process has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return 0 if match is None else int(match[1]) << 10
