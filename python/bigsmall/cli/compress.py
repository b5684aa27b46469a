"""Compress a safetensors file or a model directory.

A directory becomes a directory of .bs shards with its small files carried along, or one file if DST ends in .bs. With a base, tensors that
are smaller as differences to its tensors are stored so; what was compressed is then restored with that base."""

import argparse
import sys
import time
from pathlib import Path

from .. import files
from ..care import DEFAULT_PERCENT
from ..patches import closest_base
from ..summary import ratio_pct
from .arguments import add_format, add_json, add_mode, add_output, add_progress, add_source, add_threads, output
from .outcome import CommandError, Exit
from .printer import emit, n_bytes, percent, printable

MOST_CHANGED = 0.3
"""Part of the bytes that changed from which a delta saves little on most models."""


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "safetensors file, or model directory")
    add_output(parser, "SRC with the suffix .bs, or a directory SRC-bs")
    add_mode(parser)
    add_format(parser)
    parser.add_argument("--ecc", action="store_true", help="write a sidecar OUT.ecc too, from which `repair` mends damage")
    parser.add_argument(
        "--ecc-percent", metavar="P", type=float, help=f"size of the sidecar in percent of the output; default: {DEFAULT_PERCENT:g}"
    )
    base = parser.add_mutually_exclusive_group()
    base.add_argument("--delta-from", "--base", dest="base", metavar="BASE", type=Path, help="model that this one was made from")
    base.add_argument("--auto-delta", action="store_true", help="find that model by its weights")
    parser.add_argument(
        "--base-dir", metavar="DIR", type=Path, action="append", default=[], help="where --auto-delta looks; default: beside SRC"
    )
    parser.add_argument("--force-delta", action="store_true", help="say nothing if so much changed that a delta saves little")
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    out = output(args, files.compressed_path(args.src))
    started = time.perf_counter()
    if args.base_dir and not args.auto_delta:
        raise CommandError("--base-dir is for --auto-delta", Exit.USAGE)
    base = closest_base(args.src, args.base_dir) if args.auto_delta else args.base
    ecc_percent = args.ecc_percent if args.ecc_percent is not None else DEFAULT_PERCENT if args.ecc else None
    facts = files.compress(
        args.src,
        out,
        delta_from=base,
        mode=args.mode,
        format=args.format,
        ecc_percent=ecc_percent,
        force=args.force,
        threads=args.threads,
        progress=args.progress,
    )
    elapsed_s = time.perf_counter() - started
    source_bytes, compressed_bytes = facts["source_bytes"], facts["compressed_bytes"]
    ratio = ratio_pct(compressed_bytes, source_bytes)
    facts |= {
        "source": str(args.src),
        "output": str(out),
        "mode": args.mode,
        "format": args.format,
        "ratio_pct": ratio,
        "saved_bytes": source_bytes - compressed_bytes,
        "elapsed_s": elapsed_s,
    }
    lines = [
        f"compressed {args.src} -> {out}",
        f"  source:     {n_bytes(source_bytes)}",
        f"  compressed: {n_bytes(compressed_bytes)} ({percent(ratio)})",
        f"  saved:      {n_bytes(source_bytes - compressed_bytes)}",
        f"  elapsed:    {elapsed_s:.1f}s",
    ]
    if "ecc_bytes" in facts:
        lines.append(f"  ecc:        {n_bytes(facts['ecc_bytes'])} ({percent(ratio_pct(facts['ecc_bytes'], compressed_bytes))})")
    if base is not None:
        matched = facts["matched"]
        changed = matched["changed_bytes"] / max(matched["looked_bytes"], 1)
        facts |= {"base": str(base)}
        lines[1:1] = [f"  base:       {base}"]
        n_alone = matched["n_tensors"] - matched["n_differences"]
        lines.append(
            f"  delta:      {n_alone}/{matched['n_tensors']} matched tensors stored standalone; {changed:.2%} of their bytes changed"
        )
        if changed > MOST_CHANGED and not args.force_delta and sys.stderr is not None:
            hint = f"hint: {changed:.0%} of the bytes differ from {base}: a delta saves little (--force-delta silences this)"
            print(f"bigsmall: {printable(hint)}", file=sys.stderr)
    emit(facts, lines, as_json=args.json)
    return Exit.DONE
