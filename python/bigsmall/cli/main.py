"""The table of commands, and how any of them ends."""

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import benchmark, compress, decompress, demo, info, scan, stat, verify
from .outcome import EXPECTED, Exit, exit_of, line_of

COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "info": info,
    "stat": stat,
    "scan": scan,
    "verify": verify,
    "benchmark": benchmark,
    "demo": demo,
}

EPILOG = """\
exit status: 0 done, 1 failed, 2 wrong usage, 3 the data is not what it should be, 130 interrupted
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="bigsmall", description="Lossless compression of model weights.", epilog=EPILOG)
    top.add_argument("--version", action="version", version=f"bigsmall {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        summary, _, details = (command.__doc__ or "").partition("\n\n")
        command.configure(
            commands.add_parser(
                name,
                help=summary[0].lower() + summary[1:].removesuffix("."),
                description=f"{summary}\n\n{details}".strip(),
                epilog=EPILOG,
                formatter_class=argparse.RawDescriptionHelpFormatter,
                allow_abbrev=False,
            )
        )
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (default: the process's own) and return its exit status."""
    args = parser().parse_args(argv)
    try:
        return int(COMMANDS[args.command].run(args))
    except BrokenPipeError:
        # The reader of stdout is gone. What Python still has to write must not fail once more at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except KeyboardInterrupt:
        error_line("interrupted")
        return Exit.INTERRUPTED
    except EXPECTED as error:
        error_line(f"error: {line_of(error)}")
        return exit_of(error)


def error_line(text: str) -> None:
    print(f"bigsmall: {text}", file=sys.stderr)
