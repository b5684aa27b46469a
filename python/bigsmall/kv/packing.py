"""Indices of fixed widths as bits, with torch operations alone: the layout of `docs/format/kv.md`, for tensors that are on another
device."""

import torch

from ..errors import CorruptError


def pack_bits(indices: torch.Tensor, widths: bytes) -> bytes:
    """Indices `[components, N]` (int32) of these widths, 0 … 16. ValueError if there are not as many widths as components."""
    if indices.shape[0] != len(widths):
        raise ValueError(f"{indices.shape[0]} components have {len(widths)} widths")
    n_tokens = indices.shape[1]
    padded = torch.nn.functional.pad(indices.long(), (0, -n_tokens % 8))
    parts: list[torch.Tensor] = [torch.zeros(0, dtype=torch.uint8)] * len(widths)
    for width in set(widths) - {0}:
        of_width = [i for i, one in enumerate(widths) if one == width]
        # Bit after bit: the bits of 8 indices are `width` bytes.
        places = torch.arange(width, device=indices.device)
        bits = (padded[of_width].unsqueeze(-1) >> places) & 1
        eights = bits.reshape(len(of_width), -1, 8)
        packed = (eights << torch.arange(8, device=indices.device)).sum(-1).to(torch.uint8)
        for i, one in zip(of_width, packed, strict=True):
            parts[i] = one
    return torch.cat([part.to("cpu") for part in parts]).numpy().tobytes() if parts else b""


def unpack_bits(packed: bytes, widths: bytes, n_tokens: int) -> torch.Tensor:
    """Indices `[components, N]`, int32. CorruptError if the length does not fit."""
    eights = -(-n_tokens // 8)
    if len(packed) != sum(widths) * eights:
        raise CorruptError("packed indices have not the length that widths and rows say")
    out = torch.zeros((len(widths), n_tokens), dtype=torch.int32)
    data = torch.frombuffer(bytearray(packed), dtype=torch.uint8) if packed else torch.zeros(0, dtype=torch.uint8)
    at = 0
    for i, width in enumerate(widths):
        part = data[at : at + width * eights]
        at += width * eights
        if width and n_tokens:
            bits = (part.unsqueeze(-1) >> torch.arange(8, dtype=torch.uint8)) & 1
            values = bits.reshape(-1, width).int() << torch.arange(width, dtype=torch.int32)
            out[i] = values.sum(-1)[:n_tokens]
    return out
