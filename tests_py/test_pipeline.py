"""`bigsmall pipeline` and `bigsmall status`, on a Hub on loopback."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bigsmall
from bigsmall.cli import main
from bigsmall.hub.pipeline import Checkpoint
from hub_server import Hub
from models import files_of, write_model_dir

pytest.importorskip("huggingface_hub")
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def model(hub: Hub, tmp_path: Path) -> Path:
    """A model folder that is on the Hub as well."""
    write_model_dir(tmp_path / "model")
    hub.add_folder(f"me/{tmp_path.name}", tmp_path / "model")
    return tmp_path / "model"


def pipeline(capsys: pytest.CaptureFixture[str], *args: object, status: int = 0) -> tuple[str, str]:
    assert main(["pipeline", *map(str, args)]) == status
    return capsys.readouterr()


def test_from_hub_to_hub(capsys: pytest.CaptureFixture[str], hub: Hub, model: Path) -> None:
    source, packed = f"me/{model.parent.name}", model.with_name("packed")
    out, err = pipeline(capsys, "run", source, packed, "--repo-id", "me/new-bigsmall", "--token", "hf_x", "--json")
    facts = json.loads(out)
    assert list(facts["done"]) == ["download", "compress", "upload"]
    assert "bigsmall: compress: done" in err
    assert hub.repos["me/new-bigsmall"] == files_of(packed)
    assert bigsmall.verify(packed)["ok"]
    hub.requests.clear()
    out, err = pipeline(capsys, "run", source, packed, "--repo-id", "me/new-bigsmall", "--token", "hf_x")
    assert "compress: already done" in err
    assert "upload: already done" in err
    assert hub.downloads() == []
    assert not [request for request in hub.requests if request.method in ("PUT", "POST")]
    out, _ = pipeline(capsys, "status", packed)
    assert "download: done" in out
    assert "new-bigsmall" in out


def test_a_pipeline_that_is_killed_goes_on(hub: Hub, model: Path) -> None:
    """Killed while it downloads, while it uploads, and last of all let through."""
    source, packed = f"me/{model.parent.name}", model.with_name("packed")
    command = [sys.executable, "-m", "bigsmall", "pipeline", "run", source, str(packed)]
    command += ["--repo-id", "me/killed-bigsmall", "--token", "hf_x", "--lfs"]

    def killed_at(method: str, pattern: str) -> None:
        hub.fault("hang", method, pattern)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while hub.faults and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        process.kill()
        process.wait()

    killed_at("GET", r"model-00002-of-00002\.safetensors")
    assert not packed.exists()
    checkpoint = Checkpoint.read(packed)
    assert checkpoint is not None
    assert checkpoint.done == {}
    hub.fault("none", "PUT", "/lfs/")
    killed_at("PUT", "/lfs/")
    checkpoint = Checkpoint.read(packed)
    assert checkpoint is not None
    assert list(checkpoint.done) == ["download", "compress"]
    made = {path: path.stat().st_mtime_ns for path in packed.rglob("*")}
    assert [name for name in hub.repos["me/killed-bigsmall"] if name.endswith(".bs")] == ["model-00001-of-00002.bs"]
    hub.requests.clear()
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in packed.rglob("*")} == made
    assert hub.downloads() == []
    assert len([request for request in hub.requests if request.method == "PUT"]) == 1
    assert hub.repos["me/killed-bigsmall"] == files_of(packed)


def test_an_output_that_was_lost_is_made_again(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    packed = model.with_name("packed")
    pipeline(capsys, "run", model, packed)
    (packed / "model-00002-of-00002.bs").unlink()
    _, err = pipeline(capsys, "run", model, packed)
    assert "already done" not in err
    assert bigsmall.verify(packed)["ok"]


def test_a_checkpoint_belongs_to_its_source(capsys: pytest.CaptureFixture[str], model: Path, tmp_path: Path) -> None:
    packed = model.with_name("packed")
    pipeline(capsys, "run", model, packed)
    _, err = pipeline(capsys, "run", model, packed, "--mode", "inference", status=2)
    assert "checkpoint of another mode" in err
    (model / "tokenizer.json").write_text('{"new": 1}\n')
    _, err = pipeline(capsys, "run", model, packed, status=2)
    assert "checkpoint of another source" in err
    assert "--force" in err
    pipeline(capsys, "run", model, packed, "--force")
    assert (packed / "tokenizer.json").read_text() == '{"new": 1}\n'
    Checkpoint.path_of(packed).write_text("{}")
    _, err = pipeline(capsys, "run", model, packed, status=3)
    assert "this is no checkpoint of a pipeline" in err
    Checkpoint.path_of(packed).unlink()
    _, err = pipeline(capsys, "run", model, packed, status=1)
    assert "File exists" in err


def test_stages_are_left_out(capsys: pytest.CaptureFixture[str], hub: Hub, model: Path) -> None:
    packed = model.with_name("packed")
    _, err = pipeline(capsys, "status", packed, status=1)
    assert "no pipeline has been run" in err
    out, _ = pipeline(capsys, "run", model, packed, "--no-upload", "--repo-id", "me/later-bigsmall")
    assert "upload: not done" in out
    assert "me/later-bigsmall" not in hub.repos
    pipeline(capsys, "run", model, packed, "--no-compress", "--repo-id", "me/later-bigsmall", "--token", "hf_x")
    assert hub.repos["me/later-bigsmall"] == files_of(packed)
    _, err = pipeline(capsys, "run", model, model.with_name("none"), "--no-compress", "--repo-id", "me/x", status=1)
    assert "none" in err
    _, err = pipeline(capsys, "run", "me/nowhere", model.with_name("other"), status=1)
    assert err == "bigsmall: error: me/nowhere: no such repository on the Hub, or a private one\n"
    assert not model.with_name("other").exists()


def test_status(capsys: pytest.CaptureFixture[str], hub: Hub, model: Path, tmp_path: Path) -> None:
    packed = tmp_path / "models" / "llama-bs"
    packed.parent.mkdir()
    bigsmall.compress(model, packed)
    files = files_of(packed)
    hub.add("me/llama-bigsmall", {**files, "README.md": b"# Llama\n"})
    hub.repos["me/llama-bigsmall"].pop("model-00002-of-00002.bs")
    hub.add("me/other", {})
    assert main(["status", "--token", "hf_x", "--local-dirs", str(packed.parent), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    (repository,) = facts["repositories"]
    assert (repository["repo_id"], repository["n_shards"], repository["has_readme"]) == ("me/llama-bigsmall", 1, True)
    (local,) = facts["local"]
    assert (local["path"], local["repo_id"], local["to_upload"]) == (str(packed), "me/llama-bigsmall", ["model-00002-of-00002.bs"])
    (packed / "model-00001-of-00002.bs").unlink()
    assert main(["status", "--user", "me", "--local-dirs", str(packed)]) == 0
    out = capsys.readouterr().out
    assert "me/llama-bigsmall" in out
    assert "model-00001-of-00002.bs" in out
    assert main(["status", "--user", "me", "--suffix=-none"]) == 0
    assert "me/llama" not in capsys.readouterr().out


def test_status_without_a_user_or_a_hub(capsys: pytest.CaptureFixture[str], hub: Hub, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = model.with_name("packed")
    bigsmall.compress(model, packed)
    assert main(["status", "--local-dirs", str(packed)]) == 1
    out, err = capsys.readouterr()
    assert str(packed) in out
    assert "token" in err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert main(["status", "--user", "me", "--local-dirs", str(packed)]) == 1
    out, err = capsys.readouterr()
    assert str(packed) in out
    assert err == "bigsmall: error: me: the Hub is not asked while HF_HUB_OFFLINE is set\n"
