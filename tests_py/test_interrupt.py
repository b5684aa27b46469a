"""Ctrl-C, and the other signals that end a process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bigsmall
from models import Raw, write_safetensors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a file that takes long enough to be interrupted, in both forms."""
    import numpy as np

    directory = tmp_path_factory.mktemp("big")
    values = np.random.default_rng(0).normal(0, 0.02, 16 << 20).astype("<f4")
    bf16 = (values.view("<u4") >> 16).astype("<u2").tobytes()
    write_safetensors(directory / "big.safetensors", {f"t{k}": Raw("BF16", (4096, 4096), bf16[2 * k :] + bf16[: 2 * k]) for k in range(8)})
    bigsmall.compress(directory / "big.safetensors")
    return directory


# Who starts the tests may ignore signals, as `nohup` and jobs in the background do, and the processes that they start inherit that.
MAIN = """
import signal, sys
from bigsmall.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)
for name in ("SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_DFL)
"""

RUN = "sys.exit(main(sys.argv[1:]))"

SELF_INTERRUPTING = f"""{MAIN}
import contextlib, os
import bigsmall.files

@contextlib.contextmanager
def reporting(progress, label):
    yield lambda done, total: os.kill(os.getpid(), getattr(signal, os.environ["SIGNAL"]))

bigsmall.files.reporting = reporting
{RUN}
"""


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "args",
    [
        ["compress", "big.safetensors", "new"],
        ["compress", ".", "new"],
        ["decompress", "big.bs", "new"],
        ["verify", "big.bs"],
        ["scan", "big.safetensors"],
    ],
    ids=" ".join,
)
def test_the_first_report_interrupts(big: Path, args: list[str], signal: str) -> None:
    before = set(big.iterdir())
    command = [sys.executable, "-c", SELF_INTERRUPTING, *args]
    done = subprocess.run(command, cwd=big, capture_output=True, text=True, env={**os.environ, "SIGNAL": signal})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "bigsmall: interrupted\n")
    assert set(big.iterdir()) == before


@pytest.mark.parametrize("args", [["compress", "big.safetensors", "new"], ["decompress", "big.bs", "new"]], ids=lambda args: args[0])
def test_a_signal_from_outside_without_a_bar(big: Path, args: list[str]) -> None:
    """Sent as soon as the output is being written; a machine that is busy just then gets another chance."""
    before = set(big.iterdir())
    for _ in range(10):
        command = [sys.executable, "-c", MAIN + RUN, *args, "--no-progress", "--threads", "1"]
        with subprocess.Popen(command, cwd=big, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None and set(big.iterdir()) == before:
                time.sleep(0.0005)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate()
        if process.returncode != 0:
            break
        (big / "new").unlink()
    assert (process.returncode, err) == (130, "bigsmall: interrupted\n")
    assert set(big.iterdir()) == before
