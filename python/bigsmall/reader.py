"""safetensors' own way to open a file, for `.bs` files."""

from types import TracebackType
from typing import Any, Literal, TypeAlias

from ._core import Reader
from .errors import MissingTensorError, OptionError, located
from .files import StrPath
from .slices import Framework, TensorSlice

FrameworkName: TypeAlias = Literal["pt", "torch", "pytorch", "np", "numpy"]
Backend: TypeAlias = Literal["mmap", "pread"]


class safe_open:  # noqa: N801 - the name is safetensors'
    """A `.bs` file with the interface of `safetensors.safe_open`; tensors are decoded as they are asked for.

    >>> with bigsmall.safe_open("model.bs", framework="pt") as f:
    ...     f.keys(), f.metadata()
    ...     f.get_tensor("lm_head.weight")
    ...     f.get_slice("lm_head.weight")[64:128]

    Args:
        filename: the `.bs` file.
        framework: `pt` (also `torch`, `pytorch`) or `np` (also `numpy`). How dtypes appear is told in `bigsmall.torch` and
            `bigsmall.numpy`.
        device: where torch tensors go.
        backend: accepted because safetensors has it; a `.bs` file is always read by offset.
        base: what a patch was made from.

    Raises:
        OptionError: no such framework, backend, or device for numpy.
        FormatError, VersionError, OSError: the file cannot be read.
    """

    def __init__(
        self,
        filename: StrPath,
        framework: FrameworkName,
        device: Any = "cpu",
        *,
        backend: Backend = "mmap",
        base: StrPath | None = None,
    ) -> None:
        self._framework = _framework(framework, device)
        if backend not in ("mmap", "pread"):
            raise OptionError(f"backend {backend!r} is neither 'mmap' nor 'pread'")
        self._path = filename
        self._open_reader: Reader | None = Reader(filename, base=base)
        self._entries = {entry["name"]: entry for entry in self._open_reader.entries()}

    def __enter__(self) -> "safe_open":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        # Slices already taken keep the file open for themselves.
        self._open_reader = None

    def keys(self) -> list[str]:
        """The tensors' names, sorted."""
        return sorted(self.offset_keys())

    def offset_keys(self) -> list[str]:
        """The tensors' names in file order."""
        return self._reader.keys()

    def metadata(self) -> dict[str, str] | None:
        """The safetensors `__metadata__`, or None."""
        return self._reader.metadata

    def get_tensor(self, name: str) -> Any:
        """The whole tensor. Raises MissingTensorError, CorruptError."""
        return self._framework.place(self._framework.wrap(self._reader.tensor(name)))

    def get_tensors(self) -> dict[str, Any]:
        """Every tensor in file order, decoded by all cores. Raises CorruptError for the first that is damaged."""
        names = self.offset_keys()
        tensors = {}
        for name, tensor in zip(names, self._reader.tensors(names), strict=True):
            if isinstance(tensor, BaseException):
                raise tensor
            tensors[name] = self._framework.place(self._framework.wrap(tensor))
        return tensors

    def get_slice(self, name: str) -> TensorSlice:
        """The tensor to be indexed, not yet decoded. Raises MissingTensorError."""
        reader = self._reader
        if name not in self._entries:
            raise located(MissingTensorError, f'there is no tensor "{name}"', path=reader.path)
        return TensorSlice(reader, self._entries[name], self._framework)

    @property
    def _reader(self) -> Reader:
        if self._open_reader is None:
            raise ValueError(f"{self._path}: the file is closed")
        return self._open_reader


def _framework(name: str, device: Any) -> Framework:
    if name in ("pt", "torch", "pytorch"):
        from . import torch

        return torch.framework(device)
    if name in ("np", "numpy"):
        from . import numpy

        if device != "cpu":
            raise OptionError(f"numpy arrays have no device {device!r}")
        return numpy.framework()
    raise OptionError(f"framework {name!r} is neither 'pt' nor 'np'")
