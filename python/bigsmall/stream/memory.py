"""How much memory a streamed model takes."""

import re
from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Bytes that a streamed model's weights take at most, whatever runs."""

    resident_bytes: int
    """Of what is in no layer, such as embeddings and head, and of buffers."""
    scratch_bytes: int
    """Of the memory that layers are decoded into, one after the other."""
    kept_bytes: int
    """Of decoded layers that stay."""
    held_bytes: int
    """Of compressed layers that are held in memory."""

    @property
    def bound_bytes(self) -> int:
        """All of it. Activations, key-value caches and the decoder's own buffers, of a few MiB for each thread, come on top."""
        return sum(self)


def resident_set() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell."""
    return _status("VmRSS")


def peak_resident_set() -> int | None:
    """The most that it was since `forget_peak`, or since it began; None where the system does not tell."""
    peak = _status("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ModuleNotFoundError:
        return None
    # Bytes on macOS, which is where there is no /proc.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> bool:
    """Have the peak begin anew. False where the system cannot."""
    try:
        # 5 is the kernel's number for the peak alone.
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(field: str) -> int | None:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE)
    return None if match is None else int(match[1]) << 10
