"""How fast a disk is read from one end of a file to the other, and how much of a file need not be read from it."""

import errno
import mmap
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

BUFFER_BYTES = 4 << 20
N_LOOKS = 64


@dataclass(frozen=True)
class Disk:
    """`bytes_per_s` is None if it could not be measured, which `method` then says.

    `method` is `O_DIRECT` (the page cache is bypassed), `posix_fadvise` (it was emptied of the file before), or `page cache` (neither was
    possible, as in a file system that is in memory: the figure is that of the cache).
    """

    bytes_per_s: float | None
    method: str
    sample_bytes: int
    directory: str


def probe(directory: Path, sample_bytes: int) -> Disk:
    """Write a file of that size there, read it, remove it."""
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".bigsmall-probe-") as file:
            for start in range(0, sample_bytes, BUFFER_BYTES):
                # Random, since some file systems compress.
                file.write(os.urandom(min(BUFFER_BYTES, sample_bytes - start)))
            file.flush()
            os.fsync(file.fileno())
            elapsed_s, method = _read(Path(file.name))
    except OSError as error:
        return Disk(None, f"failed: {error.strerror}", sample_bytes, str(directory))
    return Disk(sample_bytes / elapsed_s, method, sample_bytes, str(directory))


def _read(path: Path) -> tuple[float, str]:
    """Seconds, and the method."""
    if hasattr(os, "O_DIRECT"):
        try:
            return _read_all(path, os.O_DIRECT), "O_DIRECT"
        except OSError as error:
            # Of a file system that has no such way.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
    forget(path)
    is_forgotten = cached_share(path) == 0.0
    return _read_all(path, 0), "posix_fadvise" if is_forgotten else "page cache"


def _read_all(path: Path, flags: int) -> float:
    # Direct reads take an address and a length that are multiples of the disk's block: a map's are multiples of a page.
    with mmap.mmap(-1, BUFFER_BYTES) as buffer:
        descriptor = os.open(path, os.O_RDONLY | flags)
        try:
            started = time.perf_counter()
            while os.readv(descriptor, [buffer]) == BUFFER_BYTES:
                pass
            return time.perf_counter() - started
        finally:
            os.close(descriptor)


def forget(path: Path) -> None:
    """Ask the system to drop the file from the page cache, as far as it is not about to be written."""
    if not hasattr(os, "posix_fadvise"):
        return
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(path: Path) -> float | None:
    """The share of the file that is in the page cache, by a look at pages spread over it; None where the system does not tell."""
    if not hasattr(os, "RWF_NOWAIT"):
        return None
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # So that looking does not itself read ahead.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)
        n_bytes = os.fstat(descriptor).st_size
        looks = sorted({n_bytes * k // N_LOOKS for k in range(N_LOOKS)})
        return sum(_is_cached(descriptor, offset) for offset in looks) / len(looks)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return None
        raise
    finally:
        os.close(descriptor)


def _is_cached(descriptor: int, offset: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    return True
