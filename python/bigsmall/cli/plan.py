"""Say how a compressed model would best be run on this machine.

One sentence: the highest fidelity that runs at usable speed, where, and how. Anything below bit-exact is announced before it. Nothing is
run. The machine is measured first if that has not been done, as by profile."""

import argparse

from .arguments import add_json, add_source
from .outcome import Exit
from .printer import emit
from .wishes import add_wishes, decision_for


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    add_wishes(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    decision = decision_for(args)
    emit(decision.to_json(), decision.lines, as_json=args.json)
    return Exit.DONE
