"""README.md and the pages of the commands show what happens."""

from pathlib import Path

import pytest

from bigsmall.cli.main import COMMANDS
from pages import COMMANDS as DIRECTORY
from pages import PAGES, README, tables
from pages.comparison import differences
from pages.rendering import rendered

PAGE = "Text.\n\n```python\nprint(6 * 7)\n```\n\n```text\n41\n```\n\n```console\n$ ls\nnothing\n$ bigsmall verify none.bs\n```\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages_show_what_happens(page: Path) -> None:
    pytest.importorskip("numpy")
    pytest.importorskip("torch")
    shown = page.read_text()
    assert differences(page.name, shown, rendered(page, shown)) == ""


def test_every_command_has_a_page() -> None:
    assert {page.stem for page in DIRECTORY.glob("*.md")} - {"README"} == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_page_has_the_arguments_and_an_output(command: str) -> None:
    page = (DIRECTORY / f"{command}.md").read_text()
    assert page.startswith(f"# bigsmall {command}\n")
    assert "<!-- begin arguments -->" in page
    assert f"$ bigsmall {command}" in page


def test_output_is_put_into_the_page() -> None:
    page = rendered(README, PAGE)
    assert "```text\n42\n```" in page
    assert "$ ls\nmodel.safetensors\n$ bigsmall verify none.bs\nbigsmall: error: none.bs" in page
    assert "-41\n+42\n" in differences("a page", PAGE, page)


def test_setup_is_run_and_not_seen() -> None:
    setup = "<!-- setup\nmv model.safetensors other\n-->\n"
    assert rendered(README, setup + "```console\n$ ls\n```\n") == setup + "```console\n$ ls\nother\n```\n"
    with pytest.raises(SystemExit, match="setup failed"):
        rendered(README, "<!-- setup\nfalse\ntrue\n-->\n")


def test_pages_have_a_home_of_their_own() -> None:
    page = rendered(README, "```console\n$ echo $HOME; cd; ls; touch mine\n```\n")
    assert page == "```console\n$ echo $HOME; cd; ls; touch mine\n/home/you\nmodels\ntmp\n```\n"


def test_tables_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = tmp_path / "benchmarks.md"
    table = "| input | aim | raw bytes |\n| :-- | --: | --: |\n| a | 1 | 2 |\n| b | 3 | 4 |\n"
    measured.write_text(f"<!-- begin sizes -->\n{table}\nWords.\n<!-- end sizes -->\n")
    monkeypatch.setattr(tables, "BENCHMARKS", measured)
    page = "<!-- begin sizes -->\n| old |\n<!-- end sizes -->\n"
    for row, rows in (("", "| a | 2 |\n| b | 4 |\n"), ("b", "| b | 4 |\n")):
        monkeypatch.setattr(tables, "SHOWN", {"sizes": tables.Shown(("input", "raw bytes"), row)})
        kept = f"| input | raw bytes |\n| :-- | --: |\n{rows}"
        assert rendered(README, page) == f"<!-- begin sizes -->\n{kept}<!-- end sizes -->\n"


def test_arguments_are_those_of_the_parser() -> None:
    page = rendered(Path("compress.md"), "<!-- begin arguments -->\n<!-- end arguments -->\n")
    assert "    bigsmall compress [options] SRC [DST]\n" in page
    assert "| `-o OUT`, `--output OUT` | the same as DST |\n" in page
    assert "| `--force` |" in page
    assert "--help" not in page


@pytest.mark.parametrize(
    ("shown", "happens", "is_same"),
    [
        ("in 0.1s at 3 MB/s", "in 10.2s at 1,200 MB/s", True),
        ("2 s of 3 MB", "2 s of 4 MB", False),
        ("peak 10.02 MiB\n", "peak 9.1 MiB\n", True),
        ("file of 10.02 MiB, whole\n", "file of 9.1 MiB, whole\n", False),
        ('"elapsed_s": 0.1,', '"elapsed_s": 2e-05,', True),
        ('"n_bytes": 1,', '"n_bytes": 2,', False),
        ("/tmp/bigsmall-abcdefgh/a.bs", "/tmp/bigsmall-12345678/a.bs", True),
        ("```console measured\n$ a 1\nsaw 1 of 2\n```\n", "```console measured\n$ a 1\nsaw 3 of 44\n```\n", True),
        ("```console measured\n$ a 1\nsaw 1\n```\n", "```console measured\n$ a 2\nsaw 1\n```\n", False),
        ("```console measured\n$ a\nsaw 1 dog\n```\n", "```console measured\n$ a\nsaw 1 cat\n```\n", False),
        ("```console machine\n$ a: b\ncpu: one\n```\n", "```console machine\n$ a: b\ncpu: two\n```\n", True),
        ("```console machine\n$ a: b\ncpu: one\n```\n", "```console machine\n$ a: b\ngpu: one\n```\n", False),
        ("```console machine\n$ a: b\ncpu: one\n```\n", "```console machine\n$ a: c\ncpu: one\n```\n", False),
    ],
)
def test_what_is_compared(shown: str, happens: str, is_same: bool) -> None:
    assert (differences("a page", shown, happens) == "") is is_same


def test_a_program_that_fails_is_an_error() -> None:
    with pytest.raises(SystemExit, match="ZeroDivisionError"):
        rendered(README, "```python\n1 / 0\n```\n")
