"""Models that are decoded layer by layer."""

from .loader import StreamingLoader

__all__ = ["StreamingLoader"]
