"""Load or stream a compressed model as plan would have it, and report.

Says first what is done. The checksum of every block is compared, and the memory that was promised with the most that was taken. No
tokens are generated."""

import argparse
from typing import Any

from ..autopilot import Decision
from ..autopilot.running import Outcome, carry_out
from ..autopilot.sizes import short_size
from ..progress import reporting
from .arguments import add_json, add_progress, add_source
from .outcome import CommandError, Exit
from .printer import emit, note
from .wishes import add_wishes, decision_for


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    add_wishes(parser)
    parser.add_argument("--stream", action="store_true", help="layer by layer, even if the whole model fits")
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    decision = decision_for(args, stream=args.stream, must_run_here=True)
    if args.json:
        # Said before anything is done, and stdout is for the one object.
        for line in decision.lines:
            note(line)
    else:
        emit({}, decision.lines, as_json=False)
    with reporting(args.progress or None, "run") as report:
        outcome = carry_out(decision, progress=report)
    facts = _facts(decision, outcome)
    emit({"decision": decision.to_json(), **facts}, _lines(decision, outcome), as_json=args.json)
    if facts["promise_kept"] is False:
        promised, peak = short_size(facts["promised_bytes"]), short_size(facts["peak_rss_bytes"])
        raise CommandError(f"{args.src}: {promised} of memory were promised, and {peak} taken")
    return Exit.DONE


def _facts(decision: Decision, outcome: Outcome) -> dict[str, Any]:
    promised = decision.pick.resident_bytes
    return {
        "mode": decision.pick.variant.fidelity.name,
        "bit_exact": decision.pick.variant.fidelity.is_exact,
        "placement": decision.pick.name,
        "n_tensors": outcome.n_tensors,
        "n_layers": outcome.n_layers,
        "raw_bytes": outcome.n_bytes,
        "elapsed_s": outcome.elapsed_s,
        "load_s_est": decision.pick.load_s,
        "promised_bytes": promised,
        "peak_rss_bytes": outcome.peak_bytes,
        "promise_kept": None if outcome.peak_bytes is None else outcome.peak_bytes <= promised,
    }


def _lines(decision: Decision, outcome: Outcome) -> list[str]:
    pick, variant = decision.pick, decision.pick.variant
    peak = "unknown" if outcome.peak_bytes is None else short_size(outcome.peak_bytes)
    memory = f"process peak {peak} (planner promised ~{short_size(pick.resident_bytes)})"
    if pick.is_streamed:
        read, decoded = short_size(variant.file_bytes), short_size(outcome.n_bytes)
        speed = f"{outcome.n_bytes / outcome.elapsed_s / 1e6:,.0f} MB/s raw, ~{1 / outcome.elapsed_s:.3g} passes/s"
        held = f"non-layer {short_size(variant.non_layer_bytes)} + peak layer slot {short_size(variant.largest_layer_bytes)}"
        return [
            f"streamed {outcome.n_layers} layers [mode={variant.fidelity.name}]: {read} read, {decoded} decoded "
            f"in {outcome.elapsed_s:.1f}s ({speed})",
            f"resident: {held}; {memory}",
        ]
    place = "host RAM" if pick.gpu is None else pick.gpu.name
    exact = " (bit-exact: the checksum of every block was compared)" if variant.fidelity.is_exact else f" ({variant.fidelity.label})"
    return [
        f"loaded {outcome.n_tensors} tensors into {place} in {outcome.elapsed_s:.1f}s [mode={variant.fidelity.name}]{exact}",
        f"resident: weights {short_size(outcome.n_bytes)}; {memory}",
    ]
