"""A compressed model, one layer after the other."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._core import Reader, packed_files
from ..errors import OptionError
from ..files import StrPath
from ..layers import layers_of
from ..pretrained import load_model
from ..repository import local_copy
from .ahead import Ahead
from .shards import Shards

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch


class StreamingLoader:
    """The tensors of a `.bs` file, a compressed directory or a Hub repository, decoded layer by layer.

    >>> with bigsmall.StreamingLoader("model.bs") as loader:
    ...     embeddings_and_head = loader.load_non_layer_tensors()
    ...     for i, layer in loader.iter_layers():
    ...         ...

    Layers are known by the usual names of the repeated part of networks (see `bigsmall.layers.layer_of`), those of several stacks are
    numbered one stack after the other. All names are those in the files.

    Args:
        path_or_repo: the file, directory, or repository such as `user/model`, which is downloaded into the Hub's cache.
        device: where the tensors go.
        prefetch: how many layers `iter_layers` decodes ahead, while the caller works with the one before.
        threads: for decoding; 0 means one per core.
        hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as everywhere around the Hub.

    Raises:
        ModuleNotFoundError: PyTorch is not installed, or huggingface_hub, which a repository needs.
        FileNotFoundError: there is no such path or repository, or a shard is missing.
        FormatError, VersionError, CorruptError, OSError: as `bigsmall.load`.
        OptionError: `prefetch` is negative.
    """

    def __init__(
        self, path_or_repo: StrPath, device: "str | int | torch.device" = "cpu", *, prefetch: int = 1, threads: int = 0, **hub_options: Any
    ) -> None:
        from .. import torch as to_torch

        if prefetch < 0:
            raise OptionError(f"{prefetch} layers cannot be decoded ahead")
        self._place = to_torch.framework(device)
        self._path = local_copy(path_or_repo, **hub_options)
        self._shards = Shards([Reader(file) for file in packed_files(self._path)])
        self._layers = layers_of(self._shards.entries)
        self._layer_names = list(self._layers)
        in_layers = {name for names in self._layers.values() for name in names}
        self._non_layer = [name for name in self._shards.entries if name not in in_layers]
        self._prefetch = prefetch
        self._threads = threads

    def __enter__(self) -> "StreamingLoader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the files. Tensors that were loaded stay."""
        self._shards.close()

    @property
    def path(self) -> Path:
        """The file or directory."""
        return self._path

    @property
    def tensor_names(self) -> list[str]:
        """All tensors, in file order."""
        return list(self._shards.entries)

    @property
    def non_layer_tensor_names(self) -> list[str]:
        """The tensors that belong to no layer, such as embeddings and heads, in file order."""
        return list(self._non_layer)

    @property
    def layer_names(self) -> list[str]:
        """The layers, such as `model.layers.0`, in the order in which they run."""
        return list(self._layer_names)

    @property
    def layer_count(self) -> int:
        """How many layers there are."""
        return len(self._layer_names)

    def layer_tensor_names(self, i: int) -> list[str]:
        """The tensors of layer `i`, in file order. Raises IndexError."""
        if not 0 <= i < self.layer_count:
            raise IndexError(f"there is no layer {i}: {self._path} has {self.layer_count}")
        return list(self._layers[self._layer_names[i]])

    def load_tensor(self, name: str) -> "torch.Tensor":
        """One tensor. Raises MissingTensorError, CorruptError."""
        return self._load([name])[name]

    def load_non_layer_tensors(self) -> "dict[str, torch.Tensor]":
        """The tensors that belong to no layer, by name. Raises CorruptError."""
        return self._load(self._non_layer)

    def load_layer(self, i: int) -> "dict[str, torch.Tensor]":
        """The tensors of layer `i`, by name. Raises IndexError, CorruptError."""
        return self._load(self.layer_tensor_names(i))

    def iter_layers(self) -> "Iterator[tuple[int, dict[str, torch.Tensor]]]":
        """(i, tensors by name) of every layer in turn, the next ones being decoded meanwhile. Raises CorruptError."""
        ahead = Ahead(self.load_layer, self._prefetch)
        try:
            for i in range(self.layer_count):
                layer = ahead.take(i)
                ahead.expect(range(i + 1, self.layer_count))
                yield i, layer
                # Not kept while the next one is waited for.
                del layer
        finally:
            ahead.close()

    def load_model(self, model_class: Any, *args: Any, **options: Any) -> Any:
        """The model, filled layer by layer: no tensor is in memory twice.

        Args:
            model_class: a class of transformers' models or one of its `Auto` classes, see `bigsmall.load_model`; or anything else that
                makes a `torch.nn.Module` whose state dict has the names in the files.
            args, options: for `bigsmall.load_model`, or for what makes the module.

        Raises:
            FormatError: the files lack a tensor of the module, or have one that it does not.
            CorruptError: a tensor is damaged.
        """
        if hasattr(model_class, "from_pretrained"):
            return load_model(self._path, model_class, *args, **options)
        from .module import filled

        return filled(lambda: model_class(*args, **options), self)

    def _load(self, names: list[str]) -> "dict[str, torch.Tensor]":
        tensors = self._shards.tensors(names, threads=self._threads)
        # Popped, so that a tensor that moves to another device frees this copy.
        return {name: self._place.place(self._place.wrap(tensors.pop(name))) for name in names}
