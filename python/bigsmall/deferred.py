"""torch tensors that are decoded when something is done with them.

An engine that spreads a model over several processes hands each of them every tensor whole, and each takes its rows or columns of it with
`narrow` and copies these into its parameter. Of a tensor here, only the rows that are taken are read and decoded.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._pytree import tree_map

from .torch import LazyTensor, lazy_tensors, weights

MIN_BYTES = 1 << 20
"""Smaller tensors are decoded at once: they come by the batch, which costs less than their rows would save."""


class DeferredTensor(torch.Tensor):
    """Rows of a tensor in a `.bs` file, not decoded yet. It is a torch tensor to `isinstance`, and becomes one in any operation."""

    _source: LazyTensor
    _rows: slice

    @staticmethod
    def __new__(cls, source: LazyTensor, rows: slice) -> "DeferredTensor":
        shape = (rows.stop - rows.start, *source.shape[1:])
        return torch.Tensor._make_wrapper_subclass(cls, shape, dtype=source.dtype)

    def __init__(self, source: LazyTensor, rows: slice) -> None:
        self._source = source
        self._rows = rows

    def decoded(self) -> torch.Tensor:
        """The rows."""
        tensor: torch.Tensor = self._source[self._rows]
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"DeferredTensor(shape={tuple(self.shape)}, dtype={self.dtype})"

    def numpy(self, *, force: bool = False) -> Any:
        return self.decoded().numpy(force=force)

    def tolist(self) -> Any:
        return self.decoded().tolist()

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        if function in STILL_DEFERRED and (part := _part(function, *args, **(kwargs or {}))) is not None:
            return part
        decode: Callable[[Any], Any] = lambda value: value.decoded() if isinstance(value, DeferredTensor) else value  # noqa: E731
        return function(*tree_map(decode, args), **tree_map(decode, kwargs or {}))


aten = torch.ops.aten
STILL_DEFERRED = {aten.slice.Tensor, aten.detach.default, aten.alias.default}


def _part(function: Any, tensor: DeferredTensor, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    """Rows of the tensor as another one; None where something else than rows is asked for."""
    if function is not aten.slice.Tensor:
        return DeferredTensor(tensor._source, tensor._rows)
    if dim % tensor.dim() != 0 or step != 1:
        return None
    first, last, _ = slice(start, end).indices(tensor.shape[0])
    offset = tensor._rows.start
    return DeferredTensor(tensor._source, slice(offset + first, offset + max(first, last)))


def deferred_weights(file: str, wanted: Callable[[str], bool]) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) for every wanted tensor of a `.bs` file; those of a megabyte and more are deferred."""
    tensors = lazy_tensors([file])
    small = {name for name, tensor in tensors.items() if tensor.nbytes < MIN_BYTES or tensor.ndim < 2 or not tensor.has_rows}
    yield from weights(file, lambda name: name in small and wanted(name))
    for name, tensor in tensors.items():
        if name not in small and wanted(name):
            yield name, DeferredTensor(tensor, slice(0, tensor.shape[0]))
