"""A page with what happens now.

Blocks of `python` are programs; a block of `text` right after one is what it prints. In blocks of `console` (also `console measured` and
`console machine`: see `comparison`), lines that begin with `$ ` are commands and the others what they print. A comment
`<!-- setup ... -->` holds a shell script that runs at that place and is not seen; it must succeed.
"""

import re
import sys
from pathlib import Path

from .console import Console
from .tables import TABLE, filled

BLOCK = re.compile(
    r"^```(?P<language>python|text|console(?: measured| machine)?)\n(?P<body>.*?)^```$|^<!-- setup\n(?P<setup>.*?)-->$",
    re.MULTILINE | re.DOTALL,
)


def rendered(path: Path, page: str) -> str:
    """The page of that path with its tables, and the output of its programs and commands, as they are now."""
    with Console() as console:
        printed = ""

        def render(block: re.Match[str]) -> str:
            nonlocal printed
            if block["setup"] is not None:
                console.set_up(block["setup"])
                return block[0]
            language, body = block["language"], block["body"]
            if language == "text":
                body = printed
            elif language == "python":
                printed = console.run([sys.executable, "-W", "error", "-c", body])
            else:
                commands = re.findall(r"^\$ (.*)\n", body, re.MULTILINE)
                body = "".join(f"$ {command}\n{console.run(['bash', '-c', command])}" for command in commands)
            return f"```{language}\n{body}```"

        return BLOCK.sub(render, TABLE.sub(lambda table: filled(path, table), page))
