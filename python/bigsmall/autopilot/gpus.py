"""NVIDIA GPUs, by the management library alone: no CUDA context is made, and nobody who computes there is disturbed."""

import importlib.util
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .sizes import short_size

BUSY_PCT = 10


@dataclass(frozen=True)
class Gpu:
    """`memory_bytes_per_s` and `link_bytes_per_s` (from the host) are what clocks and widths allow; None where the driver does not tell."""

    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    utilization_pct: int
    n_processes: int
    memory_bytes_per_s: float | None
    link_bytes_per_s: float | None

    @property
    def is_busy(self) -> bool:
        """Whether somebody computes there."""
        return self.n_processes > 0 or self.utilization_pct >= BUSY_PCT


def gpus() -> tuple[list[Gpu], str]:
    """Those that CUDA_VISIBLE_DEVICES allows, and why there are none, if so."""
    try:
        import pynvml
    except ModuleNotFoundError:
        return [], "not asked for: pip install 'bigsmall[gpu]'"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return [], str(error)
    try:
        found = [facts(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError as error:
        return [], str(error)
    finally:
        pynvml.nvmlShutdown()
    allowed = visible(found, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return allowed, "" if allowed else "CUDA_VISIBLE_DEVICES allows none" if found else "none found"


def visible(found: list[Gpu], variable: str | None) -> list[Gpu]:
    """Those that the environment variable names, by index or by the beginning of a UUID, up to the first name that fits none."""
    if variable is None:
        return found
    allowed = []
    for entry in variable.split(","):
        name = entry.strip()
        chosen = found[int(name) : int(name) + 1] if name.isdecimal() else [gpu for gpu in found if name and gpu.uuid.startswith(name)]
        if not chosen:
            break
        allowed += chosen[:1]
    return allowed


def facts(nvml: Any, handle: Any) -> Gpu:
    """What the library tells about one GPU."""

    def told(function: str, *args: Any) -> Any:
        """None if this GPU or driver does not tell."""
        try:
            return getattr(nvml, function)(handle, *args)
        except nvml.NVMLError:
            return None

    room = nvml.nvmlDeviceGetMemoryInfo(handle)
    utilization = told("nvmlDeviceGetUtilizationRates")
    clock_mhz, bus_bits = told("nvmlDeviceGetMaxClockInfo", nvml.NVML_CLOCK_MEM), told("nvmlDeviceGetMemoryBusWidth")
    generation, lanes = told("nvmlDeviceGetMaxPcieLinkGeneration"), told("nvmlDeviceGetMaxPcieLinkWidth")
    return Gpu(
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=room.total,
        free_bytes=room.free,
        utilization_pct=utilization.gpu if utilization is not None else 0,
        n_processes=len(told("nvmlDeviceGetComputeRunningProcesses") or ()),
        # Memory transfers at both edges of its clock.
        memory_bytes_per_s=_product(2e6, clock_mhz, bus_bits, 1 / 8),
        # A lane of the first generation carries 250 MB/s, and each generation doubles that.
        link_bytes_per_s=_product(250e6, lanes, None if generation is None else 2.0 ** (generation - 1)),
    )


def _product(*factors: float | None) -> float | None:
    result = 1.0
    for factor in factors:
        if factor is None:
            return None
        result *= factor
    return result


def _text(name: str | bytes) -> str:
    # Older releases of the library give bytes.
    return name.decode() if isinstance(name, bytes) else name


def torch_has_cuda() -> bool:
    """Whether the PyTorch that is installed was built for CUDA, by a look at its files: it is not imported."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return False
    return re.search(r"^cuda\b[^=]*= *['\"]", text, re.MULTILINE) is not None


def describe(found: Iterable[Gpu], why_none: str) -> str:
    """All of them in one line."""
    lines = [
        f"{gpu.name}, {short_size(gpu.free_bytes)} of {short_size(gpu.total_bytes)} free{', busy' if gpu.is_busy else ''}" for gpu in found
    ]
    return " | ".join(lines) or f"none ({why_none})"
