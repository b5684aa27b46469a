"""Compressed tensors as torch tensors.

Every dtype becomes torch's own of that name: F8_E4M3 is `float8_e4m3fn`, F8_E8M0 `float8_e8m0fnu`, F4 `float4_e2m1fn_x2` with the last
dimension halved. Where the installed torch has no such dtype, and for the F6 forms, it is uint8 of the shape described in
`bigsmall.dtypes.array_shape`.

CPU tensors own their memory through the decoded tensor behind them: nothing is copied.
"""

import os
from collections.abc import Iterable, Iterator

try:
    import torch
    from torch.utils.dlpack import from_dlpack
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("torch tensors need PyTorch: pip install 'bigsmall[torch]'", name="torch") from error

from ._core import Reader, Tensor
from .dtypes import array_shape
from .errors import FormatError, located
from .loading import Damaged, Wanted, decoded_tensors
from .progress import Progress
from .slices import Framework, TensorSlice

Device = str | int | torch.device

BATCH_BYTES = 256 << 20
"""Host memory that a load to another device takes at a time."""

FROM_DLPACK = frozenset({"BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64", "C64"})
"""What every supported torch takes through DLPack. The other types come as bytes and are then viewed as what they are."""

DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
}


def dtype_of(name: str) -> torch.dtype:
    """torch's dtype for a safetensors one."""
    dtype: torch.dtype = getattr(torch, DTYPES.get(name, ""), torch.uint8)
    return dtype


def to_tensor(tensor: Tensor) -> torch.Tensor:
    """The tensor's own memory as a torch CPU tensor."""
    if tensor.dtype in FROM_DLPACK:
        return from_dlpack(tensor)
    # torch.frombuffer refuses an empty buffer.
    data = torch.frombuffer(tensor, dtype=torch.uint8) if tensor.nbytes else torch.empty(0, dtype=torch.uint8)
    return data.view(dtype_of(tensor.dtype)).reshape(array_shape(tensor.dtype, tensor.shape))


def load(
    path: str | os.PathLike[str],
    device: Device = "cpu",
    *,
    base: str | os.PathLike[str] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    damaged: Damaged | None = None,
) -> dict[str, torch.Tensor]:
    """Every tensor of a `.bs` file or compressed directory. See `bigsmall.load`."""
    device = torch.device(device)
    batch_bytes = None if device.type == "cpu" else BATCH_BYTES
    tensors = decoded_tensors(path, base=base, threads=threads, progress=progress, damaged=damaged, batch_bytes=batch_bytes)
    return {name: to_tensor(tensor).to(device) for name, tensor in tensors}


def weights(file: str | os.PathLike[str], wanted: Wanted | None = None) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, CPU tensor) for the wanted tensors of a `.bs` file, decoded by all cores, a batch of `BATCH_BYTES` ahead of the consumer."""
    for name, tensor in decoded_tensors(file, batch_bytes=BATCH_BYTES, wanted=wanted):
        yield name, to_tensor(tensor)


def framework(device: Device = "cpu") -> Framework:
    """torch tensors on that device, for `safe_open`."""
    device = torch.device(device)
    return Framework(wrap=to_tensor, place=lambda tensor: tensor.contiguous().to(device))


class LazyTensor(TensorSlice):
    """A CPU tensor that is decoded when it is indexed: `tensor[...]` is all of it.

    It tells beforehand what those who fill models ask of a tensor.
    """

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self._dtype)

    @property
    def shape(self) -> torch.Size:
        return torch.Size(array_shape(self._dtype, self._shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def nbytes(self) -> int:
        return self.shape.numel() * self.dtype.itemsize

    @property
    def has_rows(self) -> bool:
        """Whether rows of it can be had: not where its elements share bytes across them."""
        return bool(self._shape) and len(self.shape) == len(self._shape)

    def is_floating_point(self) -> bool:
        return self.dtype.is_floating_point

    def meta(self) -> torch.Tensor:
        """A tensor of this shape and dtype without data."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def lazy_tensors(files: Iterable[str | os.PathLike[str]]) -> dict[str, LazyTensor]:
    """Every tensor of these `.bs` files, in their order. Nothing but headers is read until one is indexed.

    Raises FormatError where two files have a tensor of the same name, and as `bigsmall.load` does for what no file is.
    """
    cpu = framework()
    tensors: dict[str, LazyTensor] = {}
    for file in files:
        reader = Reader(file)
        for entry in reader.entries():
            if entry["name"] in tensors:
                raise located(FormatError, "is in an earlier shard too", path=reader.path, tensor=entry["name"])
            tensors[entry["name"]] = LazyTensor(reader, entry, cpu)
    return tensors
