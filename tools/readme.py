"""Runs what README.md shows, and puts the output there.

    python tools/readme.py           # rewrite README.md
    python tools/readme.py --check   # fail if it shows anything else than what happens

Blocks of `python` are programs; a block of `text` right after one is what it prints. In blocks of `console`, lines that begin with `$ ` are
commands and the others what they print. All run one after the other in one new directory, which holds `model.safetensors`, the demo model.
Times, rates and sizes of memory are shown as they were, and not compared. Tables between `<!-- begin NAME -->` and `<!-- end NAME -->`
are those of that name in docs/benchmarks.md, as far as `SHOWN` says.
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
README, BENCHMARKS = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
BLOCK = re.compile(r"^```(python|text|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"(<!-- begin ([a-z ]+) -->\n)(.*?)(<!-- end \2 -->)", re.DOTALL)
MEASURED = re.compile(r" *\d[\d,.]*(s\b| MB/s| MiB(?=\n|$))")


class Shown(NamedTuple):
    """The columns of a table that are shown, and what all rows that are begin with; `""` is any."""

    columns: tuple[str, ...]
    row: str = ""


SHOWN = {
    "sizes of models": Shown(("input", "raw bytes", "published 4.0.0, %", "balanced, %", "storage, %")),
    "codec": Shown(("instruction set", "mode", "size, %", "encode, MB/s", "decode, MB/s"), "BF16 normal weights, 64 Mi elements"),
}


def main() -> int:
    shown = README.read_text()
    happens = rendered(shown)
    if sys.argv[1:] != ["--check"]:
        README.write_text(happens)
        return 0
    found = differences(shown, happens)
    print(found, end="")
    return 1 if found else 0


def rendered(page: str) -> str:
    """The page with the output of its programs and commands as it is now."""
    with tempfile.TemporaryDirectory() as directory:
        with as_file(files("bigsmall") / "data" / "demo.safetensors") as model:
            shutil.copy(model, Path(directory, "model.safetensors"))
        printed = ""

        def render(block: re.Match[str]) -> str:
            nonlocal printed
            language, body = block.groups()
            if language == "text":
                body = printed
            elif language == "python":
                printed = run([sys.executable, "-W", "error", "-c", body], directory)
            else:
                commands = re.findall(r"^\$ (.*)\n", body, re.MULTILINE)
                body = "".join(f"$ {command}\n{run(['bash', '-c', command], directory)}" for command in commands)
            return f"```{language}\n{body}```"

        return BLOCK.sub(render, TABLE.sub(copy_of_table, page))


def copy_of_table(shown: re.Match[str]) -> str:
    """The table of that name in docs/benchmarks.md as far as README.md shows it; empty if it was not measured."""
    begin, name, _, end = shown.groups()
    measured = {table[2]: table[3] for table in TABLE.finditer(BENCHMARKS.read_text())}[name]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in measured.splitlines() if line.startswith("|")]
    head, body = rows[:2], [row for row in rows[2:] if SHOWN[name].row in ("", row[0])]
    kept = [rows[0].index(column) for column in SHOWN[name].columns] if rows else []
    lines = (f"| {' | '.join(row[at] for at in kept)} |\n" for row in [*head, *body])
    return f"{begin}{''.join(lines)}{end}"


def run(command: list[str], directory: str) -> str:
    """What a command prints. It may fail only where the page shows that it does: by its words."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, "PATH": path}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if "Traceback" in done.stdout:
        raise SystemExit(f"{command[-1]}\n{done.stdout}")
    return done.stdout


def differences(shown: str, happens: str) -> str:
    """What the two pages differ in, measured quantities aside."""
    before, after = (MEASURED.sub(r" …\1", page).splitlines(keepends=True) for page in (shown, happens))
    return "".join(difflib.unified_diff(before, after, "README.md", "what happens"))


if __name__ == "__main__":
    sys.exit(main())
