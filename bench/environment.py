"""Virtual environments for rivals, each on top of the packages of the harness."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

BENCH = Path(__file__).resolve().parent


class InstallError(Exception):
    """pip could not install a rival; the message is pip's last line."""


def installed(name: str, requirements: tuple[str, ...]) -> str | None:
    """The Python of an environment that has these packages, if it was made before."""
    directory = BENCH / f".venv-{name}"
    stamp = directory / "installed"
    if not stamp.exists() or stamp.read_text().splitlines()[-len(requirements) :] != list(requirements):
        return None
    return str(directory / "bin" / "python")


def interpreter(name: str, requirements: tuple[str, ...]) -> str:
    """The Python that has these packages; without any, the harness's own."""
    if not requirements:
        return sys.executable
    directory = BENCH / f".venv-{name}"
    python = directory / "bin" / "python"
    stamp = directory / "installed"
    harness = sysconfig.get_path("purelib")
    wanted = "\n".join([sys.version, harness, *requirements])
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"installing {' '.join(requirements)}", file=sys.stderr)
        try:
            venv.create(directory, clear=True, with_pip=True)
        except subprocess.CalledProcessError as error:
            raise InstallError(f"no environment could be made: {error}") from error
        # The rival's own packages come first; torch and numpy are the harness's, so they are there once and the same for all.
        own = sysconfig.get_path("purelib", "venv", vars={"base": str(directory), "platbase": str(directory)})
        Path(own, "harness.pth").write_text(f"{harness}\n")
        pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        done = subprocess.run([*pip, *requirements], capture_output=True, text=True)
        if done.returncode != 0:
            raise InstallError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
        stamp.write_text(wanted)
    return str(python)
