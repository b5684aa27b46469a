"""`bigsmall demo`, on the model of the package and on others."""

import hashlib
import json
import sys
from importlib import resources
from pathlib import Path

import pytest

import bigsmall
from bigsmall.cli import main


@pytest.fixture
def demo_source() -> Path:
    return Path(str(resources.files("bigsmall") / "data" / "demo.safetensors"))


def test_the_model_of_the_package(capsys: pytest.CaptureFixture[str], demo_source: Path) -> None:
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    digest = hashlib.sha256(demo_source.read_bytes()).hexdigest()
    assert out.count(digest) == 2
    for word in ("attention", "mlp", "norm", "embedding", "BF16", "the same file"):
        assert word in out
    assert "--output-dir" in out


def test_the_model_writes_the_same_text_loaded_and_streamed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    assert main(["demo", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    text = facts["text"]
    assert text["loaded"] == text["streamed"]
    assert text["loaded"].startswith(text["prompt"])
    assert len(text["loaded"]) > len(text["prompt"]) + 20


@pytest.mark.parametrize(("absent", "extra"), [("torch", "torch"), ("transformers", "hf")])
def test_without_what_the_text_needs(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, absent: str, extra: str) -> None:
    pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, absent, None)
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert f"no text: text from the model needs {absent}: pip install 'bigsmall[{extra}]'" in out
    assert "the same file" in out


def test_the_model_is_small_and_compresses(demo_source: Path, tmp_path: Path) -> None:
    assert demo_source.stat().st_size <= 3_000_000
    facts = bigsmall.compress(demo_source, tmp_path / "demo.bs")
    assert facts["compressed_bytes"] < 0.75 * facts["source_bytes"]


def test_another_file_with_outputs_kept(capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path) -> None:
    assert main(["demo", str(source), "--output-dir", str(tmp_path / "new" / "dir"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"]
    assert facts["verified"]
    assert facts["source_sha256"] == facts["restored_sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert Path(facts["restored"]).read_bytes() == source.read_bytes()
    assert bigsmall.verify(facts["compressed"])["ok"]
    assert main(["demo", str(source), "--output-dir", str(tmp_path / "new" / "dir")]) == 1
    assert "--force" in capsys.readouterr().err
    assert main(["demo", str(source), "--output-dir", str(tmp_path / "new" / "dir"), "--force"]) == 0


def test_nothing_is_left_behind(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    assert main(["demo", str(source), "--json"]) == 0
    assert list((tmp_path / "scratch").iterdir()) == []
    facts = json.loads(capsys.readouterr().out)
    assert (facts["compressed"], facts["restored"]) == (None, None)
