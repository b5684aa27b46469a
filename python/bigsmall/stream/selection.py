"""Single layers."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..errors import OptionError
from ..files import StrPath
from .loader import StreamingLoader

if TYPE_CHECKING:
    import torch


def decompress_layers(
    path_or_repo: StrPath,
    layer_indices: Iterable[int],
    *,
    device: "str | int | torch.device" = "cpu",
    dtype: "torch.dtype | None" = None,
    include_non_layer: bool = False,
    **hub_options: Any,
) -> "dict[str, torch.Tensor]":
    """The tensors of some layers of a compressed model. Nothing else is decoded, or read.

    Args:
        path_or_repo: as for `bigsmall.StreamingLoader`.
        layer_indices: numbers of layers, each as in `StreamingLoader.layer_names`.
        device: where the tensors go.
        dtype: what floating-point tensors are cast to; by default they stay as they are.
        include_non_layer: whether the tensors that belong to no layer are wanted too.
        hub_options: as for `bigsmall.StreamingLoader`.

    Returns:
        torch tensors by name.

    Raises:
        OptionError: there is no such layer.
        FormatError, VersionError, CorruptError, OSError, ModuleNotFoundError: as `bigsmall.StreamingLoader`.
    """
    tensors: dict[str, torch.Tensor] = {}
    with StreamingLoader(path_or_repo, device, prefetch=0, **hub_options) as loader:
        wanted = list(layer_indices)
        for i in wanted:
            if not 0 <= i < loader.layer_count:
                raise OptionError(f"there is no layer {i}: {loader.path} has {loader.layer_count}")
        if include_non_layer:
            tensors |= loader.load_non_layer_tensors()
        for i in wanted:
            tensors |= loader.load_layer(i)
    return {name: tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype) for name, tensor in tensors.items()}
