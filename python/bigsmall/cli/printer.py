"""What the commands write: facts to stdout, as text or as one JSON object, and everything else to stderr."""

import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any


def emit(facts: dict[str, Any], lines: Iterable[str], *, as_json: bool) -> None:
    """Print the facts, or the lines that tell them to people."""
    emit_text(facts, "\n".join(map(printable, lines)), as_json=as_json)


def emit_text(facts: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print the facts, or a text of this package's own, as it is."""
    if sys.stdout is None:
        # Closed by the shell: nobody wants to know.
        return
    text = json.dumps(facts, indent=2, allow_nan=False) if as_json else text
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding))
        # A closed pipe or full disk is noticed here, not when the interpreter shuts down.
        sys.stdout.flush()
    except OSError as error:
        error.filename = "stdout"
        raise


def note(text: str) -> None:
    """Print a line to stderr."""
    # Given None as its file, print would write to stdout.
    if sys.stderr is not None:
        print(f"bigsmall: {printable(text)}", file=sys.stderr)


def printable(line: str) -> str:
    """The line with everything escaped that a terminal might obey: names of files and tensors come from strangers."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def n_bytes(count: int) -> str:
    """`1,234 bytes`"""
    return f"{count:,} bytes"


def mebibytes(count: int) -> str:
    """`394.80 MiB`"""
    return f"{count / (1 << 20):,.2f} MiB"


def percent(value: float | None) -> str:
    """`65.55%`; a dash where nothing can be compared."""
    return "-" if value is None else f"{value:.2f}%"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> list[str]:
    """Lines in columns as wide as needed: the first `left` columns to the left, the others, which hold numbers, to the right."""
    grid = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]

    def line(row: Sequence[str]) -> str:
        cells = [cell.ljust(width) for cell, width in zip(row[:left], widths[:left], strict=True)]
        cells += [cell.rjust(width) for cell, width in zip(row[left:], widths[left:], strict=True)]
        return "  ".join(cells).rstrip()

    return [line(row) for row in grid]
