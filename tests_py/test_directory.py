"""Model directories."""

import importlib.util
import json
from pathlib import Path

import pytest

import bigsmall
from models import files_of, weights, write_model_dir, write_safetensors


def test_a_directory_becomes_a_directory_and_comes_back(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model", n_shards=3)
    facts = bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    packed = files_of(tmp_path / "packed")
    assert (facts["n_files"], facts["n_tensors"]) == (3, len(tensors))
    assert packed.keys() == {
        "bigsmall.index.json",
        "config.json",
        "tokenizer.json",
        "1_Pooling/config.json",
        *(f"model-{k:05}-of-00003.bs" for k in (1, 2, 3)),
    }
    bigsmall.decompress(tmp_path / "packed", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "model")
    assert bigsmall.verify(tmp_path / "packed")["ok"]


def test_a_directory_with_one_file_and_no_index(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_safetensors(tmp_path / "model" / "model.safetensors", {"x": weights("BF16", 30, 30)})
    (tmp_path / "model" / "config.json").write_text("{}")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    bigsmall.decompress(tmp_path / "packed", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "model")


def test_a_directory_becomes_one_file_if_asked(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "model.bs")
    assert (tmp_path / "model.bs").is_file()
    arrays = bigsmall.decompress(tmp_path / "model.bs")
    assert {name: array.tobytes() for name, array in arrays.items()} == {name: raw.data for name, raw in tensors.items()}


def test_arrays_of_all_shards_together(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    arrays = bigsmall.decompress(tmp_path / "packed")
    assert {name: array.tobytes() for name, array in arrays.items()} == {name: raw.data for name, raw in tensors.items()}


def test_default_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigsmall.files import compressed_path, restored_path

    write_model_dir(tmp_path / "model.v1")
    monkeypatch.chdir(tmp_path / "model.v1")
    assert compressed_path(".") == tmp_path / "model.v1-bs"
    assert compressed_path("../model.v1") == Path("../model.v1-bs")
    assert compressed_path(tmp_path / "model.v1") == tmp_path / "model.v1-bs"
    assert restored_path(tmp_path / "model.v1") == tmp_path / "model.v1-restored"
    assert compressed_path("a/b.fp16.safetensors") == Path("a/b.fp16.bs")
    assert compressed_path("a/b.v1") == Path("a/b.v1.bs")
    assert restored_path("a/b.bs") == Path("a/b.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"version": 2},
        {"shards": []},
        {"shards": "x"},
        {"shards": [{"file": "../elsewhere.bs"}]},
        {"shards": [{"file": "/etc/passwd"}]},
        {"shards": [{"file": ""}]},
        {"shards": [{"file": 5}]},
        {"shards": [{}]},
        None,
    ],
)
def test_an_index_that_lies(tmp_path: Path, change: dict[str, object] | None) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    index_path = tmp_path / "packed" / "bigsmall.index.json"
    index_path.write_text("[" if change is None else json.dumps(json.loads(index_path.read_text()) | change))
    for use in (bigsmall.info, bigsmall.decompress, bigsmall.verify, lambda path: bigsmall.decompress(path, tmp_path / "back")):
        with pytest.raises(bigsmall.FormatError) as caught:
            use(tmp_path / "packed")
        assert caught.value.path == str(index_path)
    assert not (tmp_path / "back").exists()


def test_a_shard_that_is_gone(tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    (tmp_path / "packed" / "model-00002-of-00002.bs").unlink()
    for use in (bigsmall.info, bigsmall.decompress, lambda path: bigsmall.decompress(path, tmp_path / "back")):
        with pytest.raises(FileNotFoundError, match="model-00002"):
            use(tmp_path / "packed")
    assert not (tmp_path / "back").exists()


def test_a_name_in_two_shards(tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    shards = [tmp_path / "packed" / f"model-0000{k}-of-00002.bs" for k in (1, 2)]
    shards[1].write_bytes(shards[0].read_bytes())
    with pytest.raises(bigsmall.FormatError, match="earlier shard"):
        bigsmall.decompress(tmp_path / "packed")


def test_a_directory_without_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    uses = [bigsmall.compress, bigsmall.scan, bigsmall.info, bigsmall.stat, bigsmall.decompress, bigsmall.verify]
    if importlib.util.find_spec("torch") is not None:
        uses.append(bigsmall.load)
    for use in uses:
        with pytest.raises(FileNotFoundError, match="model"):
            use(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_existing_directory_is_kept(tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError):
        bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    assert files_of(tmp_path / "packed") == {"mine.txt": b"keep me"}
