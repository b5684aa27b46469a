"""Compressed tensors as numpy arrays.

| safetensors | numpy |
|---|---|
| F64 F32 F16, I8 … I64, U8 … U64, BOOL, C64 | the type of that name |
| BF16 | uint16, the bits: `array.view(ml_dtypes.bfloat16)`, or `(array.astype("u4") << 16).view("f4")` |
| F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ F8_E8M0 | uint8, the bits |
| F4 | uint8, two elements a byte, the first in the low half; the last dimension is halved |
| F6_E2M3 F6_E3M2 | uint8, one flat row of bytes |

Arrays are writable, in C order, and own their memory through the decoded tensor behind them: nothing is copied.
"""

import os

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("numpy arrays need numpy: pip install 'bigsmall[numpy]'", name="numpy") from error

from ._core import Tensor
from .dtypes import array_shape
from .loading import Damaged, decoded_tensors
from .progress import Progress
from .slices import Framework

DTYPES: dict[str, np.dtype] = {
    name: np.dtype(dtype)
    for name, dtype in {
        "BOOL": "?",
        "U8": "u1",
        "I8": "i1",
        "U16": "<u2",
        "I16": "<i2",
        "U32": "<u4",
        "I32": "<i4",
        "U64": "<u8",
        "I64": "<i8",
        "F16": "<f2",
        "F32": "<f4",
        "F64": "<f8",
        "C64": "<c8",
        "BF16": "<u2",
        "F8_E4M3": "u1",
        "F8_E5M2": "u1",
        "F8_E4M3FNUZ": "u1",
        "F8_E5M2FNUZ": "u1",
        "F8_E8M0": "u1",
        "F6_E2M3": "u1",
        "F6_E3M2": "u1",
        "F4": "u1",
    }.items()
}


def to_array(tensor: Tensor) -> np.ndarray:
    """The tensor's own memory as an array; see the table above for its dtype and shape."""
    return np.ndarray(array_shape(tensor.dtype, tensor.shape), DTYPES[tensor.dtype], buffer=memoryview(tensor))


def load(
    path: str | os.PathLike[str],
    *,
    base: str | os.PathLike[str] | None = None,
    threads: int = 0,
    progress: Progress | None = None,
    damaged: Damaged | None = None,
) -> dict[str, np.ndarray]:
    """Every tensor of a `.bs` file or compressed directory. `base` and `damaged` as in `bigsmall.load`."""
    tensors = decoded_tensors(path, base=base, threads=threads, progress=progress, damaged=damaged)
    return {name: to_array(tensor) for name, tensor in tensors}


def framework() -> Framework:
    """numpy arrays, for `safe_open`."""
    return Framework(wrap=to_array, place=lambda array: np.asarray(array, order="C"))
