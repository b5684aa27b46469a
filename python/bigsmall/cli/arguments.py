"""Arguments that several commands share."""

import argparse
import sys
from pathlib import Path

from .outcome import CommandError, Exit

MODES = ("balanced", "storage", "inference")
FORMATS = ("current", "v1")


def add_source(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("src", metavar="SRC", type=Path, help=what)


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """DST, or `-o OUT`, and what to do where it exists."""
    parser.add_argument("dst", metavar="DST", nargs="?", type=Path, help=f"output; default: {default}")
    parser.add_argument("-o", "--output", metavar="OUT", type=Path, help="the same as DST")
    add_force(parser)


def add_force(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force", action="store_true", help="replace an existing output")


def output(args: argparse.Namespace, default: Path) -> Path:
    """The output that `add_output` was given, or the default."""
    if args.dst is not None and args.output is not None:
        raise CommandError("DST and --output are two names for one thing: give one of them", Exit.USAGE)
    chosen: Path | None = args.dst if args.dst is not None else args.output
    return default if chosen is None else chosen


def add_mode(parser: argparse.ArgumentParser) -> None:
    """`--mode M`, or the mode's own flag."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--mode", choices=MODES, default="balanced", help="what to aim for; default: balanced")
    group.add_argument("--balanced", dest="mode", action="store_const", const="balanced", help="small and fast")
    group.add_argument("--storage", dest="mode", action="store_const", const="storage", help="smallest; may decode slower")
    group.add_argument("--inference", dest="mode", action="store_const", const="inference", help="fastest to decode")


def add_format(parser: argparse.ArgumentParser) -> None:
    what = "whose files to write; v1 is what the published Python package reads, from its release 1.0.0 on; default: current"
    parser.add_argument("--format", choices=FORMATS, default="current", help=what)


def add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--threads", metavar="N", type=_count, default=0, help="threads to use; default: 0, one per core")


def add_progress(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-progress", dest="progress", action="store_false", help="no progress bar on stderr")


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def natural(text: str) -> int:
    """A count."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return min(int(text), sys.maxsize)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads")
    # What no count can hold is more threads than there can be, which the core tells.
    return min(int(text), sys.maxsize)
