"""Real trained weights, end to end."""

import hashlib
import json
from pathlib import Path

import pytest

import bigsmall
from models import files_of


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("mode", ["balanced", "storage", "inference"])
def test_minilm_comes_back_bit_for_bit(minilm_dir: Path, tmp_path: Path, mode: str) -> None:
    source = minilm_dir / "model.safetensors"
    facts = bigsmall.compress(source, tmp_path / "model.bs", mode=mode)
    assert facts["compressed_bytes"] < 0.83 * facts["source_bytes"]
    assert bigsmall.verify(tmp_path / "model.bs")["ok"]
    bigsmall.decompress(tmp_path / "model.bs", tmp_path / "back.safetensors")
    assert sha256(tmp_path / "back.safetensors") == sha256(source)


def test_minilm_tensors_are_those_of_safetensors(minilm_dir: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    load_file = pytest.importorskip("safetensors.torch").load_file
    bigsmall.compress(minilm_dir / "model.safetensors", tmp_path / "model.bs")
    ours, theirs = bigsmall.load(tmp_path / "model.bs"), load_file(minilm_dir / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor), name
        assert ours[name].dtype == tensor.dtype


def test_minilm_slices(minilm_dir: Path, tmp_path: Path) -> None:
    safe_open = pytest.importorskip("safetensors").safe_open
    bigsmall.compress(minilm_dir / "model.safetensors", tmp_path / "model.bs")
    with safe_open(minilm_dir / "model.safetensors", "np") as theirs, bigsmall.safe_open(tmp_path / "model.bs", "np") as ours:
        for name in theirs.keys():  # noqa: SIM118 - not a dict
            shape = theirs.get_slice(name).get_shape()
            n_rows = shape[0]
            for start, stop in ((0, 1), (n_rows // 3, n_rows // 2 + 1), (n_rows - 1, n_rows)):
                assert (ours.get_slice(name)[start:stop] == theirs.get_slice(name)[start:stop]).all(), name


def test_the_whole_minilm_directory(minilm_dir: Path, tmp_path: Path) -> None:
    bigsmall.compress(minilm_dir, tmp_path / "packed")
    bigsmall.decompress(tmp_path / "packed", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(minilm_dir)
    facts = bigsmall.info(tmp_path / "packed")
    assert facts["layer_count"] == 6


def test_every_checkpoint_beside_the_repository(shared_weights: Path, tmp_path: Path) -> None:
    """They come back, and are smaller than the published package makes them."""
    published = json.loads((shared_weights.parent / "published-4.0.0-sizes.json").read_text())
    # None where the published package fails.
    published_bytes = published[shared_weights.name]["published_bytes"]
    for mode in ("balanced", "storage", "inference"):
        facts = bigsmall.compress(shared_weights, tmp_path / f"{mode}.bs", mode=mode)
        assert facts["compressed_bytes"] < facts["source_bytes"]
        if published_bytes is not None and mode != "inference":
            assert facts["compressed_bytes"] < published_bytes
        assert bigsmall.verify(tmp_path / f"{mode}.bs")["ok"]
        bigsmall.decompress(tmp_path / f"{mode}.bs", tmp_path / "back.safetensors", force=True)
        assert sha256(tmp_path / "back.safetensors") == sha256(shared_weights)
