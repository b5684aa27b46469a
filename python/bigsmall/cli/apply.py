"""Write the fine-tune that a patch makes of its base, byte for byte.

The base is checked before anything is written: one that the patch was not made from is refused."""

import argparse
import time
from pathlib import Path

from .. import patches
from .arguments import add_json, add_progress, add_threads
from .outcome import Exit
from .printer import emit, n_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", type=Path, help="model that the patch was made from: safetensors or .bs, file or directory")
    parser.add_argument("patch", metavar="PATCH", type=Path, help=".bs file, or directory, made with --delta-from")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="the fine-tune")
    parser.add_argument("--force", action="store_true", help="replace an existing output")
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    started = time.perf_counter()
    facts = patches.apply(args.base, args.patch, args.output, force=args.force, threads=args.threads, progress=args.progress)
    elapsed_s = time.perf_counter() - started
    facts |= {"base": str(args.base), "patch": str(args.patch), "output": str(args.output), "elapsed_s": elapsed_s}
    lines = [
        f"apply: {args.patch} (+base {args.base}) -> {args.output}  ({elapsed_s:.1f}s)",
        f"  patch:    {n_bytes(facts['compressed_bytes'])}",
        f"  restored: {n_bytes(facts['source_bytes'])} ({facts['n_tensors']:,} tensors, md5 of each checked)",
    ]
    emit(facts, lines, as_json=args.json)
    return Exit.DONE
