"""Where each layer of a streamed model waits for its turn."""

import enum
from collections.abc import Mapping, Sequence

from ..errors import OptionError


class Tier(enum.Enum):
    """Fastest first."""

    VRAM = "vram"
    """Decoded, in the memory of the device that computes, which may be the processor's."""
    RAM = "ram"
    """Compressed, in memory."""
    NVME = "nvme"
    """Compressed, on disk; what is read often, the system keeps in its page cache."""

    @classmethod
    def of(cls, name: str) -> "Tier":
        """Raises OptionError for a name that no tier has."""
        try:
            return cls(name)
        except ValueError:
            raise OptionError(f"there is no tier {name!r}, only {', '.join(tier.value for tier in cls)}") from None


def place(
    raw_bytes: Sequence[int],
    compressed_bytes: Sequence[int],
    *,
    vram_bytes: int = 0,
    ram_bytes: int = 0,
    pinned: Mapping[int, Tier] | None = None,
) -> list[Tier]:
    """A tier for each layer: the pinned ones where they are wanted, then as many of the first as the budgets allow.

    Layers run in a circle, so which of them are kept makes no difference to speed.

    Args:
        raw_bytes: of each layer, decoded: what it takes of `vram_bytes`.
        compressed_bytes: of each layer: what it takes of `ram_bytes`.
        vram_bytes, ram_bytes: budgets. Pinned layers count, and may exceed them.
        pinned: tiers of layers by their number.

    Raises OptionError for a layer that does not exist.
    """
    pinned = pinned or {}
    for i in pinned:
        if not 0 <= i < len(raw_bytes):
            raise OptionError(f"there is no layer {i} to pin: the model has {len(raw_bytes)}")
    vram_bytes -= sum(raw_bytes[i] for i, tier in pinned.items() if tier is Tier.VRAM)
    ram_bytes -= sum(compressed_bytes[i] for i, tier in pinned.items() if tier is Tier.RAM)
    tiers = []
    for i in range(len(raw_bytes)):
        tier = pinned.get(i)
        if tier is None and raw_bytes[i] <= vram_bytes:
            tier = Tier.VRAM
            vram_bytes -= raw_bytes[i]
        elif tier is None and compressed_bytes[i] <= ram_bytes:
            tier = Tier.RAM
            ram_bytes -= compressed_bytes[i]
        tiers.append(tier or Tier.NVME)
    return tiers
