"""Importing the package costs next to nothing and touches no network."""

import subprocess
import sys
from pathlib import Path

import pytest

NEW_MODULES = """
import sys
before = set(sys.modules)
{statement}
print(*sorted(set(sys.modules) - before), sep="\\n")
"""


def modules_loaded_by(statement: str) -> set[str]:
    script = NEW_MODULES.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("statement", ["import bigsmall", "from bigsmall.cli.main import parser; parser()"])
def test_nothing_heavy_and_no_network(statement: str) -> None:
    loaded = modules_loaded_by(statement)
    assert "bigsmall" in loaded
    assert not loaded & {"torch", "numpy", "tqdm", "safetensors", "socket", "_socket", "ssl", "asyncio", "http", "multiprocessing"}


def test_only_the_package_that_is_asked_for_is_imported(compressed: Path) -> None:
    assert "torch" not in modules_loaded_by(f"import bigsmall; bigsmall.decompress({str(compressed)!r})")
    assert "numpy" not in modules_loaded_by(f"import bigsmall; bigsmall.info({str(compressed)!r})")


def test_public_names_exist_and_are_documented() -> None:
    import bigsmall

    for name in bigsmall.__all__:
        value = getattr(bigsmall, name)
        assert not callable(value) or value.__doc__, name
    assert bigsmall.__version__.count(".") == 2


def test_missing_frameworks_are_named(compressed: Path) -> None:
    for framework, call in (("numpy", "decompress"), ("torch", "load")):
        script = f"import sys; sys.modules[{framework!r}] = None; import bigsmall; bigsmall.{call}({str(compressed)!r})"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert f"pip install 'bigsmall[{framework}]'" in done.stderr
