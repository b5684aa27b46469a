"""Ways of running a model on a machine: what each takes, whether that is there, and how fast it would be.

A token is taken to read every weight once, so a *pass* over all weights is what bounds tokens per second. Where the weights stay decoded,
a pass is bounded by memory: all bytes of weights by the rate at which memory is read. For the host that is taken to be the measured rate
of copying, and for a GPU 60 % of what its clock and width allow. Where they stay compressed, layers are decoded in every pass, and read if
the page cache has no room for the file.

With n threads that read and decode by turns, reading (R seconds at the disk's rate) and decoding (D seconds with all threads) take
max(R, D + R/n) seconds together.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .gpus import Gpu
from .model import Model, Variant
from .profile import Profile
from .sizes import short_size

MIB = 1 << 20
THREAD_BYTES = 3 * MIB
"""What a thread has besides the chunk it decodes."""
RAM_RESERVE_SHARE, RAM_RESERVE_BYTES = 0.05, 256 * MIB
"""Memory that is left to everybody else: the larger of the two."""
VRAM_RESERVE_BYTES = 1400 * MIB
"""Of a GPU's memory: for the CUDA context, activations and the key-value cache of a short conversation."""
TORCH_BYTES = 2048 * MIB
"""Host memory of PyTorch with CUDA."""
UPLOAD_BYTES = 256 * MIB
"""Decoded tensors on their way to a GPU."""
GPU_EFFICIENCY = 0.6
UNKNOWN_DISK_BYTES_PER_S = 100e6
"""Taken where the disk could not be measured: that of a slow one."""
UNKNOWN_LINK_BYTES_PER_S = 4e9


@dataclass(frozen=True)
class Term:
    """Something that takes memory: of this process, or of the kernel on its behalf."""

    what: str
    n_bytes: int
    is_resident: bool = True


@dataclass(frozen=True)
class Fit:
    """Bytes that are needed of a memory (`RAM`, `VRAM`), and those that may be taken."""

    memory: str
    terms: tuple[Term, ...]
    budget_bytes: int

    @property
    def needed_bytes(self) -> int:
        return sum(term.n_bytes for term in self.terms)

    @property
    def fits(self) -> bool:
        return self.needed_bytes <= self.budget_bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "memory": self.memory,
            "terms": {term.what: term.n_bytes for term in self.terms},
            "needed_bytes": self.needed_bytes,
            "budget_bytes": self.budget_bytes,
            "fits": self.fits,
        }


@dataclass(frozen=True)
class Placement:
    """One variant of the model in one place. `obstacle` says what stands against it apart from memory."""

    name: str
    where: str
    variant: Variant
    fits_in: tuple[Fit, ...]
    obstacle: str | None
    load_s: float
    pass_s: float
    is_full_speed: bool
    gpu: Gpu | None = None

    @property
    def is_streamed(self) -> bool:
        return not self.is_full_speed

    @property
    def fits(self) -> bool:
        return self.obstacle is None and all(fit.fits for fit in self.fits_in)

    @property
    def tok_s(self) -> float:
        return 1 / self.pass_s

    @property
    def host_bytes(self) -> int:
        """What it takes of the host's memory, the page cache included."""
        return next(fit.needed_bytes for fit in self.fits_in if fit.memory == "RAM")

    @property
    def resident_bytes(self) -> int:
        """The most host memory that this process will have."""
        return sum(term.n_bytes for fit in self.fits_in if fit.memory == "RAM" for term in fit.terms if term.is_resident)

    @property
    def why_not(self) -> str | None:
        """What stands against it; None if nothing does."""
        if self.obstacle is not None:
            return self.obstacle
        short = next((fit for fit in self.fits_in if not fit.fits), None)
        if short is None:
            return None
        return f"needs {short_size(short.needed_bytes)} of {short.memory}, and {short_size(short.budget_bytes)} may be taken"

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.variant.fidelity.name,
            "bit_exact": self.variant.fidelity.is_exact,
            "placement": self.name,
            "gpu": None if self.gpu is None else self.gpu.name,
            "fits": self.fits,
            "why_not": self.why_not,
            "full_speed": self.is_full_speed,
            "est_tok_s": self.tok_s,
            "load_s_est": self.load_s,
            "resident_bytes": self.resident_bytes,
            "memory": [fit.to_json() for fit in self.fits_in],
        }


def placements(profile: Profile, model: Model, variant: Variant, *, torch_has_cuda: bool) -> Iterator[Placement]:
    """Every way of running that variant, the one that would be liked best first; also those that do not fit."""
    host = _Host(profile, model, variant)
    for gpu in profile.gpus:
        yield host.on_gpu(gpu, _obstacle(gpu, torch_has_cuda))
    yield host.in_ram()
    for from_cache in (True, False):
        for gpu in profile.gpus:
            yield host.streamed_to_gpu(gpu, _obstacle(gpu, torch_has_cuda), from_cache=from_cache)
        yield host.streamed(from_cache=from_cache)


def _obstacle(gpu: Gpu, torch_has_cuda: bool) -> str | None:
    if gpu.is_busy:
        return f"{gpu.name} is busy"
    return None if torch_has_cuda else "PyTorch with CUDA is not installed"


class _Host:
    """The arithmetic that the placements share."""

    def __init__(self, profile: Profile, model: Model, variant: Variant) -> None:
        self._profile, self._variant = profile, variant
        self._unread_bytes = variant.file_bytes * (1 - model.cached_share)
        self._decode_s = sum(n_bytes / profile.loads[kind] for kind, n_bytes in variant.decoded_bytes.items() if n_bytes)
        memory = profile.memory
        # Half of it where the system does not tell how much is free.
        available = memory.total_bytes // 2 if memory.available_bytes is None else memory.available_bytes
        reserve = max(RAM_RESERVE_BYTES, round(memory.total_bytes * RAM_RESERVE_SHARE))
        n_threads = profile.cpu.n_threads
        # What this process has already is not available any more, and is part of what it needs.
        self._ram_budget = max(0, available + memory.process_bytes - reserve)
        self._base = (
            Term("this process", memory.process_bytes),
            Term("packs of small tensors", variant.kept_bytes),
            Term("decoding", THREAD_BYTES * n_threads + sum(variant.work_bytes[:n_threads])),
        )

    def in_ram(self) -> Placement:
        return Placement(
            name="cpu_full",
            where="in CPU RAM at full CPU speed",
            variant=self._variant,
            fits_in=(self._ram(Term("weights", self._variant.raw_bytes)),),
            obstacle=None,
            load_s=self._load_s(self._unread_bytes),
            pass_s=_pass_s(self._variant.raw_bytes / self._profile.copy_bytes_per_s),
            is_full_speed=True,
        )

    def streamed(self, *, from_cache: bool) -> Placement:
        return Placement(
            name="cpu_stream_ram" if from_cache else "cpu_stream_disk",
            where=f"layer by layer in CPU RAM, from the file {'in the page cache' if from_cache else 'on disk'}",
            variant=self._variant,
            fits_in=(self._ram(*self._streamed_terms(), *self._cached(from_cache)),),
            obstacle=None,
            load_s=self._load_s(self._unread_bytes),
            pass_s=_pass_s(self._load_s(0 if from_cache else self._variant.file_bytes)),
            is_full_speed=False,
        )

    def on_gpu(self, gpu: Gpu, obstacle: str | None) -> Placement:
        memory_rate = (gpu.memory_bytes_per_s or self._profile.copy_bytes_per_s) * GPU_EFFICIENCY
        return Placement(
            name="gpu_full",
            where=f"in the memory of {gpu.name} at full GPU speed",
            variant=self._variant,
            fits_in=(self._vram(gpu, Term("weights", self._variant.raw_bytes)), self._ram(*_TORCH, Term("upload", UPLOAD_BYTES))),
            obstacle=obstacle,
            load_s=self._load_s(self._unread_bytes) + self._upload_s(gpu),
            pass_s=_pass_s(self._variant.raw_bytes / memory_rate),
            is_full_speed=True,
            gpu=gpu,
        )

    def streamed_to_gpu(self, gpu: Gpu, obstacle: str | None, *, from_cache: bool) -> Placement:
        layers = Term("largest layer", self._variant.largest_layer_bytes)
        return Placement(
            name="gpu_stream_ram" if from_cache else "gpu_stream_disk",
            where=f"layer by layer on {gpu.name}, from the file {'in the page cache' if from_cache else 'on disk'}",
            variant=self._variant,
            fits_in=(
                self._vram(gpu, Term("outside of layers", self._variant.non_layer_bytes), layers),
                self._ram(*_TORCH, *self._streamed_terms(), *self._cached(from_cache)),
            ),
            obstacle=obstacle,
            load_s=self._load_s(self._unread_bytes),
            pass_s=_pass_s(max(self._load_s(0 if from_cache else self._variant.file_bytes), self._upload_s(gpu))),
            is_full_speed=False,
            gpu=gpu,
        )

    def _streamed_terms(self) -> tuple[Term, ...]:
        return (
            Term("outside of layers", self._variant.non_layer_bytes),
            Term("largest layer", self._variant.largest_layer_bytes),
        )

    def _cached(self, from_cache: bool) -> tuple[Term, ...]:
        return (Term("the file in the page cache", self._variant.file_bytes, is_resident=False),) if from_cache else ()

    def _ram(self, *terms: Term) -> Fit:
        return Fit("RAM", (*self._base, *terms), self._ram_budget)

    def _vram(self, gpu: Gpu, *terms: Term) -> Fit:
        return Fit("VRAM", terms, max(0, gpu.free_bytes - VRAM_RESERVE_BYTES))

    def _load_s(self, read_bytes: float) -> float:
        read_s = read_bytes / (self._profile.disk.bytes_per_s or UNKNOWN_DISK_BYTES_PER_S)
        return max(read_s, self._decode_s + read_s / self._profile.cpu.n_threads)

    def _upload_s(self, gpu: Gpu) -> float:
        return self._variant.raw_bytes / (gpu.link_bytes_per_s or UNKNOWN_LINK_BYTES_PER_S)


_TORCH = (Term("PyTorch with CUDA", TORCH_BYTES),)


def _pass_s(seconds: float) -> float:
    # A model of no bytes is passed in no time, which has no rate.
    return max(seconds, 1e-9)
