"""List the tensors of a compressed file or directory."""

import argparse
from typing import Any

from .. import summary
from .arguments import add_json, add_source
from .outcome import CommandError, Exit
from .printer import emit, percent, table

SORT_KEYS = {
    "ratio": lambda row: -1.0 if row["ratio_pct"] is None else row["ratio_pct"],
    "size": lambda row: -row["raw_bytes"],
    "name": lambda row: row["name"],
}


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    parser.add_argument("--sort", choices=sorted(SORT_KEYS), help="ratio (best first), size (largest first) or name; default: file order")
    parser.add_argument("--reverse", action="store_true", help="in the opposite order")
    parser.add_argument("--tensor", metavar="TEXT", default="", help="only tensors whose name contains TEXT")
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    rows = [row for row in summary.stat(args.src) if args.tensor in row["name"]]
    if args.tensor and not rows:
        raise CommandError(f"{args.src}: no tensor's name contains {args.tensor!r}")
    if args.sort is not None:
        rows.sort(key=SORT_KEYS[args.sort])
    if args.reverse:
        rows.reverse()
    total = summary.total(rows)
    emit({"path": str(args.src), **total, "tensors": rows}, _lines(rows, total), as_json=args.json)
    return Exit.DONE


def _lines(rows: list[dict[str, Any]], total: dict[str, Any]) -> list[str]:
    header = ("name", "shape", "dtype", "codec", "raw bytes", "compressed", "ratio")
    cells = [(row["name"], "x".join(map(str, row["shape"])) or "-", row["dtype"], row["codec"], *_sizes(row)) for row in rows]
    return table(header, [*cells, (f"{len(rows):,} tensors", "", "", "", *_sizes(total))], left=4)


def _sizes(facts: dict[str, Any]) -> tuple[str, str, str]:
    return f"{facts['raw_bytes']:,}", f"{facts['compressed_bytes']:,}", percent(facts["ratio_pct"])
