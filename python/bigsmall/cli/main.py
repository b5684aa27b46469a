"""The table of commands, and how any of them ends."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from .. import __version__
from . import (
    apply,
    benchmark,
    chain,
    completion,
    compress,
    decompress,
    demo,
    diff,
    info,
    kv,
    migrate,
    pipeline,
    plan,
    profile,
    repair,
    run,
    scan,
    serve_stream,
    stat,
    status,
    verify,
    xray,
)
from .outcome import EXPECTED, Exit, exit_of, line_of
from .printer import note

COMMANDS = {
    "compress": compress,
    "decompress": decompress,
    "apply": apply,
    "diff": diff,
    "chain": chain,
    "info": info,
    "stat": stat,
    "scan": scan,
    "xray": xray,
    "verify": verify,
    "migrate": migrate,
    "repair": repair,
    "benchmark": benchmark,
    "demo": demo,
    "serve-stream": serve_stream,
    "profile": profile,
    "plan": plan,
    "run": run,
    "status": status,
    "pipeline": pipeline,
    "kv": kv,
    "completion": completion,
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
    clean_up_when_told_to_end()
    try:
        return int(COMMANDS[args.command].run(args))
    except BrokenPipeError:
        # The reader of stdout is gone. What Python still has to write must not fail once more at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.FAILED
    except KeyboardInterrupt:
        note("interrupted")
        return Exit.INTERRUPTED
    except EXPECTED as error:
        note(f"error: {line_of(error)}")
        return exit_of(error)


def clean_up_when_told_to_end() -> None:
    """Make the signals that end a process interrupt it as Ctrl-C does, so that its temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        # Others may not ask for signals.
        return
    for name in {"SIGTERM", "SIGHUP"} & {known.name for known in signal.Signals}:
        # Nobody is overruled who ignores them, as nohup does, or handles them.
        if signal.getsignal(signal.Signals[name]) is signal.SIG_DFL:
            signal.signal(signal.Signals[name], signal.default_int_handler)
