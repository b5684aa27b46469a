"""transformers models whose layers are decoded when they run."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from .._core import Reader, packed_files
from ..errors import OptionError
from ..files import StrPath
from ..torch import dtype_of, to_tensor
from .memory import resident_set
from .module import parameters_on_meta, put
from .page_cache import PageCache
from .placement import Tier, place
from .plan import Part, plan
from .shards import Shards
from .streamer import Streamer
from .units import units

if TYPE_CHECKING:
    from .memory import Memory


def open_model(
    path: Path,
    model_class: Any,
    *,
    config_dir: StrPath,
    device: torch.device,
    dtype: torch.dtype | None,
    prefetch: int | None,
    threads: int,
    kept_bytes: int,
    held_bytes: int,
    pinned: Mapping[int, Tier],
    forget: bool,
    options: dict[str, Any],
) -> Any:
    """See `BigSmallStreamingModel.from_pretrained`."""
    import transformers

    shards = Shards([Reader(file) for file in packed_files(path)])
    config = _config(config_dir, options)
    if model_class is None:
        model_class = getattr(transformers, (getattr(config, "architectures", None) or ["AutoModel"])[0], transformers.AutoModel)
    make = getattr(model_class, "from_config", None) or getattr(model_class, "_from_config", None)
    if make is None:
        raise OptionError(f"{model_class.__name__} is no class of transformers' models")
    dtype = dtype or getattr(config, "dtype", None) or _first_dtype(shards)
    with parameters_on_meta():
        model = make(config, dtype=dtype)
    _keep_precision(model, dtype)
    model.eval()
    layers, resident = units(model, plan(model, shards.entries, path))
    if not layers:
        raise OptionError(f"{path}: {type(model).__name__} has no layers that run one after the other; bigsmall.load_model loads it whole")
    tiers = place(
        [shards.raw_bytes(unit.keys) for unit in layers],
        [shards.compressed_bytes(unit.keys) for unit in layers],
        ram_bytes=held_bytes,
        pinned=pinned,
    )
    # What came before is packages.
    before = resident_set()
    _load(model, resident, shards, device, threads)
    for name, buffer in list(model.named_buffers()):
        put(model, name, buffer.to(device))
    model.tie_weights()
    streamer = Streamer(
        model,
        layers,
        shards,
        device=device,
        prefetch=_default_prefetch(device) if prefetch is None else prefetch,
        threads=threads,
        tiers=tiers,
        kept_bytes=kept_bytes,
        page_cache=PageCache(shards, forget=forget),
    )
    model.streaming = Streaming(streamer, _resident_bytes(model), before)
    streamer.start()
    if model.can_generate() and Path(config_dir, "generation_config.json").is_file():
        model.generation_config = transformers.GenerationConfig.from_pretrained(config_dir)
    return model


class Streaming:
    """What there is to know of a model that streams, as its attribute `streaming`."""

    def __init__(self, streamer: Streamer, resident_bytes: int, resident_before_bytes: int | None) -> None:
        self._streamer = streamer
        self.resident_before_bytes = resident_before_bytes
        """What of the process was in memory before any weight was, in bytes; None where the system does not tell."""
        self.memory: Memory = streamer.memory(resident_bytes)
        """What the weights take at most."""

    @property
    def layer_names(self) -> list[str]:
        """The modules whose parameters come and go, in order."""
        return [unit.name for unit in self._streamer.units]

    @property
    def tiers(self) -> list[Tier]:
        """Where each layer waits for its turn."""
        return list(self._streamer.tiers)

    @property
    def kept_layers(self) -> list[int]:
        """Layers that are decoded now and stay, by their number."""
        return self._streamer.kept_layers

    @property
    def decodes(self) -> list[tuple[int, float]]:
        """(layer, seconds) of each decoding so far."""
        return list(self._streamer.statistics.decodes)

    @property
    def waited_s(self) -> float:
        """Seconds for which the model has waited for layers."""
        return self._streamer.statistics.waits_s

    @property
    def prefetch(self) -> int:
        """Layers that are decoded ahead."""
        return self._streamer.prefetch

    @property
    def raw_bytes(self) -> list[int]:
        """Of each layer, decoded."""
        return [self._streamer.shards.raw_bytes(unit.keys) for unit in self._streamer.units]

    @property
    def compressed_bytes(self) -> list[int]:
        """Of each layer, in the file."""
        return [self._streamer.shards.compressed_bytes(unit.keys) for unit in self._streamer.units]

    def close(self) -> None:
        """Close the files and end the thread that decodes. The model can no longer run."""
        self._streamer.close()


def _config(config_dir: StrPath, options: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    file = Path(config_dir, "config.json")
    if Path(config_dir).is_dir() and not file.is_file():
        message = "No such file; config_dir names the folder of the model's configuration where that is not beside the weights"
        raise FileNotFoundError(errno.ENOENT, message, str(file))
    try:
        return AutoConfig.from_pretrained(config_dir, **options)
    except (ValueError, KeyError) as error:
        raise OptionError(f"{config_dir}: transformers has no model for this configuration: {str(error).splitlines()[0]}") from error


def _first_dtype(shards: Shards) -> torch.dtype:
    found = (dtype_of(entry["dtype"]) for entry in shards.entries.values())
    return next((dtype for dtype in found if dtype.is_floating_point), torch.float32)


def _keep_precision(model: Any, dtype: torch.dtype) -> None:
    """Give parameters that transformers keeps in F32, whatever the model's dtype, that dtype."""
    kept = model._get_dtype_plan(dtype) if hasattr(model, "_get_dtype_plan") else {}
    if not kept:
        return
    patterns = [(re.compile(pattern.replace("*", r".*")), wanted) for pattern, wanted in kept.items()]
    for name, parameter in list(model.named_parameters()):
        wanted = next((wanted for pattern, wanted in patterns if pattern.search(name)), None)
        if wanted is not None and parameter.is_floating_point():
            put(model, name, nn.Parameter(parameter.to(wanted), requires_grad=False))


def _load(model: nn.Module, parts: list[Part], shards: Shards, device: torch.device, threads: int) -> None:
    """The parameters that stay, a part at a time."""
    for part in parts:
        tensors = {key: to_tensor(tensor).to(device) for key, tensor in shards.tensors(part.keys, threads=threads).items()}
        for name, tensor in part.make(tensors.__getitem__, model).items():
            put(model, name, tensor)


def _resident_bytes(model: nn.Module) -> int:
    tensors = {id(tensor): tensor for tensor in [*model.parameters(), *model.buffers()] if tensor.device.type != "meta"}
    return sum(tensor.nbytes for tensor in tensors.values())


def _default_prefetch(device: torch.device) -> int:
    """1; 0 where torch computes on all cores, which then have nothing left to decode with."""
    n_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if device.type == "cpu" and torch.get_num_threads() >= n_cores else 1
