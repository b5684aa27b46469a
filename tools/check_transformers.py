"""Runs the tests of the hook with other versions of transformers than the one that is installed.

    python tools/check_transformers.py 5.0.0 5.8.0

Each version goes with its own dependencies into a directory below this interpreter's own, which stands before the others on the path.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ["tests_py/test_hook.py", "tests_py/test_hook_transformers.py", "tests_py/test_pretrained.py"]


def main() -> None:
    failed = [version for version in sys.argv[1:] if not passes(version)]
    if failed:
        sys.exit(f"transformers {', '.join(failed)}: the hook does not do what it should")


def passes(version: str) -> bool:
    place = Path(sys.prefix, f"transformers-{version}")
    if not place.exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(place), f"transformers=={version}"]
        subprocess.run(command, check=True)
    print(f"transformers {version}", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(place)}
    # peft and diffusers are of versions that go with the installed one.
    selected = "not adapters and not diffusers"
    return subprocess.run([sys.executable, "-m", "pytest", "-q", "-k", selected, *TESTS], env=environment, cwd=ROOT).returncode == 0


if __name__ == "__main__":
    main()
