"""The completion scripts, in the shells that they are for."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bigsmall.cli import completion, main
from bigsmall.cli.main import COMMANDS

pytest.importorskip("shtab")

LINES = {
    "bigsmall comple": "completion",
    "bigsmall info --js": "--json",
    "bigsmall completion z": "zsh",
    "bigsmall stat --sort n": "name",
    "bigsmall verify mod": "model.bs",
    "bigsmall demo --output-dir d": "dir/",
}
"""What is typed, and the only thing that its last word can become."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Holds one file and one directory with names of their own, and the script for each shell."""
    (tmp_path / "model.bs").touch()
    (tmp_path / "dir").mkdir()
    for shell in completion.SHELLS:
        (tmp_path / f"script.{shell}").write_text(completion.script(shell))
    return tmp_path


def complete_bash(directory: Path, typed: str) -> str:
    script = """
source script.bash
read -ra COMP_WORDS <<<"$1"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE=$1; COMP_POINT=${#1}
function=$(complete -p bigsmall | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function bigsmall "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
for word in "${COMPREPLY[@]}"; do [ -d "$word" ] && word=$word/; printf '%s\\n' "$word"; done
"""
    return shell_prints(["bash", "--norc", "-c", script, "bash", typed], directory)


def complete_fish(directory: Path, typed: str) -> str:
    found = shell_prints(["fish", "--no-config", "-c", f"source script.fish; complete -C '{typed}'"], directory)
    return "\n".join(line.partition("\t")[0] for line in found.splitlines())


def complete_zsh(directory: Path, typed: str) -> str:
    """Types into an interactive zsh, and has a key of it write the line as it then is."""
    from pty import fork

    (directory / ".zshrc").write_text(
        """
autoload -Uz compinit; compinit -u -d dump
source script.zsh; compdef _shtab_bigsmall bigsmall
write-line() { print -r -- "$BUFFER" >line; exit }
zle -N write-line; bindkey '^I' expand-or-complete; bindkey '^X' write-line
PS1='ready> '
"""
    )
    child, terminal = fork()
    if child == 0:
        os.chdir(directory)
        os.execvpe("zsh", ["zsh", "-i"], {**os.environ, "ZDOTDIR": str(directory), "TERM": "dumb"})
    seen = b""
    # A shell that never answers ends too.
    watchdog = threading.Timer(60, os.kill, (child, signal.SIGKILL))
    watchdog.start()
    try:
        while b"ready> " not in seen:
            seen += os.read(terminal, 4096)
        os.write(terminal, f"{typed}\t\x18".encode())
        while os.read(terminal, 4096):
            pass
    except OSError:
        # The end of a pseudo-terminal.
        pass
    finally:
        watchdog.cancel()
        os.waitpid(child, 0)
        os.close(terminal)
    line = (directory / "line").read_text().rstrip()
    return line.removeprefix(typed.rpartition(" ")[0]).strip()


def shell_prints(command: list[str], directory: Path) -> str:
    done = subprocess.run(command, cwd=directory, env={**os.environ, "HOME": str(directory)}, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout.strip()


COMPLETE: dict[str, Callable[[Path, str], str]] = {"bash": complete_bash, "fish": complete_fish, "zsh": complete_zsh}


@pytest.mark.parametrize("shell", completion.SHELLS)
@pytest.mark.parametrize("typed", LINES)
def test_a_line_is_completed(directory: Path, shell: str, typed: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    assert COMPLETE[shell](directory, typed) == LINES[typed]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_command_is_in_the_script(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in COMMANDS)
    assert "--no-progress" in script or "no-progress" in script


def test_without_the_library(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 1
    assert capsys.readouterr().err == "bigsmall: error: completion needs shtab: pip install 'bigsmall[completion]'\n"
