"""The table in docs/benchmarks.md that compares this package with the published one says what both do."""

import sys
from pathlib import Path

import pytest

import environment
import tables
from rivals import published
from sections import comparison

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md").read_text()
SHOWN = {row[1]: row[2:] for row in tables.lines_of(PAGE, "comparison")}
QUICK = ("the restored file is the source, byte for byte", "a delta decompressed without its base", "a truncated file: the error")


def checks(*questions: str) -> dict[str, str]:
    every = {question: check for group in comparison.CHECKS.values() for question, check in group.items()}
    return {question: every[question] for question in questions or every}


def test_every_question_is_in_the_table() -> None:
    assert checks().keys() <= SHOWN.keys()


@pytest.mark.parametrize("question", checks())
def test_what_this_package_does(question: str, tmp_path: Path) -> None:
    assert checks()[question](comparison.Package(sys.executable), tmp_path) == SHOWN[question][1]


@pytest.mark.parametrize("question", QUICK)
def test_what_the_published_package_does(question: str, tmp_path: Path) -> None:
    python = environment.installed(published.RIVAL.name, published.RIVAL.requirements)
    if python is None:
        pytest.skip("bigsmall 4.0.0 is not installed: bench/install_published.py does that")
    assert checks(question)[question](comparison.Package(python), tmp_path) == SHOWN[question][0]


def test_figures_are_those_of_the_page() -> None:
    figures = {question: (theirs, own) for _, question, theirs, own in tables.figures(PAGE)}
    assert figures
    assert figures.items() <= {question: tuple(cells) for question, cells in SHOWN.items()}.items()
