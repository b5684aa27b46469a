"""The progress function, and the bar drawn with it."""

import io
from pathlib import Path

import pytest

import bigsmall
from bigsmall.progress import PlainBar, reporting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("verb", ["compress", "decompress", "decompress to a file", "verify", "scan", "load"])
def test_reports_rise_to_the_total(tmp_path: Path, source: Path, compressed: Path, verb: str) -> None:
    reports: list[tuple[int, int]] = []

    def report(done: int, total: int) -> None:
        reports.append((done, total))

    match verb:
        case "compress":
            bigsmall.compress(source, tmp_path / "again.bs", progress=report)
        case "decompress":
            bigsmall.decompress(compressed, progress=report)
        case "decompress to a file":
            bigsmall.decompress(compressed, tmp_path / "again.safetensors", progress=report)
        case "verify":
            bigsmall.verify(compressed, progress=report)
        case "scan":
            bigsmall.scan(source, progress=report)
        case "load":
            pytest.importorskip("torch")
            bigsmall.load(compressed, progress=report)
    done = [done for done, _ in reports]
    assert done == sorted(done)
    assert reports[-1][0] == reports[-1][1] > 0
    assert len({total for _, total in reports}) == 1


def test_an_exception_in_the_function_stops_the_work(tmp_path: Path, source: Path) -> None:
    def report(done: int, total: int) -> None:
        raise RuntimeError("enough")

    before = set(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="enough"):
        bigsmall.compress(source, tmp_path / "again.bs", progress=report)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("with_tqdm", [True, False], ids=["tqdm", "plain"])
def test_the_bar_is_drawn_on_a_terminal_and_wiped(monkeypatch: pytest.MonkeyPatch, with_tqdm: bool) -> None:
    if with_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(__import__("sys").modules, "tqdm", None)
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with reporting(True, "compress") as report:
        assert report is not None
        report(0, 4_000_000)
        report(4_000_000, 4_000_000)
    text = screen.getvalue()
    assert "compress" in text
    assert text.rpartition("\r")[2] == ""


def test_no_bar_without_stderr(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setattr("sys.stderr", None)
    assert bigsmall.compress(source, progress=True)["n_files"] == 1


def test_no_bar_off_a_terminal(capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path) -> None:
    bigsmall.compress(source, tmp_path / "again.bs", progress=True)
    assert capsys.readouterr().err == ""


def test_a_plain_bar_covers_longer_lines_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    bar = PlainBar("x")
    bar.report(0, 10**12)
    bar.report(0, 0)
    lines = screen.getvalue().split("\r")[1:]
    assert len(lines[1]) >= len(lines[0])
