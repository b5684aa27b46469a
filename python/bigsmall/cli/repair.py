"""Mend a damaged file, or the shards of a directory, with the sidecars that `compress --ecc` has written.

Finds wrong, lost, missing and surplus bytes in file and sidecar alike. The damaged file stays as it is: the mended one is another
file, with a new sidecar. What cannot be mended is told before anything is written."""

import argparse
from typing import Any

from .. import care
from .arguments import add_json, add_output, add_progress, add_source, add_threads, output
from .outcome import Exit
from .printer import emit, n_bytes

SHOWN_PLACES = 10


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "file with a sidecar SRC.ecc beside it, or directory of such files")
    add_output(parser, "SRC.repaired, or a directory SRC-repaired for the files that were damaged")
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    out = output(args, care.repaired_path(args.src))
    repairs = care.repair(args.src, out, force=args.force, threads=args.threads, progress=args.progress)
    facts = {"source": str(args.src), "output": str(out), "n_damaged": sum(map(_is_damaged, repairs)), "files": repairs}
    emit(facts, [line for one in repairs for line in _lines(one)], as_json=args.json)
    return Exit.DONE


def _is_damaged(one: dict[str, Any]) -> bool:
    return bool(one["outputs"])


def _lines(one: dict[str, Any]) -> list[str]:
    if not _is_damaged(one):
        return [f"intact {one['path']}"]
    places = one["damaged"]
    lines = [f"repaired {one['path']} -> {one['outputs'][0]}"]
    if one["found_bytes"] != one["file_bytes"]:
        lines.append(f"  size:    {n_bytes(one['found_bytes'])}, now {n_bytes(one['file_bytes'])} as it was")
    lines += [f"  damaged: bytes {start:,} to {stop - 1:,}" for start, stop in places[:SHOWN_PLACES]]
    if len(places) > SHOWN_PLACES:
        lines.append(f"  damaged: {len(places) - SHOWN_PLACES:,} more places")
    lines.append(f"  sidecar: {'damaged, ' if one['sidecar_damaged'] else ''}{_rewritten(one)}")
    return lines


def _rewritten(one: dict[str, Any]) -> str:
    sidecars = [path for path in one["outputs"] if str(path).endswith(".ecc")]
    return f"written anew as {sidecars[0]}" if sidecars else "of the published package, not written anew"
