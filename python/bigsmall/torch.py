"""Compressed tensors as torch tensors.

Every dtype becomes torch's own of that name: F8_E4M3 is `float8_e4m3fn`, F8_E8M0 `float8_e8m0fnu`, F4 `float4_e2m1fn_x2` with the last
dimension halved. Where the installed torch has no such dtype, and for the F6 forms, it is uint8 of the shape described in
`bigsmall.dtypes.array_shape`.

CPU tensors own their memory through the decoded tensor behind them: nothing is copied.
"""

import os

try:
    import torch
    from torch.utils.dlpack import from_dlpack
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("torch tensors need PyTorch: pip install 'bigsmall[torch]'", name="torch") from error

from ._core import Tensor
from .dtypes import array_shape
from .loading import Damaged, decoded_tensors
from .progress import Progress
from .slices import Framework

Device = str | int | torch.device

BATCH_BYTES = 256 << 20
"""Host memory that a load to another device takes at a time."""

FROM_DLPACK = frozenset({"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64", "C64"})
"""What every supported torch takes through DLPack. The other types come as bytes and are then viewed as what they are."""

VIEWED_AS = {
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}


def to_tensor(tensor: Tensor) -> torch.Tensor:
    """The tensor's own memory as a torch CPU tensor."""
    if tensor.dtype in FROM_DLPACK:
        return from_dlpack(tensor)
    # torch.frombuffer refuses an empty buffer.
    data = torch.frombuffer(tensor, dtype=torch.uint8) if tensor.nbytes else torch.empty(0, dtype=torch.uint8)
    dtype = getattr(torch, VIEWED_AS.get(tensor.dtype, ""), torch.uint8)
    return data.view(dtype).reshape(array_shape(tensor.dtype, tensor.shape))


def load(
    path: str | os.PathLike[str],
    device: Device = "cpu",
    *,
    threads: int = 0,
    progress: Progress | None = None,
    damaged: Damaged | None = None,
) -> dict[str, torch.Tensor]:
    """Every tensor of a `.bs` file or compressed directory. See `bigsmall.load`."""
    device = torch.device(device)
    batch_bytes = None if device.type == "cpu" else BATCH_BYTES
    tensors = decoded_tensors(path, threads=threads, progress=progress, damaged=damaged, batch_bytes=batch_bytes)
    return {name: to_tensor(tensor).to(device) for name, tensor in tensors}


def framework(device: Device = "cpu") -> Framework:
    """torch tensors on that device, for `safe_open`."""
    device = torch.device(device)
    return Framework(wrap=to_tensor, place=lambda tensor: tensor.contiguous().to(device))
