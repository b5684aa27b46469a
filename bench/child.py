"""Functions run in processes of their own, under another interpreter if need be.

As a script: `child.py MODULE:FUNCTION ARGUMENTS RESULT` calls the function with JSON keyword arguments and writes its result as JSON.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import footprint

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_S = 0.002
"""Between looks at a process's memory."""


class ChildError(Exception):
    """The last line of what the process wrote on stderr, or its exit status."""


def call(target: str, arguments: dict[str, Any], python: str = sys.executable, env: dict[str, str] | None = None) -> dict[str, Any]:
    """The function's result. Raises ChildError if it raised."""
    with tempfile.TemporaryDirectory() as directory:
        with start(target, arguments, Path(directory), python, env) as process:
            process.wait()
        return answer(process, Path(directory))


def call_watched(target: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The function's result, and the peaks of its process in bytes: `peak_private_bytes` (sampled) and `peak_resident_bytes`."""
    with tempfile.TemporaryDirectory() as directory:
        peak_private = peak_resident = 0
        with start(target, arguments, Path(directory), sys.executable, None) as process:
            while process.poll() is None:
                peak_private = max(peak_private, footprint.private(process.pid))
                # The kernel's own peak since the program began; `ru_maxrss` has that of the process that started it as well.
                peak_resident = max(peak_resident, footprint.resident(process.pid, "VmHWM"))
                time.sleep(SAMPLE_S)
        result = answer(process, Path(directory))
    return result | {"peak_private_bytes": peak_private, "peak_resident_bytes": peak_resident}


@contextmanager
def start(
    target: str, arguments: dict[str, Any], directory: Path, python: str, env: dict[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """The process, which is killed if the block does not wait for its end. Its result and its messages go into `directory`."""
    with (directory / "messages").open("wb") as messages:
        command = [python, __file__, target, json.dumps(arguments), str(directory / "result")]
        process = subprocess.Popen(command, env=os.environ | (env or {}), stdout=messages, stderr=messages)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            process.wait()


def answer(process: subprocess.Popen[bytes], directory: Path) -> dict[str, Any]:
    if process.returncode != 0:
        lines = (directory / "messages").read_text(errors="replace").strip().splitlines()
        raise ChildError(lines[-1] if lines else f"exit status {process.returncode}")
    return dict(json.loads((directory / "result").read_text()))


def main() -> None:
    target, arguments, result_path = sys.argv[1:]
    module, function = target.split(":")
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(result_path).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
