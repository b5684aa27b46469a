"""Doing what was decided: the weights are decoded and stay, or are decoded layer by layer."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .._core import Reader, Tensor, packed_files
from ..layers import layers_of
from ..loading import decoded_tensors
from ..progress import Progress
from ..stream.memory import forget_peak, peak_resident_set
from ..stream.shards import Shards
from .decision import Decision


@dataclass(frozen=True)
class Outcome:
    """`n_bytes` were decoded in `elapsed_s`. `peak_bytes` is the most memory this process had meanwhile, None where that is not told."""

    n_tensors: int
    n_bytes: int
    n_layers: int
    elapsed_s: float
    peak_bytes: int | None


def carry_out(decision: Decision, *, progress: Progress | None = None) -> Outcome:
    """Load or stream the model as decided.

    Raises CorruptError, FormatError, OSError as `load` does; ModuleNotFoundError where a GPU takes PyTorch.
    """
    pick = decision.pick
    if pick.gpu is not None:
        # Before PyTorch asks for devices: this one, and no context on any other.
        os.environ["CUDA_VISIBLE_DEVICES"] = pick.gpu.uuid
    forget_peak()
    started = time.perf_counter()
    steps = _streamed(decision) if pick.is_streamed else _loaded(decision, progress)
    n_tensors = n_bytes = n_steps = 0
    held = None
    for tensors in steps:
        n_tensors += len(tensors)
        n_bytes += sum(tensor.nbytes for tensor in tensors)
        if n_steps == 0:
            # The first step is what stays.
            held = tensors
        del tensors
        n_steps += 1
        if pick.is_streamed and progress is not None:
            progress(n_bytes, pick.variant.raw_bytes)
    elapsed_s = time.perf_counter() - started
    del held
    return Outcome(n_tensors, n_bytes, n_steps - 1 if pick.is_streamed else pick.variant.layer_count, elapsed_s, peak_resident_set())


def _loaded(decision: Decision, progress: Progress | None) -> Iterator[list[Any]]:
    """All tensors, where they are to be."""
    if decision.pick.gpu is None:
        yield [tensor for _, tensor in decoded_tensors(decision.model.path, progress=progress)]
    else:
        from ..torch import load

        yield list(load(decision.model.path, "cuda", progress=progress).values())


def _streamed(decision: Decision) -> Iterator[list[Any]]:
    """What is outside of layers, and then each layer. None is decoded ahead, since nothing else is done meanwhile."""
    return _streamed_in_ram(decision.model.path) if decision.pick.gpu is None else _streamed_to_gpu(decision.model.path)


def _streamed_to_gpu(path: str) -> Iterator[list[Any]]:
    from ..stream import StreamingLoader

    with StreamingLoader(path, "cuda", prefetch=0) as loader:
        yield list(loader.load_non_layer_tensors().values())
        for _, layer in loader.iter_layers():
            yield list(layer.values())


def _streamed_in_ram(path: str) -> Iterator[list[Tensor]]:
    """As that loader does it, with tensors of this package, which take no PyTorch."""
    shards = Shards([Reader(file) for file in packed_files(path)])
    layers = layers_of(shards.entries)
    in_layers = {name for names in layers.values() for name in names}
    yield list(shards.tensors(name for name in shards.entries if name not in in_layers).values())
    for names in layers.values():
        yield list(shards.tensors(names).values())
