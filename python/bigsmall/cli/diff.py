"""Compare two models: tensors that are added, removed or changed, and by how much.

Each is a safetensors or .bs file, or a directory of either. The exit status is 1 if they differ, as that of diff(1) is."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import patches
from ..summary import ratio_pct
from .arguments import add_json, add_mode, add_progress, add_threads
from .outcome import Exit
from .printer import emit, n_bytes, percent, table

N_LISTED = 50


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", type=Path, help="model")
    parser.add_argument("b", metavar="B", type=Path, help="model to compare it with")
    parser.add_argument("--all", action="store_true", help=f"list all tensors, not only {N_LISTED} of each kind")
    parser.add_argument("--patch", metavar="OUT", type=Path, help="also write a patch from A to B; exit status 0 if it was written")
    parser.add_argument("--force", action="store_true", help="replace an existing patch")
    add_mode(parser)
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    facts = patches.diff(args.a, args.b, threads=args.threads, progress=args.progress)
    facts |= {"a": str(args.a), "b": str(args.b)}
    lines = _lines(facts, None if args.all else N_LISTED)
    if args.patch is not None:
        made = patches.compress_delta(
            args.b, args.a, args.patch, mode=args.mode, force=args.force, threads=args.threads, progress=args.progress
        )
        facts["patch"] = {"output": str(args.patch), **made}
        share = percent(ratio_pct(made["compressed_bytes"], made["source_bytes"]))
        lines.append(f"patch: {args.patch}  ({n_bytes(made['compressed_bytes'])}, {share} of {args.b})")
    emit(facts, lines, as_json=args.json)
    return Exit.DONE if facts["is_same"] or args.patch is not None else Exit.FAILED


def _lines(facts: dict[str, Any], most: int | None) -> list[str]:
    added, removed, changed = facts["added"], facts["removed"], facts["changed"]
    n_same = facts["n_common"] - len(changed)
    lines = [
        f"diff: {facts['a']} -> {facts['b']}",
        f"  same: {n_same:,}  removed: {len(removed):,}  added: {len(added):,}  changed: {len(changed):,}",
    ]
    for sign, tensors in (("-", removed), ("+", added)):
        lines += [f"  {sign} {_described(tensor)}" for tensor in tensors[:most]]
        lines += _more(tensors, most)
    rows = []
    for tensor in changed[:most]:
        if tensor["distances"] is None:
            rows.append((f"~ {tensor['name']}", f"was {_kind(tensor['was'])}", f"is {_kind(tensor)}", ""))
        else:
            share = percent(100 * tensor["n_differing"] / max(tensor["n_words"], 1))
            rows.append((f"~ {tensor['name']}", f"{tensor['n_differing']:,}", share, _median(tensor["distances"])))
    if rows:
        lines += [f"  {line}" for line in table(("tensor", "words that differ", "share", "median distance"), rows)]
    lines += _more(changed, most)
    histogram = [sum(counts) for counts in zip(*(tensor["distances"] for tensor in changed if tensor["distances"]), strict=True)]
    if histogram:
        total = sum(histogram)
        lines.append("  distances of words in changed tensors:")
        classes = [(_range(at), f"{n:,}", percent(100 * n / total)) for at, n in enumerate(histogram) if n]
        lines += [f"    {line}" for line in table(("ulps", "words", "share"), classes, left=0)]
    lines += [f"  = {new} has the bytes of {old}" for new, old in facts["identical"][:most]]
    lines += _more(facts["identical"], most)
    if facts["is_same"]:
        lines.append("  identical")
    return lines


def _more(listed: Sequence[object], most: int | None) -> list[str]:
    return [] if most is None or len(listed) <= most else [f"  and {len(listed) - most:,} more (--all lists them)"]


def _kind(tensor: dict[str, Any]) -> str:
    return f"{tensor['dtype']} {tensor['shape']}"


def _described(tensor: dict[str, Any]) -> str:
    return f"{tensor['name']}  {_kind(tensor)}"


def _range(at: int) -> str:
    """The distances that are counted together."""
    low, high = 1 << at >> 1, (1 << at) - 1
    return str(low) if low >= high else f"{low:,} to {high:,}"


def _median(distances: list[int]) -> str:
    """Of the words that differ."""
    half, seen = sum(distances[1:]) / 2, 0
    for at, n in enumerate(distances[1:], 1):
        seen += n
        if n and seen >= half:
            return _range(at)
    return "0"
