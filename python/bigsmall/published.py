"""What the published Python package leaves in memory rather than in files. Its files are opened like all others."""

from typing import Any

from ._core import Tensor, published_kv_entry

__all__ = ["kv_entry"]


def kv_entry(data: Any) -> tuple[Tensor, Tensor]:
    """The keys and values of an entry of a KV cache that the published package compressed, of its versions 1 to 3 or in chunks.

    Args:
        data: the entry; bytes, or anything with the buffer protocol.

    Returns:
        Keys and values, BF16, F8_E4M3 or F8_E5M2, of the shapes that were compressed. `bigsmall.torch.to_tensor` and
        `bigsmall.numpy.to_array` make arrays of them without a copy.

    Raises:
        CorruptError: it is no such entry. Entries have no digest, so not all damage is found.
    """
    return published_kv_entry(data)
