"""Indexing a tensor on disk, as safetensors' slices do."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from ._core import Reader, Tensor
from .dtypes import array_shape
from .errors import OptionError, located

Index: TypeAlias = int | slice


class Framework(NamedTuple):
    """How a decoded tensor becomes an array of some library."""

    wrap: Callable[[Tensor], Any]
    """The tensor's own memory as an array on the CPU."""
    place: Callable[[Any], Any]
    """Such an array, or a view of one, in C order and on the device asked for."""


class TensorSlice:
    """A tensor that is decoded when it is indexed, and of its first dimension only the blocks that hold the rows asked for.

    Indices are integers, slices with a positive step, and one Ellipsis, as in safetensors; negative ones count from the end. A bound
    outside of the tensor is an IndexError where numpy would cut it off: a shard of a wrong shape must not go unnoticed.
    """

    def __init__(self, reader: Reader, entry: dict[str, Any], framework: Framework) -> None:
        self._reader = reader
        self._name: str = entry["name"]
        self._dtype: str = entry["dtype"]
        self._shape: tuple[int, ...] = tuple(entry["shape"])
        self._framework = framework

    def get_shape(self) -> list[int]:
        """The shape of the whole tensor, in elements."""
        return list(self._shape)

    def get_dtype(self) -> str:
        """The safetensors name of the dtype, such as `BF16`."""
        return self._dtype

    def __getitem__(self, index: Any) -> Any:
        """The part of the tensor that `index` selects, as an array of its own.

        F4 elements share bytes in pairs, so their last dimension can be cut only between pairs; tensors stored as a flat row of bytes
        (F6, and F4 with an odd last dimension) can only be taken whole.

        Raises IndexError for a bound outside of the tensor or too many indices, TypeError for what is no index, ValueError for a
        step below one, OptionError for a cut through a byte, CorruptError for damaged data.
        """
        indices = _resolve(index, self._shape)
        if all(i == slice(0, size, 1) for i, size in zip(indices, self._shape, strict=True)):
            return self._framework.place(self._framework.wrap(self._reader.tensor(self._name)))
        first, *inner = self._in_array(indices)
        start, stop = (indices[0], indices[0] + 1) if isinstance(indices[0], int) else (indices[0].start, indices[0].stop)
        rows = self._framework.wrap(self._reader.rows(self._name, start, stop))
        of_rows = 0 if isinstance(first, int) else slice(None, None, first.step)
        return self._framework.place(rows[(of_rows, *inner)])

    def _in_array(self, indices: list[Index]) -> list[Index]:
        """The same indices, counted in what the array of the whole tensor holds."""
        in_array = array_shape(self._dtype, self._shape)
        if in_array == self._shape:
            return indices
        *outer, last = indices
        in_pairs = self._dtype == "F4" and len(in_array) == len(self._shape)
        if in_pairs and isinstance(last, slice) and (last.start % 2, last.stop % 2, last.step) == (0, 0, 1):
            return [*outer, slice(last.start // 2, last.stop // 2, 1)]
        raise located(
            OptionError, f"{self._dtype} elements share bytes, and this index cuts one", path=self._reader.path, tensor=self._name
        )


def _resolve(index: Any, shape: tuple[int, ...]) -> list[Index]:
    """One integer or slice for every dimension, all bounds within it and not negative, no slice that ends before it starts."""
    given = list(index) if isinstance(index, tuple) else [index]
    gaps = [position for position, item in enumerate(given) if item is Ellipsis]
    if len(gaps) > 1:
        raise IndexError("an index can have only one ellipsis ('...')")
    n_free = len(shape) - (len(given) - len(gaps))
    if n_free < 0:
        raise IndexError(f"{len(given) - len(gaps)} indices for a tensor of {len(shape)} dimensions")
    position = gaps[0] if gaps else len(given)
    given[position : position + 1] = [slice(None)] * n_free
    return [_bounded(item, dimension, size) for dimension, (item, size) in enumerate(zip(given, shape, strict=True))]


def _bounded(item: Any, dimension: int, size: int) -> Index:
    if isinstance(item, slice):
        step = 1 if item.step is None else operator.index(item.step)
        if step < 1:
            raise ValueError(f"the step of a slice is {step}; only positive ones are supported")
        start = 0 if item.start is None else _bound(item.start, dimension, size, size)
        stop = size if item.stop is None else _bound(item.stop, dimension, size, size)
        return slice(start, max(start, stop), step)
    if isinstance(item, list) and not item:
        return slice(0, 0, 1)
    return _bound(item, dimension, size, size - 1)


def _bound(value: Any, dimension: int, size: int, last: int) -> int:
    try:
        position = operator.index(value)
    except TypeError:
        raise TypeError(f"an index is an integer, a slice or an ellipsis, not {type(value).__name__}") from None
    counted = position + size if position < 0 else position
    if not 0 <= counted <= last:
        raise IndexError(f"index {position} is out of bounds for dimension {dimension} of size {size}")
    return counted
