"""Tensors of 16 or 32 bits, kept exactly."""

import torch

from .. import _core
from ..torch import to_tensor

CODES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}
DTYPES = {code: dtype for dtype, code in CODES.items()}


def code_of(dtype: torch.dtype) -> str:
    """The safetensors code. TypeError for a dtype that caches do not have."""
    if dtype not in CODES:
        raise TypeError(f"keys and values of {dtype} cannot be coded: there are {', '.join(str(one) for one in CODES)}")
    return CODES[dtype]


def encode_words(tensor: torch.Tensor) -> bytes:
    """A tensor `[..., D]` on any device, losslessly; at most 5 bytes more than its own."""
    tensor = tensor.detach().cpu().contiguous()
    return _core.kv_encode_words(tensor.view(torch.uint8).numpy(), code_of(tensor.dtype), tensor.shape[-1] if tensor.ndim else 1)


def decode_words(coded: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor of `encode_words`, on the CPU. CorruptError."""
    return to_tensor(_core.kv_decode_words(coded, code_of(dtype), shape))
