"""README.md shows what happens."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SPEC = importlib.util.spec_from_file_location("readme", ROOT / "tools" / "readme.py")
assert SPEC is not None
assert SPEC.loader is not None
readme = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(readme)

PAGE = "Text.\n\n```python\nprint(6 * 7)\n```\n\n```text\n41\n```\n\n```console\n$ ls\nnothing\n$ bigsmall verify none.bs\n```\n"


def test_the_readme_shows_what_happens() -> None:
    pytest.importorskip("numpy")
    pytest.importorskip("torch")
    shown = readme.README.read_text()
    assert readme.differences(shown, readme.rendered(shown)) == ""


def test_output_is_put_into_the_page() -> None:
    page = readme.rendered(PAGE)
    assert "```text\n42\n```" in page
    assert "$ ls\nmodel.safetensors\n$ bigsmall verify none.bs\nbigsmall: error: none.bs" in page
    assert "-41\n+42\n" in readme.differences(PAGE, page)


def test_tables_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = tmp_path / "benchmarks.md"
    table = "| input | aim | raw bytes |\n| :-- | --: | --: |\n| a | 1 | 2 |\n| b | 3 | 4 |\n"
    measured.write_text(f"<!-- begin sizes -->\n{table}\nWords.\n<!-- end sizes -->\n")
    monkeypatch.setattr(readme, "BENCHMARKS", measured)
    page = "<!-- begin sizes -->\n| old |\n<!-- end sizes -->\n"
    for row, rows in (("", "| a | 2 |\n| b | 4 |\n"), ("b", "| b | 4 |\n")):
        monkeypatch.setattr(readme, "SHOWN", {"sizes": readme.Shown(("input", "raw bytes"), row)})
        kept = f"| input | raw bytes |\n| :-- | --: |\n{rows}"
        assert readme.rendered(page) == f"<!-- begin sizes -->\n{kept}<!-- end sizes -->\n"


def test_times_are_not_compared() -> None:
    assert readme.differences("in 0.1s at 3 MB/s", "in 10.2s at 1,200 MB/s") == ""
    assert readme.differences("2 s of 3 MB", "2 s of 4 MB") != ""


def test_a_program_that_fails_is_an_error() -> None:
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        readme.rendered("```python\n1 / 0\n```\n")
