"""Look at the values of a checkpoint, beside random weights of the same mean and deviation.

Entropies of sign, exponent and mantissa of every float tensor, how far they are from those of random weights, and what is remarkable:
another precision in the past, prevailing signs, predictable mantissas, weights that look untrained. Works on safetensors and .bs."""

import argparse
import json
from pathlib import Path
from typing import Any

from ..layers import kind_of
from ..xray import CODER_BAND, xray
from .arguments import add_force, add_progress, add_source, add_threads, natural
from .outcome import CommandError, Exit
from .printer import emit, note, percent, table

SHOWN_TENSORS = 40
STDOUT = "-"


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "safetensors or .bs file, or model directory")
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page with plots; needs bigsmall[report]")
    parser.add_argument("--json", metavar="FILE", nargs="?", const=STDOUT, help="write one JSON object, to stdout unless there is a FILE")
    parser.add_argument("--json-only", action="store_true", help="print JSON and no table")
    parser.add_argument("--no-svd", action="store_true", help="no rank1_frac, which takes longer than all else")
    parser.add_argument("--min-elements", metavar="N", type=natural, default=4096, help="leave out smaller tensors; default: 4096")
    parser.add_argument("--verbose", action="store_true", help="list every tensor, not only those with flags")
    add_force(parser)
    add_threads(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    if args.json_only and args.json is None:
        args.json = STDOUT
    if args.html is not None:
        # What is missing is told before the long work.
        from .. import report

        try:
            report.check_available()
        except ModuleNotFoundError as error:
            raise CommandError(str(error)) from error
    facts = xray(args.src, svd=not args.no_svd, min_elements=args.min_elements, threads=args.threads, progress=args.progress)
    if args.html is not None:
        write_text(args.html, report.page(facts), force=args.force)
    if args.json not in (None, STDOUT):
        write_text(Path(args.json), json.dumps(facts, indent=2, allow_nan=False) + "\n", force=args.force)
    if args.json == STDOUT or not args.json_only:
        emit(facts, _lines(facts, every=args.verbose), as_json=args.json == STDOUT)
    if facts["looks_untrained"]:
        note(f"warning: {args.src}: LOOKS UNTRAINED: {_n_random(facts)} have the exponents of random weights; were they loaded at all?")
    return Exit.DONE


def write_text(path: Path, text: str, *, force: bool) -> None:
    """Write a new file, or with `force` in the place of another."""
    with path.open("w" if force else "x", encoding="utf-8") as file:
        file.write(text)


def _n_random(facts: dict[str, Any]) -> str:
    return f"{facts['n_random']:,} of {facts['n_matrices']:,} matrices"


def _lines(facts: dict[str, Any], *, every: bool) -> list[str]:
    lines = [
        f"xray: {facts['path']}",
        f"  tensors analyzed: {facts['n_analyzed']:,} (of {facts['n_tensors']:,} seen; min {facts['min_elements']} elements)",
    ]
    if facts["tensors"]:
        lines += [
            f"  median H_exp  {facts['median_h_exp']:.4f} bits   median H_mant {facts['median_h_mant']:.4f} bits   "
            f"median ratio {percent(facts['median_ratio_pct'])}",
            f"  median mantissa coder-KL vs matched normal: {facts['median_mant_divergence']:.4f} bits/symbol (coder band {CODER_BAND})",
        ]
    counts = ", ".join(f"{flag}={count}" for flag, count in facts["flag_counts"].items() if count)
    lines.append(f"  flags: {counts or 'none'}")
    lines += [f"    {flag}: {facts['flags'][flag]}" for flag, count in facts["flag_counts"].items() if count]
    if facts["looks_untrained"]:
        lines.append(f"  LOOKS UNTRAINED: {_n_random(facts)} have the exponents of random weights")
    shown = [tensor for tensor in facts["tensors"] if every or tensor["flags"]]
    if shown:
        rows = [_cells(tensor) for tensor in shown[: None if every else SHOWN_TENSORS]]
        header = ("name", "kind", "dtype", "flags", "H_sign", "H_exp", "dH_exp", "KL_exp", "H_mant", "dH_mant", "KL_mant", "ratio", "rank1")
        lines += ["", *table(header, rows, left=4)]
        if len(rows) < len(shown):
            lines.append(f"{len(shown) - len(rows):,} more tensors with flags (--verbose lists all)")
    return lines


def _cells(tensor: dict[str, Any]) -> tuple[str, ...]:
    exp, mant = tensor["exp"], tensor["mant"]
    return (
        tensor["name"],
        kind_of(tensor["name"]),
        tensor["dtype"],
        " ".join(tensor["flags"]) or "-",
        f"{tensor['sign']['entropy']:.4f}",
        f"{exp['entropy']:.4f}",
        f"{exp['entropy'] - exp['control_entropy']:+.4f}",
        f"{exp['divergence']:.4f}",
        f"{mant['entropy']:.4f}",
        f"{mant['entropy'] - mant['control_entropy']:+.4f}",
        f"{mant['divergence']:.4f}",
        percent(tensor["ratio_pct"]),
        "-" if tensor["rank1_frac"] is None else f"{tensor['rank1_frac']:.4f}",
    )
