"""What every command has in common, whichever commands there are: help, `--json`, and one line for input that is not what it should be."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import bigsmall
from bigsmall.cli import main
from bigsmall.cli.main import COMMANDS, parser
from models import files_of, llama, write_safetensors


class Leaf(NamedTuple):
    """A command, or one below it; the arguments that it cannot do without."""

    words: tuple[str, ...]
    parser: argparse.ArgumentParser

    @property
    def needed(self) -> list[argparse.Action]:
        return [action for action in self.parser._actions if action.required and not isinstance(action, argparse._SubParsersAction)]

    @property
    def optional_sources(self) -> list[argparse.Action]:
        return [action for action in self.parser._actions if not action.option_strings and not action.required and action.dest != "dst"]

    def called_with(self, path: Path, beside: Path) -> list[str] | None:
        """The call in which every file that it reads is `path`; None if it reads none. What it makes would be `beside`."""
        call = list(self.words)
        sources = 0
        for action in [*self.needed, *self.optional_sources]:
            if action.type is not Path:
                values = [str(next(iter(action.choices)))] if action.choices else ["1"]
            elif action.option_strings or action.dest in ("dst", "output"):
                values = [str(beside)]
            else:
                values = [str(path)]
                sources += 1
            call += [*action.option_strings[-1:], *values]
        return call if sources else None


def leaves(node: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[Leaf]:
    below = [action.choices for action in node._actions if isinstance(action, argparse._SubParsersAction)]
    if not below:
        yield Leaf(words, node)
    for choices in below:
        for name, command in choices.items():
            yield from leaves(command, (*words, name))


LEAVES = list(leaves(parser()))
READERS = [leaf for leaf in LEAVES if leaf.called_with(Path(), Path())]


def names(leaf: Leaf) -> str:
    return " ".join(leaf.words)


@pytest.fixture(autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Hub, no home of somebody."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("home")))


def test_all_commands_are_met() -> None:
    assert {leaf.words[0] for leaf in LEAVES} == COMMANDS.keys()
    assert {"compress", "info", "verify", "run"} <= {leaf.words[0] for leaf in READERS}


@pytest.mark.parametrize("leaf", LEAVES, ids=names)
def test_help(leaf: Leaf) -> None:
    """Every argument is explained, in words alike."""
    assert leaf.parser.description or leaf.words[1:]
    assert any("--json" in action.option_strings for action in leaf.parser._actions)
    for action in leaf.parser._actions:
        if action.help is argparse.SUPPRESS or action.dest == "help":
            continue
        assert action.help, action
        assert not action.help.endswith("."), f"{action.help!r}: no sentence"
        assert "%(default)" not in action.help
        # Nothing, zero and switches explain themselves.
        if action.option_strings and action.default and action.default is not True and action.nargs != 0:
            assert "default" in action.help, f"{action.option_strings}: what is the default?"


def inputs(directory: Path) -> dict[str, tuple[Path, set[int]]]:
    """Files that are not what any command takes, and the exit statuses that tell so."""
    source = write_safetensors(directory / "whole.safetensors", llama(1, 32))
    bigsmall.compress(source, directory / "whole.bs")
    packed, plain = (directory / "whole.bs").read_bytes(), source.read_bytes()
    contents = {
        "empty": b"",
        "garbage": b"neither of the two formats, and long enough to be one of them",
        "zeros": bytes(4096),
        "truncated.bs": packed[: len(packed) // 2],
        "header.bs": packed[:40],
        "damaged-header.bs": packed[:30] + bytes([packed[30] ^ 1]) + packed[31:],
        "future.bs": b"BGSM\x63\0" + bytes(100),
        "truncated.safetensors": plain[: len(plain) // 2],
        "header.safetensors": plain[:40],
        "huge.safetensors": b"\xff" * 8 + plain[8:],
    }
    for name, data in contents.items():
        (directory / name).write_bytes(data)
    (directory / "no-weights").mkdir()
    (directory / "no-weights" / "config.json").write_text("{}\n")
    (directory / "bad-index").mkdir()
    (directory / "bad-index" / "bigsmall.index.json").write_text("{")
    (directory / "bad-index" / "model.safetensors.index.json").write_text("{")
    found = {name: (directory / name, {3}) for name in contents}
    return found | {
        "nowhere": (directory / "nowhere", {1}),
        "no-weights": (directory / "no-weights", {1}),
        "bad-index": (directory / "bad-index", {1, 3}),
    }


NEEDS_MORE = ("chain", "repair")
"""Commands that look for something beside the file, or in it as a directory, before they look at the data."""


@pytest.mark.parametrize("leaf", READERS, ids=names)
def test_bad_input(leaf: Leaf, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with the file's name, the right exit status, nothing written; with --json too, and then no half an object."""
    directory = tmp_path / "in"
    directory.mkdir()
    monkeypatch.chdir(tmp_path)
    bad = inputs(directory)
    before = files_of(tmp_path)
    for what, (path, statuses) in bad.items():
        for flags in ([], ["--json"]):
            call = leaf.called_with(path, tmp_path / "out")
            assert call is not None
            status = run([*call, *flags])
            out, err = capsys.readouterr()
            said = f"{what}: {call} -> {status}\n{out}{err}"
            assert status in (statuses | {1} if call[0] in NEEDS_MORE else statuses), said
            assert "Traceback" not in err, said
            assert err.splitlines()[-1].startswith("bigsmall: error: "), said
            assert len([line for line in err.splitlines() if "error" in line]) == 1, said
            assert path.name in err, said
            if flags and out:
                json.loads(out)
    assert files_of(tmp_path) == before


def run(call: list[str]) -> int:
    """The exit status, as the process would have it."""
    try:
        return main(call)
    except SystemExit as ended:
        return int(str(ended.code))
