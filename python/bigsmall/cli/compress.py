"""Compress a safetensors file or a model directory.

A directory becomes a directory of .bs shards with its small files carried along, or one file if DST ends in .bs."""

import argparse
import time

from .. import files
from ..care import DEFAULT_PERCENT
from ..summary import ratio_pct
from .arguments import add_format, add_json, add_mode, add_output, add_progress, add_source, add_threads, output
from .outcome import Exit
from .printer import emit, n_bytes, percent


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "safetensors file, or model directory")
    add_output(parser, "SRC with the suffix .bs, or a directory SRC-bs")
    add_mode(parser)
    add_format(parser)
    parser.add_argument("--ecc", action="store_true", help="write a sidecar OUT.ecc too, from which `repair` mends damage")
    parser.add_argument(
        "--ecc-percent", metavar="P", type=float, help=f"size of the sidecar in percent of the output; default: {DEFAULT_PERCENT:g}"
    )
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    out = output(args, files.compressed_path(args.src))
    started = time.perf_counter()
    ecc_percent = args.ecc_percent if args.ecc_percent is not None else DEFAULT_PERCENT if args.ecc else None
    facts = files.compress(
        args.src,
        out,
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
    emit(facts, lines, as_json=args.json)
    return Exit.DONE
