"""Coefficients as integers and back, for all components of a group at once. Tensors stay on their device.

Shapes: coefficients `[..., N, r]`; indices `[..., r, N]`, component after component, as they are coded.
"""

from dataclasses import dataclass

import torch

LARGEST_INDEX = 32767
MIN_SPAN = 1e-8
"""Span below which a component is one value: as in the scheme that min-max indices are compared with."""


@dataclass(frozen=True)
class MinMax:
    """Scale and offset of each component of a stretch, float32 `[..., r]`: a coefficient is offset + scale · index."""

    scale: torch.Tensor
    offset: torch.Tensor


def minmax_parameters(coefficients: torch.Tensor, widths: torch.Tensor) -> MinMax:
    """Those that spread the 2^b indices of each component over its span; 0 for components of no bits."""
    if not coefficients.shape[-2]:
        nothing = coefficients.sum(-2)
        return MinMax(nothing, nothing)
    offset, largest = coefficients.amin(-2), coefficients.amax(-2)
    steps = (2.0 ** widths.float() - 1).clamp_min(1)
    scale = (largest - offset).clamp_min(MIN_SPAN) / steps
    coded = widths > 0
    return MinMax(torch.where(coded, scale, 0), torch.where(coded, offset, 0))


def quantise_minmax(coefficients: torch.Tensor, widths: torch.Tensor, parameters: MinMax) -> torch.Tensor:
    """Indices 0 … 2^b - 1 as int32."""
    scale = torch.where(parameters.scale > 0, parameters.scale, 1)
    indices = ((coefficients - parameters.offset.unsqueeze(-2)) / scale.unsqueeze(-2)).round()
    largest = (2.0 ** widths.float() - 1) * (widths > 0)
    return torch.minimum(indices.clamp_min(0), largest).int().transpose(-1, -2).contiguous()


def dequantise_minmax(indices: torch.Tensor, parameters: MinMax) -> torch.Tensor:
    """Coefficients of indices, float32."""
    return indices.transpose(-1, -2).float() * parameters.scale.unsqueeze(-2) + parameters.offset.unsqueeze(-2)


def minmax_errors(coefficients: torch.Tensor, max_bits: int) -> torch.Tensor:
    """Mean squared error `[r, max_bits + 1]` of min-max indices of each width on coefficients `[N, r]`. Unlike variance · 4^-b it is what
    happens: one bit can be worse than none."""
    errors = [coefficients.square().mean(0)]
    for bits in range(1, max_bits + 1):
        widths = torch.full((coefficients.shape[1],), bits)
        parameters = minmax_parameters(coefficients, widths)
        restored = dequantise_minmax(quantise_minmax(coefficients, widths, parameters), parameters)
        errors.append((coefficients - restored).square().mean(0))
    return torch.stack(errors, dim=1)


def quantise_steps(coefficients: torch.Tensor, step: float, dead_zone: float) -> torch.Tensor:
    """Signed indices as int16: sign(y) · ⌊|y| / step + 1/2 - z⌋. A dead zone z > 0 makes zeros likelier, which at low rates is worth its
    error."""
    magnitudes = (coefficients.abs() * (1 / step) + (0.5 - dead_zone)).floor_().clamp_(0, LARGEST_INDEX)
    return magnitudes.copysign_(coefficients).short().transpose(-1, -2).contiguous()


def dequantise_steps(indices: torch.Tensor, step: float, centroids: torch.Tensor) -> torch.Tensor:
    """Coefficients of indices, float32. `centroids` `[r, 2A + 1]`: the values of -A … A; beyond, index · step."""
    radius = centroids.shape[1] // 2
    wide = indices.transpose(-1, -2)
    places = wide.int().clamp(-radius, radius) + (
        radius + torch.arange(centroids.shape[0], device=indices.device, dtype=torch.int32) * centroids.shape[1]
    )
    values = centroids.flatten().index_select(0, places.flatten()).reshape(places.shape)
    is_far = wide.abs() > radius
    return torch.where(is_far, wide.float() * step, values) if bool(is_far.any()) else values


def gaussian_levels(bits: int, iterations: int = 2000) -> torch.Tensor:
    """The 2^bits values that represent a standard normal variable with least squared error (Lloyd 1957, Max 1960), float32, ascending."""
    n = 2**bits
    levels = torch.special.ndtri((torch.arange(n, dtype=torch.float64) + 0.5) / n)
    for _ in range(iterations):
        edges = torch.cat(
            [
                torch.tensor([-torch.inf], dtype=torch.float64),
                (levels[1:] + levels[:-1]) / 2,
                torch.tensor([torch.inf], dtype=torch.float64),
            ]
        )
        density = torch.exp(-edges.square() / 2) / (2 * torch.pi) ** 0.5
        mass = torch.special.ndtr(edges).diff()
        moved = -density.diff() / mass
        if bool((moved - levels).abs().max() < 1e-9):
            break
        levels = moved
    return levels.float()
