"""Bits for components."""

from collections.abc import Sequence

import torch

from .. import _core


def allocate_bits(
    eigenvalues: torch.Tensor | Sequence[float],
    budget: int,
    max_bits: int = 16,
    *,
    method: str = "greedy",
    distortion: torch.Tensor | None = None,
    costs: Sequence[int] | None = None,
) -> torch.Tensor:
    """Widths `[r]` (uint8) of components with these variances `[r]`, so that the sum of their errors is least and that of their costs at
    most `budget`.

    The error of b bits is λ · 4^-b, or what `distortion` `[r, max_bits + 1]` says. A width costs its bits, or what `costs` says for 0 …
    max_bits. `method`: "greedy" takes the bits that gain most, one after the
    other, and is exact where no bit of a component gains more than the one before it, as with λ · 4^-b; "hull" does so along the lower
    convex hulls of measured errors; "dp" is
    exact for any. Ties go to the lower width, then to the earlier component. OptionError for variances that are not finite, a negative
    budget, or what the method does not do.
    """
    if budget < 0:
        from ..errors import OptionError

        raise OptionError(f"a budget of {budget} bits is negative")
    measured = distortion is not None
    errors = distortion if distortion is not None else torch.as_tensor(eigenvalues)
    numbers = errors.detach().cpu().double().contiguous().numpy()
    widths = _core.kv_allocate(numbers, int(budget), max_bits=max_bits, method=method, measured=measured, costs=costs)
    return torch.tensor(list(widths), dtype=torch.uint8)
