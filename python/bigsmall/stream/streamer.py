"""Layers that are decoded when they run."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from .ahead import Ahead
from .memory import Memory
from .module import on_meta
from .page_cache import PageCache
from .placement import Tier
from .scratch import Scratch, size
from .shards import Shards
from .units import Unit, parameter_places


@dataclass
class Decoded:
    """The parameters of a layer, by name, and the scratch memory that they are in; None where they stay."""

    parameters: dict[str, nn.Parameter]
    scratch: Scratch | None


@dataclass
class Statistics:
    """What has been done so far."""

    decodes: list[tuple[int, float]] = field(default_factory=list)
    """(layer, seconds) of each decoding, by whichever thread."""
    waits_s: float = 0.0
    """Seconds for which layers have been waited for."""
    runs: int = 0
    """Layers that have run."""


class Streamer:
    """Gives a model's layers their parameters while they run, and takes them back afterwards.

    Of the layers that run in turn, as many stay decoded as the budget allows. Layers run in a circle, in which the one that was used
    longest ago is the one that is needed next; so a layer gives way to another only once it has been left out for two rounds, as an
    encoder is while a decoder runs.

    Args:
        model: whose layers' parameters are on the meta device.
        units: the layers.
        shards: what they are decoded from. Closed by the caller.
        device: where they compute.
        prefetch: layers that are decoded ahead.
        threads: for decoding; 0 means one per core.
        tiers: where each layer waits.
        kept_bytes: budget for layers that stay decoded, those of the first tier included.
        page_cache: what the system is told about files.
    """

    def __init__(
        self,
        model: nn.Module,
        units: Sequence[Unit],
        shards: Shards,
        *,
        device: torch.device,
        prefetch: int,
        threads: int,
        tiers: Sequence[Tier],
        kept_bytes: int,
        page_cache: PageCache,
    ) -> None:
        self.model = model
        self.units = units
        self.shards = shards
        self.tiers = list(tiers)
        self.statistics = Statistics()
        self._device = device
        self._threads = threads
        self._page_cache = page_cache
        self._sizes = [size(shards.entries, unit.keys) for unit in units]
        self._converted = [_converted_bytes(model, unit) for unit in units]
        self._places = [parameter_places(model, [name for part in unit.parts for name in part.dtypes]) for unit in units]
        self._meta = [{name: on_meta(_parameter(place)) for name, place in places.items()} for places in self._places]
        self.prefetch = min(prefetch, max(0, len(units) - 1))
        self._budget = kept_bytes
        self._kept: dict[int, int] = {}
        self._running: dict[int, Decoded] = {}
        self._next = {i: (i + 1) % len(units) for i in range(len(units))}
        self._previous: int | None = None
        self._lock = threading.Lock()
        self._free: list[Scratch] = []
        self._ahead: Ahead[int, Decoded] = Ahead(self._decode, self.prefetch, self._give_back)
        self._held_bytes = 0
        self._hooks: list[Any] = []

    def start(self) -> None:
        """Hold what is to be held in memory, keep what is to stay, and have the model call for its layers."""
        for i, tier in enumerate(self.tiers):
            if tier is Tier.RAM:
                self._held_bytes += self.shards.hold(self.units[i].keys)
            elif tier is Tier.VRAM:
                self._keep(i)
        for i, unit in enumerate(self.units):
            self._hooks.append(unit.module.register_forward_pre_hook(partial(self._before, i), prepend=True))
            self._hooks.append(unit.module.register_forward_hook(partial(self._after, i), always_call=True))

    def close(self) -> None:
        """Take the parameters of all layers back, and end the thread that decodes."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._ahead.close()
        for i in list(self._kept):
            self._evict(i)
        self._free.clear()
        self.shards.close()
        self._page_cache.close()

    @property
    def scratch_bytes(self) -> int:
        """Bytes of the memory that layers are decoded into, with what conversions of them take."""
        both_sides = 1 if self._device.type == "cpu" else 2
        streamed = [i for i, tier in enumerate(self.tiers) if tier is not Tier.VRAM]
        largest = max((self._sizes[i] * both_sides + self._converted[i] for i in streamed), default=0)
        return (1 + self.prefetch) * largest

    def memory(self, resident_bytes: int) -> Memory:
        """What the weights take at most, beside those that stay anyway."""
        held = sum(self.shards.compressed_bytes(unit.keys) for unit, tier in zip(self.units, self.tiers, strict=True) if tier is Tier.RAM)
        total = sum(self._kept_size(i) for i in range(len(self.units)))
        pinned = sum(self._kept_size(i) for i, tier in enumerate(self.tiers) if tier is Tier.VRAM)
        return Memory(resident_bytes, self.scratch_bytes, min(total, max(self._budget, pinned)), held)

    @property
    def kept_layers(self) -> list[int]:
        """The layers that are decoded now and stay."""
        return sorted(self._kept)

    def _before(self, i: int, module: nn.Module, args: Any) -> None:
        if self._previous is not None:
            self._next[self._previous] = i
        self._previous = i
        self.statistics.runs += 1
        if i in self._kept:
            self._kept[i] = self.statistics.runs
            self._ahead.expect(self._expected(i))
            return
        if self._may_keep(i):
            self._keep(i)
        else:
            started = time.perf_counter()
            decoded = self._ahead.take(i)
            self.statistics.waits_s += time.perf_counter() - started
            self._running[i] = decoded
            self._put(i, decoded.parameters)
        self._ahead.expect(self._expected(i))

    def _after(self, i: int, module: nn.Module, args: Any, output: Any) -> None:
        decoded = self._running.pop(i, None)
        if decoded is not None:
            self._put(i, self._meta[i])
            self._give_back(decoded)

    def _expected(self, i: int) -> list[int]:
        """The layers that will have to be decoded next, as they followed each other before."""
        expected: list[int] = []
        for _ in range(len(self.units)):
            i = self._next[i]
            if i not in self._kept and i not in self._running and i not in expected:
                expected.append(i)
            if len(expected) > self.prefetch:
                break
        # One more than is decoded, so that it is read from the disk meanwhile.
        self._page_cache.expect([key for at in expected for key in self.units[at].keys if self.tiers[at] is Tier.NVME])
        return expected[: self.prefetch]

    def _decode(self, i: int) -> Decoded:
        started = time.perf_counter()
        with self._lock:
            scratch = self._free.pop() if self._free else None
        scratch = scratch or Scratch(max(self._sizes), self._device)
        try:
            tensors = scratch.decode(self.shards, self.units[i].keys, self._threads)
            parameters = self._made(i, tensors, scratch)
        except BaseException:
            self._give_back(Decoded({}, scratch))
            raise
        if self.tiers[i] is Tier.NVME:
            self._page_cache.done(self.units[i].keys)
        self.statistics.decodes.append((i, time.perf_counter() - started))
        return Decoded(parameters, scratch)

    def _made(self, i: int, tensors: Mapping[str, torch.Tensor], scratch: Scratch) -> dict[str, nn.Parameter]:
        known = scratch.parameters.get(i)
        if known is not None:
            return known
        parameters = self._parameters(i, tensors)
        if self._converted[i] == 0:
            # They are views of the scratch memory, wherever its contents come from.
            scratch.parameters[i] = parameters
        return parameters

    def _parameters(self, i: int, tensors: Mapping[str, torch.Tensor]) -> dict[str, nn.Parameter]:
        made = {}
        for part in self.units[i].parts:
            for name, tensor in part.make(tensors.__getitem__, self.model).items():
                made[name] = nn.Parameter(tensor, requires_grad=False)
        return made

    def _put(self, i: int, parameters: Mapping[str, nn.Parameter]) -> None:
        for name, (owner, leaf) in self._places[i].items():
            owner[leaf] = parameters[name]

    def _give_back(self, decoded: Decoded) -> None:
        scratch = decoded.scratch
        if scratch is not None:
            scratch.mark_used()
            with self._lock:
                if len(self._free) <= self.prefetch:
                    self._free.append(scratch)

    def _kept_size(self, i: int) -> int:
        return self._converted[i] or self._sizes[i]

    def _may_keep(self, i: int) -> bool:
        """Whether a layer that runs now may stay; layers that have not run for two rounds make room."""
        needed = self._kept_size(i)
        if needed > self._budget:
            return False
        idle = [at for at in self._kept if self.tiers[at] is not Tier.VRAM and self.statistics.runs - self._kept[at] > 2 * len(self.units)]
        used = sum(self._kept_size(at) for at in self._kept)
        for at in sorted(idle, key=self._kept.__getitem__):
            if used + needed <= self._budget:
                break
            used -= self._kept_size(at)
            self._evict(at)
        return used + needed <= self._budget

    def _keep(self, i: int) -> None:
        started = time.perf_counter()
        scratch = Scratch(self._sizes[i], self._device)
        self._put(i, self._parameters(i, scratch.decode(self.shards, self.units[i].keys, self._threads)))
        self.statistics.decodes.append((i, time.perf_counter() - started))
        self._kept[i] = self.statistics.runs

    def _evict(self, i: int) -> None:
        del self._kept[i]
        self._put(i, self._meta[i])


def _parameter(place: tuple[dict[str, nn.Parameter | None], str]) -> nn.Parameter:
    owner, leaf = place
    parameter = owner[leaf]
    if parameter is None:
        raise AssertionError("plans are made for parameters that exist")
    return parameter


def _converted_bytes(model: nn.Module, unit: Unit) -> int:
    """Bytes of a layer's parameters if they are not what is in the file: then they take memory beside the scratch memory."""
    parameters = dict(unit.module.named_parameters())
    if all(part.conversion is None and not part.casts for part in unit.parts):
        return 0
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters.values())
