"""Which placement of which variant is taken, and how that is said."""

from dataclasses import dataclass
from typing import Any

from ..errors import OptionError, located
from .model import Model
from .placement import UNKNOWN_DISK_BYTES_PER_S, Placement, placements
from .profile import Profile
from .sizes import short_size

MIN_TOK_S = 1.0


class NoPlacementError(Exception):
    """The model fits nowhere here."""


@dataclass(frozen=True)
class Wishes:
    """`mode`: this fidelity and no other. `min_tok_s`: what counts as usable. `stream`: layer by layer whatever else would do."""

    mode: str | None = None
    min_tok_s: float = MIN_TOK_S
    stream: bool = False


@dataclass(frozen=True)
class Decision:
    """`pick` is taken; `planned` would be, without the wish for streaming. `considered` holds all that there are."""

    model: Model
    wishes: Wishes
    pick: Placement
    planned: Placement
    considered: tuple[Placement, ...]
    assumptions: tuple[str, ...]

    @property
    def is_usable(self) -> bool:
        return self.pick.tok_s >= self.wishes.min_tok_s

    @property
    def announcement(self) -> str | None:
        """What must be said first, since it is less than the file holds; None for the best that it holds, if that is exact."""
        fidelity, best = self.pick.variant.fidelity, self.model.best.fidelity
        if fidelity.is_exact:
            return None
        if fidelity is best:
            return f"NOTE: not bit-exact: {fidelity.name} mode ({fidelity.label}) is all that this file holds"
        return f"NOTE: not bit-exact: {fidelity.name} mode ({fidelity.label}) instead of {best.name} mode ({best.label}), {self._reason()}"

    def _reason(self) -> str:
        if self.wishes.mode is not None:
            return f"as --mode {self.wishes.mode} asks for"
        best = [placement for placement in self.considered if placement.variant is self.model.best]
        fitting = [placement for placement in best if placement.fits]
        if fitting:
            fastest = max(placement.tok_s for placement in fitting)
            return f"which would run at {fastest:.3g} tok/s here, below {self.wishes.min_tok_s:g}"
        least = min(best, key=lambda placement: placement.host_bytes)
        return f"which {least.why_not}"

    @property
    def sentence(self) -> str:
        """What is done, where, and how, wishes for streaming apart."""
        pick, fidelity = self.planned, self.planned.variant.fidelity
        parts = [f"Running {fidelity.name} mode ({fidelity.label}) {pick.where}"]
        if any(gpu_placement.obstacle and "busy" in gpu_placement.obstacle for gpu_placement in self.considered):
            parts[0] += " while the GPU is busy"
        if pick.is_streamed:
            parts.append(f"about {pick.tok_s:.3g} tok/s")
        if pick.tok_s < self.wishes.min_tok_s:
            parts.append(f"that is for capacity, below {self.wishes.min_tok_s:g} tok/s")
        others = [variant.fidelity for variant in self.model.variants if variant.fidelity is not fidelity]
        parts += [f"{other.name} mode ({other.label}) available with --mode {other.name}" for other in others]
        return "; ".join(parts) + "."

    @property
    def override(self) -> str | None:
        """What the wish for streaming changed; None if nothing."""
        if self.planned is self.pick:
            return None
        promised = f"~{short_size(self.pick.resident_bytes)} RAM resident promised"
        instead = f"layer-streaming executor on {self.pick.name} instead (planner's pick above: {self.planned.name})"
        return f"--stream forced: {instead}; {promised}"

    @property
    def lines(self) -> list[str]:
        """All that is to be said, what matters most first."""
        return [line for line in (self.announcement, self.sentence, self.override) if line is not None]

    def to_json(self) -> dict[str, Any]:
        fidelity = self.pick.variant.fidelity
        return {
            "path": self.model.path,
            "mode": fidelity.name,
            "mode_label": fidelity.label,
            "bit_exact": fidelity.is_exact,
            "placement": self.pick.name,
            "announcement": self.announcement,
            "sentence": self.sentence,
            "override": self.override,
            "min_tok_s": self.wishes.min_tok_s,
            "usable": self.is_usable,
            "est_tok_s": self.pick.tok_s,
            "full_speed": self.pick.is_full_speed,
            "load_s_est": self.pick.load_s,
            "resident_bytes": self.pick.resident_bytes,
            "cached_share": self.model.cached_share,
            "assumptions": list(self.assumptions),
            "pick": self.pick.to_json(),
            "alternatives": [other.to_json() for other in self.considered if other.fits and other is not self.pick],
            "considered": [placement.to_json() for placement in self.considered],
        }


def decide(profile: Profile, model: Model, wishes: Wishes, *, torch_has_cuda: bool = False) -> Decision:
    """The highest fidelity that is usable on that machine, where it is fastest; if none is, the highest that fits.

    Raises OptionError if the model has no such mode, NoPlacementError if nothing fits.
    """
    names = [variant.fidelity.name for variant in model.variants]
    if wishes.mode is not None and wishes.mode not in names:
        raise located(OptionError, f"has no {wishes.mode} mode, only {' and '.join(names)}", path=model.path)
    considered = tuple(
        placement for variant in model.variants for placement in placements(profile, model, variant, torch_has_cuda=torch_has_cuda)
    )
    allowed = [placement for placement in considered if wishes.mode in (None, placement.variant.fidelity.name)]
    planned = _best(model, wishes, allowed)
    if planned is None:
        raise NoPlacementError(_why_nowhere(model, allowed))
    pick = planned
    if wishes.stream and not planned.is_streamed:
        # Of the fidelity that was picked: a wish for how is none for what.
        streamed = [placement for placement in allowed if placement.is_streamed and placement.variant is planned.variant]
        forced = _best(model, wishes, streamed)
        if forced is None:
            raise NoPlacementError(_why_nowhere(model, streamed))
        pick = forced
    return Decision(model, wishes, pick, planned, considered, _assumptions(profile))


def _best(model: Model, wishes: Wishes, allowed: list[Placement]) -> Placement | None:
    for floor in (wishes.min_tok_s, 0.0):
        for variant in model.variants:
            usable = [placement for placement in allowed if placement.variant is variant and placement.fits and placement.tok_s >= floor]
            if usable:
                # The first of equals, in their order.
                return max(usable, key=lambda placement: placement.tok_s)
    return None


def _why_nowhere(model: Model, tried: list[Placement]) -> str:
    least = min((placement for placement in tried if placement.obstacle is None), key=lambda placement: placement.host_bytes)
    return f"{model.path}: does not fit on this machine: {least.variant.fidelity.name} mode, {least.name}, {least.why_not}"


def _assumptions(profile: Profile) -> tuple[str, ...]:
    assumed = []
    if profile.disk.bytes_per_s is None:
        assumed.append(
            f"the disk could not be measured ({profile.disk.method}) and is taken to give {UNKNOWN_DISK_BYTES_PER_S / 1e6:.0f} MB/s"
        )
    if profile.memory.available_bytes is None:
        assumed.append("the system does not tell how much memory is free: half of it is taken to be")
    return tuple(assumed)
