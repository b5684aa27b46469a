"""Which tensors of a checkpoint become which parameters of a transformers model.

Recent releases of transformers rename tensors as they load them, and fuse some: the experts of a layer become one parameter, one matrix
of queries, keys and values becomes three. The rules are those of transformers' own table, applied tensor by tensor.
"""

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from ..dtypes import array_shape
from ..errors import FormatError, FrameworkError, OptionError, located
from ..torch import dtype_of

Fetch = Callable[[str], torch.Tensor]
"""A decoded tensor by its name in the file."""


@dataclass(frozen=True)
class Part:
    """Parameters that are made together."""

    sources: tuple[tuple[str, str | None], ...]
    """The tensors that they are made of, by their names in the file, each with the pattern that a conversion knows it by."""
    conversion: Any
    """transformers' conversion, None where a tensor is the parameter."""
    target: str
    """The parameter, or the first that the conversion makes."""
    dtypes: Mapping[str, torch.dtype]
    """Of the parameters, by name."""
    casts: bool = False
    """Whether the parameters have another dtype than the tensors."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Names in the file."""
        return tuple(key for key, _ in self.sources)

    def make(self, fetch: Fetch, model: Any) -> dict[str, torch.Tensor]:
        """The parameters by name; memory of its own only where something is converted."""
        dtype = next(iter(self.dtypes.values())) if self.dtypes else None

        def cast(key: str) -> torch.Tensor:
            tensor = fetch(key)
            return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)

        if self.conversion is None:
            return {self.target: cast(self.sources[0][0])}
        # It collects tensors in itself.
        conversion = deepcopy(self.conversion)
        for key, pattern in self.sources:
            conversion.add_tensor(self.target, key, pattern, lambda key=key: cast(key))
        made = conversion.convert(self.target, model=model, config=model.config)
        return {name: value[0] if isinstance(value, list) else value for name, value in made.items()}


def plan(model: Any, entries: Mapping[str, Mapping[str, Any]], path: Any) -> list[Part]:
    """The parts of a model.

    Args:
        model: a transformers model whose parameters may be on the meta device; its dtypes count.
        entries: what the checkpoint has, by name, as `Reader.entries` tells it.
        path: of the checkpoint, for messages.

    Raises:
        FormatError: the checkpoint lacks parameters of the model, or has them in another shape.
        OptionError: the model wants its weights quantised as they are loaded.
        FrameworkError: this release of transformers converts checkpoints in a way that is not known.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming, dot_natural_key, rename_source_key
    except ImportError as error:
        import transformers

        message = (
            f"transformers {transformers.__version__} cannot be streamed with (5.0 to 5.23 can); bigsmall.load_model loads whole models"
        )
        raise FrameworkError(message) from error
    if getattr(model.config, "quantization_config", None) is not None:
        raise OptionError(f"{path}: a model with a quantization_config cannot be streamed; bigsmall.load_model loads it whole")
    wanted = model.state_dict(keep_vars=True)
    rules = get_model_conversion_mapping(model) or []
    renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    groups: dict[str, list[tuple[str, str | None]]] = {}
    for key in sorted(entries, key=dot_natural_key):
        name, pattern = rename_source_key(key, renamings, converters, model.base_model_prefix, wanted)
        if name not in wanted and key in wanted:
            name, pattern = rename_source_key(key, [], [], model.base_model_prefix, wanted)
        if name in wanted:
            groups.setdefault(name, []).append((key, pattern))
    parts = [_part(model, name, sources, by_pattern, wanted, entries, path) for name, sources in groups.items()]
    made = {id(wanted[name]) for part in parts for name in part.dtypes}
    _check_complete(model, wanted, made | _tied(model, wanted, made), path)
    return parts


def _part(
    model: Any,
    target: str,
    sources: list[tuple[str, str | None]],
    by_pattern: Mapping[str, Any],
    wanted: Mapping[str, torch.Tensor],
    entries: Mapping[str, Mapping[str, Any]],
    path: Any,
) -> Part:
    """Makes the parameters once without data, which tells what there will be."""
    pattern = sources[0][1]
    conversion = None if pattern is None else by_pattern[pattern]
    if conversion is None:
        # Of several names that are renamed to one, transformers takes the last.
        sources = sources[-1:]

    def empty(key: str) -> torch.Tensor:
        dtype = entries[key]["dtype"]
        return torch.empty(array_shape(dtype, tuple(entries[key]["shape"])), dtype=dtype_of(dtype), device="meta")

    draft = Part(tuple(sources), conversion, target, {target: wanted[target].dtype})
    made = draft.make(empty, model)
    for name, tensor in made.items():
        if name not in wanted:
            raise located(FormatError, f"it becomes {name!r}, which the model does not have", path=path, tensor=sources[0][0])
        if tensor.shape != wanted[name].shape:
            message = f"it becomes {name!r} of shape {tuple(tensor.shape)}, which is {tuple(wanted[name].shape)} in the model"
            raise located(FormatError, message, path=path, tensor=sources[0][0])
    dtypes = {name: wanted[name].dtype if tensor.is_floating_point() else tensor.dtype for name, tensor in made.items()}
    casts = any(empty(key).is_floating_point() and empty(key).dtype != dtypes[target] for key, _ in sources)
    return Part(tuple(sources), conversion, target, dtypes, casts)


def _tied(model: Any, wanted: Mapping[str, torch.Tensor], made: set[int]) -> set[int]:
    """Parameters that will be others' by `tie_weights`, either way round."""
    tied = set()
    for target, source in (getattr(model, "all_tied_weights_keys", None) or {}).items():
        pair = [id(wanted[name]) for name in (target, source) if name in wanted]
        if made.intersection(pair):
            tied.update(pair)
    return tied


def _check_complete(model: Any, wanted: Mapping[str, torch.Tensor], known: set[int], path: Any) -> None:
    lacking = [name for name, tensor in wanted.items() if tensor.device.type == "meta" and id(tensor) not in known]
    if lacking:
        some = ", ".join(lacking[:3]) + (f" and {len(lacking) - 3} more" if len(lacking) > 3 else "")
        raise FormatError(f"{path}: {type(model).__name__} has parameters that the checkpoint lacks: {some}")


def parts_of(parts: Iterable[Part], prefix: str) -> list[Part]:
    """Those whose parameters are in the module of that name."""
    return [part for part in parts if part.target.startswith(f"{prefix}.")]
