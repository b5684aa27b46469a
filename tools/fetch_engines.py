"""Fetches the Python source of vLLM and sglang, for the tests of what loads models into them.

    python tools/fetch_engines.py

Installing either brings gigabytes for GPUs, none of which are needed to load weights on a CPU. So their wheels are downloaded, 0.4 GB, and
unpacked below this interpreter's own directory without what is compiled. There are no source distributions of these releases, which would
be smaller.
"""

import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ENGINES = Path(sys.prefix, "engines")
VERSIONS = {"vllm": "0.33.0", "sglang": "0.5.23"}
# Of wheels for these, whatever runs this: only what is the same in all of them is used.
PLATFORM = ["--only-binary=:all:", "--python-version=3.11", "--platform=manylinux_2_34_x86_64", "--platform=manylinux_2_28_x86_64"]


def main() -> None:
    for name, version in VERSIONS.items():
        done = ENGINES / f"{name}-{version}.done"
        if not done.exists():
            fetch(f"{name}=={version}")
            done.touch()


def fetch(requirement: str) -> None:
    with TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", *PLATFORM, "--dest", scratch, requirement]
        subprocess.run(command, check=True)
        for wheel in Path(scratch).glob("*.whl"):
            with zipfile.ZipFile(wheel) as opened:
                opened.extractall(ENGINES, [name for name in opened.namelist() if ".so" not in Path(name).suffixes])


if __name__ == "__main__":
    main()
