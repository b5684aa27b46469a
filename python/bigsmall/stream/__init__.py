"""Models that are decoded layer by layer."""

from .loader import StreamingLoader
from .pretrained import BigSmallStreamingModel
from .selection import decompress_layers

__all__ = ["BigSmallStreamingModel", "StreamingLoader", "decompress_layers"]
