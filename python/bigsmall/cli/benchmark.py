"""Compress, restore and verify a checkpoint, and report sizes, speeds and memory.

Works in a temporary directory and leaves nothing behind, except the compressed output if -o names a place for it."""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import files
from ..stream.memory import peak_resident_set
from ..summary import ratio_pct, stat
from . import kinds
from .arguments import add_json, add_mode, add_progress, add_source, add_threads
from .outcome import CommandError, Exit
from .printer import emit, mebibytes, n_bytes, percent


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "safetensors file, or model directory")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="keep the compressed output here")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument("--no-detail", action="store_true", help="no table of the kinds of tensors")
    add_mode(parser)
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    shared = {"threads": args.threads, "progress": args.progress}
    with tempfile.TemporaryDirectory(prefix="bigsmall-") as scratch:
        compressed = args.output or files.compressed_path(Path(scratch, args.src.resolve().name))
        restored = Path(scratch, "restored")
        sizes, compress_s = _timed(lambda: files.compress(args.src, compressed, mode=args.mode, force=args.force, **shared))
        _, decompress_s = _timed(lambda: files.decompress(compressed, restored, **shared))
        checked, verify_s = _timed(lambda: files.verify(compressed, **shared))
        rows = stat(compressed)
    source_bytes, compressed_bytes = sizes["source_bytes"], sizes["compressed_bytes"]
    seconds = {"compress": compress_s, "decompress": decompress_s, "verify": verify_s}
    facts = {
        "source": str(args.src),
        "output": None if args.output is None else str(args.output),
        "mode": args.mode,
        "threads": args.threads,
        "source_bytes": source_bytes,
        "compressed_bytes": compressed_bytes,
        "ratio_pct": ratio_pct(compressed_bytes, source_bytes),
        **{step: {"elapsed_s": elapsed, "bytes_per_s": source_bytes / elapsed} for step, elapsed in seconds.items()},
        "peak_rss_bytes": peak_resident_set(),
        "ok": checked["ok"],
        "kinds": kinds.totals(rows),
    }
    emit(facts, [*_lines(facts), *([] if args.no_detail else ["", *kinds.lines(rows)])], as_json=args.json)
    if not checked["ok"]:
        raise CommandError(f"{args.src}: the compressed output does not verify", Exit.BAD_DATA)
    return Exit.DONE


def _timed(work: Callable[[], dict[str, Any]]) -> tuple[dict[str, Any], float]:
    started = time.perf_counter()
    result = work()
    return result, time.perf_counter() - started


def _lines(facts: dict[str, Any]) -> list[str]:
    def speed(step: str) -> str:
        return f"{facts[step]['elapsed_s']:.2f}s  {facts[step]['bytes_per_s'] / 1e6:,.0f} MB/s"

    peak = facts["peak_rss_bytes"]
    return [
        f"benchmark: {facts['source']}",
        f"  source:     {n_bytes(facts['source_bytes'])}",
        f"  compressed: {n_bytes(facts['compressed_bytes'])} ({percent(facts['ratio_pct'])})",
        f"  compress:   {speed('compress')}",
        f"  decompress: {speed('decompress')}",
        f"  verify:     {speed('verify')}  {'OK' if facts['ok'] else 'FAIL'}",
        f"  peak RSS:   {'unknown' if peak is None else mebibytes(peak)}",
    ]
