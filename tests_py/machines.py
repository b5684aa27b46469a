"""Machines that are not there, for what is decided about them."""

import dataclasses
from typing import Any

from bigsmall.autopilot.cpu import Cpu
from bigsmall.autopilot.disk import Disk
from bigsmall.autopilot.gpus import Gpu
from bigsmall.autopilot.memory import Memory
from bigsmall.autopilot.model import Fidelity, Model, Variant
from bigsmall.autopilot.profile import PROFILE_VERSION, Profile
from bigsmall.autopilot.rates import SAMPLES

GB = 10**9


def gpu(*, free_gb: float = 20, is_busy: bool = False, **facts: Any) -> Gpu:
    default = Gpu("GPU-1", "Some GPU", 24 * GB, round(free_gb * GB), 95 if is_busy else 0, 0, 500e9, 16e9)
    return dataclasses.replace(default, **facts)


def machine(
    *, ram_gb: float | None = 32, disk: float | None = 1e9, load: float = 2e9, copy: float = 10e9, gpus: tuple[Gpu, ...] = ()
) -> Profile:
    """A machine with that much free memory (None: unknown), bytes per second of its disk and decoder, and GPUs."""
    total = round((ram_gb or 32) * 1.25 * GB)
    return Profile(
        profile_version=PROFILE_VERSION,
        release="1",
        created="2030-01-01T00:00:00+00:00",
        system="Linux x86_64",
        cpu=Cpu("Some CPU", 8, 8, ["avx2", "scalar"]),
        memory=Memory(total, None if ram_gb is None else round(ram_gb * GB), 20 << 20, "RAM"),
        disk=Disk(disk, "O_DIRECT" if disk else "failed: Input/output error", 1 << 28, "/home"),
        gpus=list(gpus),
        no_gpus="" if gpus else "none found",
        kernels=dict.fromkeys(SAMPLES, load),
        loads=dict.fromkeys(SAMPLES, load),
        copy_bytes_per_s=copy,
    )


def model(raw_gb: float, *fidelities: Fidelity, layer_count: int = 32, cached_share: float = 0.0) -> Model:
    """A model of that size; a lossy variant has a quarter of the bytes of the one before."""
    variants = []
    raw_bytes = round(raw_gb * GB)
    for fidelity in fidelities:
        layers = raw_bytes * 9 // 10 if layer_count else 0
        variants.append(
            Variant(
                fidelity=fidelity,
                file_bytes=raw_bytes * 2 // 3 + 1000,
                raw_bytes=raw_bytes,
                decoded_bytes={"BF16": raw_bytes},
                tensor_count=9 * layer_count + 3,
                layer_count=layer_count,
                largest_layer_bytes=layers // max(1, layer_count),
                non_layer_bytes=raw_bytes - layers,
                kept_bytes=0,
                work_bytes=(1 << 20,),
            )
        )
        raw_bytes //= 4
    return Model("model.bs", tuple(variants), cached_share)
