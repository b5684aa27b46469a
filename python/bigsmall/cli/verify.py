"""Check a compressed file or directory.

Decodes every tensor and compares it with the md5 of the original; the output says OK only if all are equal."""

import argparse
from pathlib import Path
from typing import Any

from .. import files
from .arguments import add_json, add_progress, add_source, add_threads, natural
from .outcome import CommandError, Exit
from .printer import emit, n_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--fast", action="store_true", help="only structure, header and block directories; decodes nothing")
    depth.add_argument("--sample", metavar="F", type=float, help="the same, and the checksums of a share F of all blocks, chosen at random")
    parser.add_argument("--seed", metavar="N", type=natural, help="choose the blocks of an earlier sample; default: others each time")
    parser.add_argument("--source", metavar="ST", type=Path, help="compare with this safetensors file or model directory too")
    parser.add_argument("--base", metavar="BASE", type=Path, help="what patches were made on")
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    facts = files.verify(
        args.src,
        fast=args.fast,
        sample=args.sample,
        seed=args.seed,
        source=args.source,
        base=args.base,
        threads=args.threads,
        progress=args.progress,
    )
    facts |= {"path": str(args.src)}
    problems = [_line(problem) for problem in facts["problems"]]
    emit(facts, [f"FAIL: {line}" for line in problems] or [f"OK: {args.src}: {_checked(facts, args)}"], as_json=args.json)
    if not facts["ok"]:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise CommandError(problems[0] + more, Exit.BAD_DATA)
    return Exit.DONE


def _checked(facts: dict[str, Any], args: argparse.Namespace) -> str:
    equal = f", equal to {args.source}" if args.source is not None else ""
    if args.fast:
        return f"structure only{equal}"
    sample = facts.get("sample")
    if sample is None:
        return f"{facts['n_checked']:,} of {facts['n_tensors']:,} tensors, {n_bytes(facts['raw_bytes'])}{equal}"
    found = (
        f"damage to {100 * sample['found_share']:.2g}% of the blocks would have been found with {sample['confidence']:.0%} probability"
        if sample["found_share"] > 0
        else "none is damaged"
    )
    return f"{sample['n_sampled']:,} of {sample['n_blocks']:,} blocks (seed {sample['seed']}): {found}{equal}"


def _line(problem: dict[str, Any]) -> str:
    """Worded like the message of an error at the same place."""
    places = [problem["path"]]
    if problem["tensor"] is not None:
        places.append(f'tensor "{problem["tensor"]}"')
    if problem["block"] is not None:
        places.append(f"block {problem['block']}")
    where = ""
    if problem["bytes"] is not None:
        start, stop = problem["bytes"]
        where = f" (bytes {start:,} to {stop - 1:,})"
    return ": ".join([*places, problem["message"]]) + where
