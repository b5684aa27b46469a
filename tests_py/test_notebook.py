"""examples/quickstart.ipynb shows what happens."""

import sys
from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("torch")
pytest.importorskip("transformers")

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "quickstart.ipynb"


def shown(notebook: Any) -> list[tuple[str, list[str]]]:
    """Each program, and what it shows; what packages say on stderr depends on what else is installed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [(cell.source, [text_of(output) for output in cell.outputs if output.get("name") != "stderr"]) for cell in cells]


def text_of(output: Any) -> str:
    return str(output.text if output.output_type == "stream" else output.data["text/plain"])


# The kernel's own packages, not ours.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::RuntimeWarning")
def test_the_notebook_shows_what_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tmp_path / "share" / "jupyter" / "kernels" / "here"
    spec.mkdir(parents=True)
    # A kernel in this very Python, whatever kernels the system knows.
    command = '{"argv": ["%s", "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "here", "language": "python"}'
    (spec / "kernel.json").write_text(command % sys.executable)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    stored = nbformat.read(NOTEBOOK, as_version=4)
    executed = nbformat.read(NOTEBOOK, as_version=4)
    work = tmp_path / "work"
    work.mkdir()
    nbclient.NotebookClient(executed, timeout=300, kernel_name="here", resources={"metadata": {"path": str(work)}}).execute()
    assert shown(executed) == shown(stored)


def test_every_program_in_the_notebook_has_been_run() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    programs = shown(notebook)
    assert len(programs) > 5
    assert all(outputs for _, outputs in programs)
    assert not any("/tmp/" in text or "site-packages" in text for _, outputs in programs for text in outputs)
