"""Tables that a page has from elsewhere, between `<!-- begin NAME -->` and `<!-- end NAME -->`.

- `arguments`, in the page of a command: how it is called, and what it takes, from the parser that the command itself uses;
- `commands`: all commands, and what each is for;
- any other name: the table of that name in docs/benchmarks.md, as far as `SHOWN` says.
"""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from bigsmall.cli.main import COMMANDS, parser

from . import BENCHMARKS

TABLE = re.compile(r"(?P<begin><!-- begin (?P<name>[a-z ]+) -->\n)(?P<rows>.*?)(?P<end><!-- end (?P=name) -->)", re.DOTALL)


class Shown(NamedTuple):
    """The columns of a table that are shown, and what all rows that are begin with; `""` is any."""

    columns: tuple[str, ...]
    row: str = ""


SHOWN = {
    "sizes of models": Shown(("input", "raw bytes", "published 4.0.0, %", "balanced, %", "storage, %")),
    "comparison": Shown(("", "what is asked", "published 4.0.0", "bigsmall")),
    "codec": Shown(("instruction set", "mode", "size, %", "encode, MB/s", "decode, MB/s"), "BF16 normal weights, 64 Mi elements"),
}


def filled(page: Path, table: re.Match[str]) -> str:
    """The table that belongs there, between its marks."""
    match table["name"]:
        case "arguments":
            text = arguments(page.stem)
        case "commands":
            text = commands()
        case name:
            text = measured(name)
    return f"{table['begin']}{text}{table['end']}"


def measured(name: str) -> str:
    """The table of that name in docs/benchmarks.md as far as it is shown; empty if it was not measured."""
    tables = {table["name"]: table["rows"] for table in TABLE.finditer(BENCHMARKS.read_text())}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in tables[name].splitlines() if line.startswith("|")]
    head, body = rows[:2], [row for row in rows[2:] if SHOWN[name].row in ("", row[0])]
    kept = [rows[0].index(column) for column in SHOWN[name].columns] if rows else []
    return _lines([row[at] for at in kept] for row in [*head, *body])


def commands() -> str:
    """Every command with a link to its page, and its first sentence."""
    summaries = ((name, (command.__doc__ or "").partition("\n\n")[0]) for name, command in COMMANDS.items())
    return _lines([["command", "what it does"], [":--", ":--"], *([f"[`{name}`]({name}.md)", summary] for name, summary in summaries)])


def arguments(command: str) -> str:
    """How the command, or each of the commands below it, is called, and all that it takes."""
    return "\n".join(_takes(leaf) for leaf in _leaves(_below(parser())[command]))


def _below(node: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return {
        name: below for action in node._actions if isinstance(action, argparse._SubParsersAction) for name, below in action.choices.items()
    }


def _leaves(node: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    return [leaf for below in _below(node).values() for leaf in _leaves(below)] or [node]


def _takes(command: argparse.ArgumentParser) -> str:
    actions = [action for action in command._actions if action.help is not argparse.SUPPRESS and action.dest != "help"]
    placed = [action for action in actions if not action.option_strings]
    options = [action for action in actions if action.option_strings]
    required = [f"{action.option_strings[-1]} {_value(action)}" for action in options if action.required]
    usage = " ".join([command.prog, "[options]", *required, *map(_value, placed)])
    rows = ([_names(action), (action.help or "").replace("|", r"\|")] for action in [*placed, *options])
    return f"    {usage}\n\n" + _lines([["argument", "meaning"], [":--", ":--"], *rows])


def _value(action: argparse.Action) -> str:
    """What is written for the argument's value, as argparse shows it."""
    if action.nargs == 0:
        return ""
    if action.metavar is not None:
        name = str(action.metavar)
    elif action.choices is not None:
        name = "{" + ",".join(map(str, action.choices)) + "}"
    else:
        name = action.dest.upper() if action.option_strings else action.dest
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


def _names(action: argparse.Action) -> str:
    names = (f"{option} {_value(action)}".strip() for option in action.option_strings or [""])
    return ", ".join(f"`{name}`" for name in names)


def _lines(rows: Iterable[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
