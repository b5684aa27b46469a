"""Restore the safetensors file or model directory that was compressed, byte for byte.

Every tensor is checked against the md5 of the original before the output gets its name."""

import argparse
import time
from pathlib import Path

from .. import files
from .arguments import add_json, add_output, add_progress, add_source, add_threads, output
from .outcome import Exit
from .printer import emit, n_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    add_output(parser, "SRC with the suffix .safetensors, or a directory SRC-restored")
    parser.add_argument("--base", metavar="BASE", type=Path, help="model that a patch was made from")
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    out = output(args, files.restored_path(args.src))
    started = time.perf_counter()
    facts = files.decompress(args.src, out, base=args.base, force=args.force, threads=args.threads, progress=args.progress)
    elapsed_s = time.perf_counter() - started
    facts |= {"source": str(args.src), "output": str(out), "elapsed_s": elapsed_s}
    lines = [
        f"decompressed {args.src} -> {out}  ({elapsed_s:.1f}s)",
        f"  compressed: {n_bytes(facts['compressed_bytes'])}",
        f"  restored:   {n_bytes(facts['source_bytes'])} ({facts['n_tensors']:,} tensors, md5 of each checked)",
    ]
    emit(facts, lines, as_json=args.json)
    return Exit.DONE
