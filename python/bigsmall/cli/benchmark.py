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
from . import kinds, rivals
from .arguments import add_json, add_mode, add_progress, add_source, add_threads
from .outcome import CommandError, Exit
from .printer import emit, mebibytes, n_bytes, percent, table


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "safetensors file, or model directory")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="keep the compressed output here")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--against", metavar="NAMES", default="", help=f"other compressors in the same run, separated by commas: {', '.join(rivals.RIVALS)}"
    )
    parser.add_argument("--no-detail", action="store_true", help="no table of the kinds of tensors")
    add_mode(parser)
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    shared = {"threads": args.threads, "progress": args.progress}
    modules = rivals.named(args.against)
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
        "against": {name: rivals.measure(name, module, args.src) for name, module in modules.items()},
    }
    detail = [] if args.no_detail else ["", *kinds.lines(rows)]
    emit(facts, [*_lines(facts), *_against(facts), *detail], as_json=args.json)
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


def _against(facts: dict[str, Any]) -> list[str]:
    """A table of all compressors, speeds in MB/s of the tensors' bytes; none without rivals."""
    if not facts["against"]:
        return []

    def speed(one: dict[str, Any], step: str) -> str:
        rate = one[step]["bytes_per_s"]
        return "-" if rate is None else f"{rate / 1e6:,.0f}"

    ours = (
        "bigsmall",
        f"{facts['mode']}, files, md5 of all",
        percent(facts["ratio_pct"]),
        speed(facts, "compress"),
        speed(facts, "decompress"),
    )
    rows = [
        (name, f"{one['setting']}, memory", percent(one["ratio_pct"]), speed(one, "compress"), speed(one, "decompress"))
        for name, one in facts["against"].items()
    ]
    return ["", *table(("", "setting", "ratio", "compress MB/s", "decompress MB/s"), [ours, *rows], left=2)]
