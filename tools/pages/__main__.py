"""Runs what README.md and docs/commands/ show, and puts the output there.

    make pages                               # rewrite the pages
    make pages PAGE=docs/commands/info.md    # this page alone
    make pages PAGE=--check                  # rewrite nothing; fail if they show anything else than what happens

Every page is run on its own: see `console`. What is copied into it from elsewhere: see `tables`. What is not compared: see `comparison`.
"""

import argparse
import sys
from pathlib import Path

from . import PAGES
from .comparison import differences
from .rendering import rendered


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", metavar="PAGE", nargs="*", type=lambda text: Path(text).resolve(), help="default: all")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is not what happens")
    args = parser.parse_args()
    status = 0
    for page in args.pages or PAGES:
        shown = page.read_text()
        happens = rendered(page, shown)
        if not args.check:
            page.write_text(happens)
        elif found := differences(page.name, shown, happens):
            print(found, end="")
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
