"""What was measured of a machine, and the file that keeps it."""

import contextlib
import dataclasses
import errno
import json
import os
import platform
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError, located
from .cpu import Cpu
from .disk import Disk
from .gpus import Gpu
from .memory import Memory
from .rates import SAMPLES
from .record import parsed

PROFILE_VERSION = 1
MEMORY_TOLERANCE = 0.05
"""Kernels keep more or less memory for themselves."""


@dataclass(frozen=True)
class Profile:
    """A machine as it was at `created` (UTC, ISO 8601).

    `kernels`: raw bytes per second that one thread decodes in memory; `loads`: those that all threads load from the page cache into new
    memory; both by the kinds of `rates`. `copy_bytes_per_s`: what all threads copy from memory to memory.
    """

    profile_version: int
    release: str
    created: str
    system: str
    cpu: Cpu
    memory: Memory
    disk: Disk
    gpus: list[Gpu]
    no_gpus: str
    kernels: dict[str, float]
    loads: dict[str, float]
    copy_bytes_per_s: float

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def difference(self, other: "Profile") -> str | None:
        """What tells that the two are not of one machine; None if nothing does. What changes from hour to hour is not looked at."""
        for what, one, two in (
            ("system", self.system, other.system),
            ("processor", self.cpu.model, other.cpu.model),
            ("number of cores", self.cpu.n_cores, other.cpu.n_cores),
            ("number of usable cores", self.cpu.n_threads, other.cpu.n_threads),
            ("instruction sets", " ".join(self.cpu.isas), " ".join(other.cpu.isas)),
        ):
            if one != two:
                return f"its {what}: {one}, here: {two}"
        sizes = sorted((self.memory.total_bytes, other.memory.total_bytes))
        if sizes[0] < sizes[1] * (1 - MEMORY_TOLERANCE):
            return f"its memory: {self.memory.total_bytes:,} bytes, here: {other.memory.total_bytes:,} bytes"
        return None


def default_path() -> Path:
    return Path("~/.bigsmall/profile.json").expanduser()


def system() -> str:
    return f"{platform.system()} {platform.machine()}"


def read(path: Path) -> Profile | None:
    """The profile in the file; None if another release wrote it, which measured other things.

    Raises FormatError if the file is no profile, OSError if it cannot be read.
    """
    text = path.read_bytes()
    try:
        value = json.loads(text, parse_constant=_refuse)
        if isinstance(value, dict) and value.get("profile_version", PROFILE_VERSION) != PROFILE_VERSION:
            return None
        profile = parsed(Profile, value)
        if missing := SAMPLES.keys() - profile.loads.keys():
            raise ValueError(f"loads has no {min(missing)}")
        return profile
    except (ValueError, RecursionError) as error:
        raise located(FormatError, f"is no profile, or a damaged one: {error}", path=path) from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON")


class Place:
    """Where a profile will be written. Made before measuring, so that it fails before anybody has waited."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path == default_path():
            # Any other directory is for its owner to make.
            with contextlib.suppress(OSError):
                path.parent.mkdir(exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        try:
            descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        except OSError as error:
            error.filename = str(path)
            raise
        os.close(descriptor)
        self._temporary = Path(name)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *error: object) -> None:
        self._temporary.unlink(missing_ok=True)

    def write(self, profile: Profile) -> None:
        """Give the file its name once all of it is on the disk."""
        with self._temporary.open("w") as file:
            json.dump(profile.to_json(), file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        self._temporary.replace(self._path)
