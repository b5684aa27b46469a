"""Models that are decoded layer by layer."""

from .loader import StreamingLoader
from .pretrained import BigSmallStreamingModel

__all__ = ["BigSmallStreamingModel", "StreamingLoader"]
