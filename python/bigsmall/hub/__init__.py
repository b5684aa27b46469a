"""Compressed models on the Hub: reading them in parts, publishing them, and the way there that can be interrupted."""

from .publishing import compress_for_hub, compress_from_hub, upload_to_hub, upload_to_hub_lfs
from .reading import stream_from_hub

__all__ = [
    "compress_for_hub",
    "compress_from_hub",
    "stream_from_hub",
    "upload_to_hub",
    "upload_to_hub_lfs",
]
