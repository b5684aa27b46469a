"""The layers of a transformers model."""

from dataclasses import dataclass

from torch import nn

from .plan import Part


@dataclass(frozen=True)
class Unit:
    """A module whose parameters come and go together."""

    name: str
    module: nn.Module
    parts: tuple[Part, ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The tensors that it is made of, by their names in the file."""
        return tuple(key for part in self.parts for key in part.keys)


def layer_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that run one after the other, by name, in the order in which the model has them.

    They are transformers' own layers that can be recomputed; where it has none, the members of lists of like modules. The outermost count.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, GradientCheckpointingLayer) and not _is_within(name, found):
            found[name] = module
    if found:
        return found
    for name, module in model.named_modules():
        is_stack = isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(member) for member in module.children()}) == 1
        if is_stack and not _is_within(name, found):
            found |= {f"{name}.{i}": member for i, member in module.named_children()}
    return found


def _is_within(name: str, modules: dict[str, nn.Module]) -> bool:
    return any(name.startswith(f"{other}.") for other in modules)


def units(model: nn.Module, parts: list[Part]) -> tuple[list[Unit], list[Part]]:
    """The layers that can stream, and the parts of everything else, which stays.

    A layer that is used in several places, or whose parameters are, stays as well; so do buffers.
    """
    modules = layer_modules(model)
    owners: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), set()).add(next((layer for layer in modules if name.startswith(f"{layer}.")), ""))
    shared = {layer for layers in owners.values() if len(layers) > 1 for layer in layers}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    of_layer: dict[str, list[Part]] = {}
    resident = []
    for part in parts:
        layer = next((name for name in modules if part.target.startswith(f"{name}.")), None)
        if layer is None or layer in shared or not all(name in parameters for name in part.dtypes):
            resident.append(part)
        else:
            of_layer.setdefault(layer, []).append(part)
    return [Unit(name, modules[name], tuple(of_layer[name])) for name in modules if name in of_layer], resident


def parameter_places(model: nn.Module, names: list[str]) -> dict[str, tuple[dict[str, nn.Parameter | None], str]]:
    """Where modules keep parameters: a dict of the owner's, and the key in it, by full name."""
    places = {}
    for name in names:
        parent, _, leaf = name.rpartition(".")
        places[name] = (model.get_submodule(parent)._parameters, leaf)
    return places
