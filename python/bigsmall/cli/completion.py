"""Print a script that completes this command in a shell.

bash: eval "$(bigsmall completion bash)" in ~/.bashrc
zsh:  eval "$(bigsmall completion zsh)" in ~/.zshrc, after compinit
fish: bigsmall completion fish > ~/.config/fish/completions/bigsmall.fish"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from .arguments import add_json
from .outcome import CommandError, Exit
from .printer import emit_text

SHELLS = ("bash", "zsh", "fish")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help="bash, zsh or fish")
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    emit_text({"shell": args.shell, "script": (text := script(args.shell))}, text, as_json=args.json)
    return Exit.DONE


def script(shell: str) -> str:
    """The script for one of the `SHELLS`, made from the commands' own parsers."""
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise CommandError("completion needs shtab: pip install 'bigsmall[completion]'") from error
    # The table of all commands holds this one too.
    from .main import parser

    top = parser()
    for action in _actions(top):
        if action.type is Path:
            is_directory = action.metavar == "DIR"
            action.complete = shtab.DIRECTORY if is_directory else shtab.FILE  # type: ignore[attr-defined]
    text: str = shtab.complete(top, shell)
    return text


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _actions(below)
