"""Limits that Linux sets to groups of processes, as containers have them: both versions of control groups."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path("/")


class Group(NamedTuple):
    """The directory of a group this process is in, and whether its files are those of version 2."""

    path: Path
    is_v2: bool

    def number(self, v2: str, v1: str) -> int | None:
        """The number in the file of that name; None if there is no such file, or `max` in it."""
        text = self.text(v2 if self.is_v2 else v1)
        return int(text) if text.lstrip("-").isdecimal() else None

    def text(self, name: str) -> str:
        try:
            return (self.path / name).read_text().strip()
        except OSError:
            return ""


def groups(controller: str, root: Path = ROOT) -> Iterator[Group]:
    """The groups that set limits by that controller (`memory`, `cpu`), from the innermost outwards; `root` is for tests."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mount = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            yield from _upwards(mount, path, is_v2=True)
        elif controller in controllers.split(","):
            yield from _upwards(mount / controller, path, is_v2=False)


def _upwards(top: Path, path: str, *, is_v2: bool) -> Iterator[Group]:
    # In a container the path may lead out of what is mounted there; the container's own group is then at the top.
    parts = [part for part in path.split("/") if part not in ("", "..")]
    for length in range(len(parts), -1, -1):
        directory = top.joinpath(*parts[:length])
        if directory.is_dir():
            yield Group(directory, is_v2)
