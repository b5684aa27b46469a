"""What plan and run are asked for, and what is decided then."""

import argparse
import math
from pathlib import Path

from .. import autopilot
from ..autopilot import Decision, NoPlacementError, Profile, Wishes, probing
from ..autopilot.decision import MIN_TOK_S
from ..autopilot.gpus import torch_has_cuda
from ..autopilot.model import FIDELITIES
from ..autopilot.profile import read
from .outcome import CommandError, Exit
from .printer import note


def add_wishes(parser: argparse.ArgumentParser) -> None:
    modes = [fidelity.name for fidelity in FIDELITIES]
    parser.add_argument("--mode", choices=modes, help="this fidelity; default: the highest that runs at usable speed")
    parser.add_argument("--min-tok-s", metavar="N", type=_rate, default=MIN_TOK_S, help="usable speed in tokens per second; default: 1.0")
    parser.add_argument("--profile", metavar="FILE", type=Path, help="where profile saved it; default: ~/.bigsmall/profile.json")


def decision_for(args: argparse.Namespace, *, stream: bool = False, must_run_here: bool = False) -> Decision:
    """What to do with `args.src`, on the machine of `args.profile`."""
    model = autopilot.read_model(args.src)
    profile, is_here = _profile(args.profile)
    if must_run_here and not is_here:
        raise CommandError(f"{args.profile}: is of another machine, and plan is what works for those")
    wishes = Wishes(args.mode, args.min_tok_s, stream)
    try:
        return autopilot.decide(profile, model, wishes, torch_has_cuda=torch_has_cuda() if is_here else True)
    except NoPlacementError as error:
        raise CommandError(str(error)) from error


def _profile(path: Path | None) -> tuple[Profile, bool]:
    """The machine's profile, and whether the machine is this one."""
    if path is None:
        profile, notes = autopilot.profile_of_this_machine()
        for line in notes:
            note(line)
        return profile, True
    saved = read(path)
    if saved is None:
        raise CommandError(f"{path}: is of another release of bigsmall: measure again with profile --force --path", Exit.BAD_DATA)
    other = probing.same_machine(saved)
    if other is None:
        return probing.now(saved), True
    note(f"{path} is of another machine ({other}), and so is this plan")
    return saved, False


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 <= rate < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of tokens per second")
    return rate
