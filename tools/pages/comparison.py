"""What two versions of a page differ in, apart from what differs from run to run and from machine to machine.

Not compared are

- times, rates and sizes of memory: numbers before `s`, `ms`, `MB/s`, `GB/s` and `tok/s`, those before `MiB`, `GiB` and `GB` at the end of
  a line or before ` RAM`, and in JSON the values of keys that end in `_s` or contain `rss`;
- the eight characters that tell temporary directories apart;
- in blocks of `console measured`, all numbers; in blocks of `console machine`, all of a line that follows its first colon.
"""

import difflib
import re

QUANTITIES = re.compile(r" *~?\d[\d,.]*( ?m?s\b| MB/s| GB/s| tok/s| (?:MiB|GiB|GB)(?=\n|$| RAM))")
JSON_QUANTITIES = re.compile(r'("\w*(?:_s|rss\w*)": )[-+\d.e]+')
TEMPORARY = re.compile(r"/bigsmall-\w{8}\b")
LOOSE_BLOCK = re.compile(r"^```console (measured|machine)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r" *\d[\d,.]*(e[-+]\d+)?")
AFTER_COLON = re.compile(r"(?<=:) .*")


def differences(name: str, shown: str, happens: str) -> str:
    """A diff of the two pages; empty if they differ in nothing that counts."""
    before, after = (comparable(page).splitlines(keepends=True) for page in (shown, happens))
    return "".join(difflib.unified_diff(before, after, name, "what happens"))


def comparable(page: str) -> str:
    """The page with what is not compared left out."""
    page = LOOSE_BLOCK.sub(_loose, page)
    page = JSON_QUANTITIES.sub(r"\1…", QUANTITIES.sub(r" …\1", page))
    return TEMPORARY.sub("/bigsmall-…", page)


def _loose(block: re.Match[str]) -> str:
    kind, body = block.groups()
    left_out = NUMBER if kind == "measured" else AFTER_COLON
    kept = (line if line.startswith("$ ") else left_out.sub(" …", line) for line in body.splitlines())
    return "\n".join([f"```console {kind}", *kept, "```"])
