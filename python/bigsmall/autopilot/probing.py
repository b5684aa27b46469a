"""Measuring a machine, once."""

import ctypes
import dataclasses
import datetime
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import __version__
from . import disk, rates
from .cpu import cpu
from .gpus import gpus
from .memory import memory
from .profile import PROFILE_VERSION, Place, Profile, default_path, read, system

MIB = 1 << 20
SAMPLE_BYTES = 256 * MIB
LOAD_BYTES = 64 * MIB
COPY_BYTES = 64 * MIB
N_COPIES = 4


def probe(directory: Path, sample_bytes: int = SAMPLE_BYTES) -> Profile:
    """This machine, with the disk of that directory. Files of `sample_bytes` in all are written there, and removed."""
    found, why_none = gpus()
    processor = cpu()
    return Profile(
        profile_version=PROFILE_VERSION,
        release=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        system=system(),
        cpu=processor,
        memory=memory(),
        disk=disk.probe(directory, sample_bytes),
        gpus=found,
        no_gpus=why_none,
        kernels=rates.kernel_rates(directory),
        loads=rates.load_rates(directory, min(sample_bytes, LOAD_BYTES)),
        copy_bytes_per_s=copy_rate(processor.n_threads),
    )


def now(profile: Profile) -> Profile:
    """The profile with the memory and GPUs of this machine as they are now."""
    found, why_none = gpus()
    return dataclasses.replace(profile, memory=memory(), gpus=found, no_gpus=why_none)


def same_machine(profile: Profile) -> str | None:
    """What tells that the profile is of another machine; None if nothing does."""
    here = dataclasses.replace(profile, system=system(), cpu=cpu(), memory=memory())
    return profile.difference(here)


def profile_of_this_machine(path: Path | None = None) -> tuple[Profile, list[str]]:
    """What the file holds, with the memory and GPUs of now, and sentences about what else was done.

    Where there is no such file, or it is of another machine or release, the machine is measured and the profile saved; if it cannot be
    saved, a sentence says so. Raises FormatError if the file is no profile.
    """
    path = default_path() if path is None else path
    notes = []
    try:
        saved = read(path)
    except FileNotFoundError:
        notes.append(f"no profile of this machine at {path} yet: measuring, which takes some seconds")
    else:
        other = "another release wrote it" if saved is None else same_machine(saved)
        if saved is not None and other is None:
            return now(saved), notes
        notes.append(f"{path} is of another machine or release ({other}): measuring this one")
    try:
        with Place(path) as place:
            profile = probe(path.parent)
            place.write(profile)
    except OSError as error:
        notes.append(f"{path} cannot be written ({error.strerror}): measured again each time")
        import tempfile

        with tempfile.TemporaryDirectory(prefix="bigsmall-") as directory:
            profile = probe(Path(directory))
    return profile, notes


def copy_rate(n_threads: int) -> float:
    """Bytes per second that all threads copy from memory to memory; the best of some runs."""
    size = max(1, COPY_BYTES // n_threads)
    pairs = [(ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)) for _ in range(n_threads)]
    best_s = float("inf")
    with ThreadPoolExecutor(n_threads) as pool:
        for _ in range(N_COPIES):
            started = time.perf_counter()
            # The interpreter's lock is released meanwhile.
            list(pool.map(lambda pair: ctypes.memmove(pair[0], pair[1], size), pairs))
            best_s = min(best_s, time.perf_counter() - started)
    return size * n_threads / best_s
