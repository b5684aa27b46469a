"""Lossless compression of model weights.

>>> import bigsmall
>>> bigsmall.compress("model.safetensors", "model.bs")
>>> tensors = bigsmall.decompress("model.bs")                 # numpy arrays
>>> state_dict = bigsmall.load("model.bs")                    # torch tensors
>>> bigsmall.decompress("model.bs", "back.safetensors")       # the same file again

Importing this package imports neither numpy nor torch; the functions that return their arrays do.
"""

from ._core import FORMAT_VERSION, Reader, __version__
from .care import protect, repair
from .chain import Chain
from .errors import (
    BigSmallError,
    CorruptError,
    FormatError,
    FrameworkError,
    MissingTensorError,
    OptionError,
    PatchBaseError,
    SourceError,
    VersionError,
)
from .files import compress, decompress, load, migrate, scan, verify
from .hooks import install_hook, uninstall_hook
from .hub import compress_for_hub, compress_from_hub, stream_from_hub, upload_to_hub, upload_to_hub_lfs
from .patches import apply, closest_base, compress_delta, decompress_delta, diff
from .pretrained import from_pretrained, load_model
from .reader import safe_open
from .stream import BigSmallStreamingModel, StreamingLoader, decompress_layers
from .summary import info, stat
from .xray import xray

__all__ = [
    "FORMAT_VERSION",
    "BigSmallError",
    "BigSmallStreamingModel",
    "Chain",
    "CorruptError",
    "FormatError",
    "FrameworkError",
    "MissingTensorError",
    "OptionError",
    "PatchBaseError",
    "Reader",
    "SourceError",
    "StreamingLoader",
    "VersionError",
    "__version__",
    "apply",
    "closest_base",
    "compress",
    "compress_delta",
    "compress_for_hub",
    "compress_from_hub",
    "decompress",
    "decompress_delta",
    "decompress_layers",
    "diff",
    "from_pretrained",
    "info",
    "install_hook",
    "load",
    "load_model",
    "migrate",
    "protect",
    "repair",
    "safe_open",
    "scan",
    "stat",
    "stream_from_hub",
    "uninstall_hook",
    "upload_to_hub",
    "upload_to_hub_lfs",
    "verify",
    "xray",
]
