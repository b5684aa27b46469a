"""torch modules whose parameters come from elsewhere."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import nn

from ..errors import FormatError, located

if TYPE_CHECKING:
    from .loader import StreamingLoader

_CONSTRUCTING = threading.Lock()


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Parameters that modules register in this thread meanwhile take no memory. Buffers are as ever: many are in no file."""
    register = nn.Module.register_parameter
    thread = threading.get_ident()

    def register_on_meta(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
        register(self, name, param)
        # One that is there already is tied to another.
        if type(param) is nn.Parameter and param.device.type != "meta" and threading.get_ident() == thread:
            self._parameters[name] = on_meta(param)

    with _CONSTRUCTING:
        nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]


def on_meta(tensor: torch.Tensor) -> nn.Parameter:
    """A parameter of that shape and dtype without data."""
    return nn.Parameter(tensor.detach().to("meta"), requires_grad=False)


def put(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Make a tensor the parameter or buffer of that name."""
    parent, _, leaf = name.rpartition(".")
    owner = module.get_submodule(parent)
    if leaf in owner._buffers:
        owner._buffers[leaf] = tensor
    else:
        owner._parameters[leaf] = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)


def filled(make: Callable[[], nn.Module], loader: "StreamingLoader") -> nn.Module:
    """The module that `make` makes, with the loader's tensors. Raises FormatError where the two do not agree."""
    with parameters_on_meta():
        module = make()
    wanted = module.state_dict(keep_vars=True)
    names_of: defaultdict[int, list[str]] = defaultdict(list)
    for name, tensor in wanted.items():
        names_of[id(tensor)].append(name)
    in_file = set(loader.tensor_names)
    for name in in_file - wanted.keys():
        raise located(FormatError, "is not in the module", path=loader.path, tensor=name)
    for names in names_of.values():
        if in_file.isdisjoint(names):
            raise located(FormatError, "is not in the file", path=loader.path, tensor=names[0])
    for part in (loader.load_non_layer_tensors(), *(layer for _, layer in loader.iter_layers())):
        for name, tensor in part.items():
            if tensor.shape != wanted[name].shape:
                message = f"its shape is {tuple(tensor.shape)}, in the module {tuple(wanted[name].shape)}"
                raise located(FormatError, message, path=loader.path, tensor=name)
            # A name that is in the file keeps its own tensor, also where the module has one for several.
            for other in names_of[id(wanted[name])]:
                if other == name or other not in in_file:
                    put(module, other, tensor)
    return module
