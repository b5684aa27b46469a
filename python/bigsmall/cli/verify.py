"""Check a compressed file or directory.

Decodes every tensor and compares it with the md5 of the original; the output says OK only if all are equal."""

import argparse
from typing import Any

from .. import files
from .arguments import add_json, add_progress, add_source, add_threads
from .outcome import CommandError, Exit
from .printer import emit, n_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    parser.add_argument("--fast", action="store_true", help="only structure, header and block directories; decodes nothing")
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    facts = files.verify(args.src, fast=args.fast, threads=args.threads, progress=args.progress)
    facts |= {"path": str(args.src)}
    problems = [_line(problem) for problem in facts["problems"]]
    checked = "structure only" if args.fast else f"{facts['n_checked']:,} of {facts['n_tensors']:,} tensors, {n_bytes(facts['raw_bytes'])}"
    emit(facts, [f"FAIL: {line}" for line in problems] or [f"OK: {args.src}: {checked}"], as_json=args.json)
    if not facts["ok"]:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CommandError(problems[0] + more, Exit.BAD_DATA)
    return Exit.DONE


def _line(problem: dict[str, Any]) -> str:
    """Worded like the message of an error at the same place."""
    places = [problem["path"]]
    if problem["tensor"] is not None:
        places.append(f'tensor "{problem["tensor"]}"')
    if problem["block"] is not None:
        places.append(f"block {problem['block']}")
    return ": ".join([*places, problem["message"]])
