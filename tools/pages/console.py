"""A home directory of its own for the programs and commands of a page."""

import os
import shutil
import site
import subprocess
import sys
import tempfile
from importlib.resources import as_file, files
from pathlib import Path
from types import TracebackType

SHOWN_HOME = "/home/you"
SHOWN_PACKAGE = "/home/you/.venv/site-packages/bigsmall"


class Console:
    """Runs commands one after the other in one new directory, which holds `model.safetensors`, the demo model.

    The home directory is new too, and temporary files are made in it. Its real name, and that of the package, are not shown.
    """

    def __enter__(self) -> "Console":
        self._scratch = tempfile.TemporaryDirectory()
        self._home = Path(self._scratch.name).resolve()
        self._directory = self._home / "models"
        self._directory.mkdir()
        (self._home / "tmp").mkdir()
        with as_file(files("bigsmall") / "data") as data:
            self._package = data.parent
            shutil.copy(data / "demo.safetensors", self._directory / "model.safetensors")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._scratch.cleanup()

    def run(self, command: list[str]) -> str:
        """What a command prints. It may fail only where the page shows that it does: by its words."""
        printed = self._done(command).stdout
        if "Traceback" in printed:
            raise SystemExit(f"{command[-1]}\n{printed}")
        return printed.replace(str(self._home), SHOWN_HOME).replace(str(self._package), SHOWN_PACKAGE)

    def set_up(self, script: str) -> None:
        """Run a shell script of which nothing is shown. Every command in it must succeed."""
        done = self._done(["bash", "-ec", script])
        if done.returncode:
            raise SystemExit(f"setup failed:\n{script}{done.stdout}")

    def _done(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(self._home),
            "TMPDIR": str(self._home / "tmp"),
            # A bar that has moved on is no output.
            "TQDM_DISABLE": "1",
            # What a machine plans depends on its GPUs.
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONUSERBASE": site.getuserbase(),
        }
        return subprocess.run(command, cwd=self._directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
