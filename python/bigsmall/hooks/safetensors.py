"""`safetensors.torch.load_file` for `.bs` files."""

from types import ModuleType
from typing import Any

from ..model_files import is_packed
from .patches import Function, Parameters, Patches


def apply(module: ModuleType, patches: Patches) -> None:
    """Hook `safetensors.torch`."""
    patches.function(module, "load_file", loading)


def loading(original: Function) -> Function:
    """`load_file`, which tells the format by the file's first bytes."""
    parameters = Parameters(original, "filename", "device")

    def load_file(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        if not is_packed(call["filename"]):
            return original(*args, **kwargs)
        from .. import torch

        return torch.load(call["filename"], call["device"])

    return load_file
