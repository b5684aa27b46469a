"""Indexing a tensor on disk, as safetensors' slices do."""

from collections.abc import Callable
from numbers import Integral
from typing import Any, NamedTuple

from ._core import Reader, Tensor
from .dtypes import array_shape
from .errors import OptionError, located


class Framework(NamedTuple):
    """How a decoded tensor becomes an array of some library."""

    wrap: Callable[[Tensor], Any]
    """The tensor's own memory as an array on the CPU."""
    place: Callable[[Any], Any]
    """Such an array, or a view of one, in C order and on the device asked for."""


class TensorSlice:
    """A tensor that is decoded when it is indexed.

    An index means what it means for arrays of the framework. If it begins with an integer or a slice, only the blocks that hold those
    rows are decoded; any other index decodes the whole tensor.
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
        """The part of the tensor that `index` selects, in C order.

        Where elements share bytes, only what `bigsmall.dtypes.array_shape` keeps of the first dimension can be indexed: F4 matrices by
        their rows, flat rows of bytes not at all.

        Raises IndexError, TypeError or ValueError for what the framework takes for no index, OptionError for an index into shared
        bytes, CorruptError for damaged data.
        """
        index = index if isinstance(index, tuple) else (index,)
        rows = _rows(index[0], self._shape[0]) if index and self._shape else None
        if array_shape(self._dtype, self._shape) != self._shape:
            index = self._in_array(index, rows)
        if rows is None or rows.stop - rows.start == self._shape[0]:
            return self._framework.place(self._framework.wrap(self._reader.tensor(self._name))[index])
        part = self._framework.wrap(self._reader.rows(self._name, rows.start, rows.stop))
        first = 0 if isinstance(index[0], Integral) else slice(None, None, rows.step)
        return self._framework.place(part[(first, *index[1:])])

    def _in_array(self, index: tuple[Any, ...], rows: slice | None) -> tuple[Any, ...]:
        """The index for the array of a tensor whose elements share bytes, if it leaves them together."""
        if all(item is Ellipsis or (isinstance(item, slice) and item == slice(None)) for item in index):
            return (Ellipsis,)
        keeps_rows = len(array_shape(self._dtype, self._shape)) == len(self._shape) > 1
        if keeps_rows and rows is not None and len(index) == 1:
            return index
        message = f"{self._dtype} elements share bytes, and this index would part them"
        raise located(OptionError, message, path=self._reader.path, tensor=self._name)


def _rows(item: Any, n_rows: int) -> slice | None:
    """The rows that the first item of an index selects, with bounds within 0 and `n_rows`; None if the framework has to tell."""
    if isinstance(item, bool):
        # An integer to Python, but a mask to frameworks.
        return None
    if isinstance(item, Integral):
        row = int(item)
        if not -n_rows <= row < n_rows:
            raise IndexError(f"index {row} is out of bounds for a first dimension of size {n_rows}")
        return slice(row % n_rows, row % n_rows + 1, 1)
    if isinstance(item, slice) and (item.step is None or item.step > 0):
        start, stop, step = item.indices(n_rows)
        return slice(start, max(start, stop), step)
    return None
