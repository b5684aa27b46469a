"""State dicts by path and by repository."""

from pathlib import Path

import pytest

import bigsmall
from hub_server import Hub
from models import write_model_dir

torch = pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")


def equal(state_dict: "dict[str, torch.Tensor]", other: "dict[str, torch.Tensor]") -> bool:
    return list(state_dict) == list(other) and all(torch.equal(tensor, other[name]) for name, tensor in state_dict.items())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A model's folder with safetensors files, and compressed."""
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "model-bs")
    return tmp_path / "model", tmp_path / "model-bs"


def test_files_and_folders(folders: tuple[Path, Path]) -> None:
    original, packed = folders
    expected = bigsmall.load(packed)
    assert equal(bigsmall.from_pretrained(packed), expected)
    assert equal(bigsmall.from_pretrained(str(original)), expected)
    shard = next(iter(packed.glob("*.bs")))
    assert equal(bigsmall.from_pretrained(shard), bigsmall.load(shard))
    assert next(iter(bigsmall.from_pretrained(packed, device="meta").values())).device.type == "meta"


def test_repositories(folders: tuple[Path, Path], hub: Hub) -> None:
    original, packed = folders
    hub.add_folder("states/packed", packed)
    hub.add_folder("states/plain", original)
    for repo in ("states/packed", "states/plain"):
        assert equal(bigsmall.from_pretrained(repo), bigsmall.load(packed))
    assert not [name for name in hub.downloads() if name.endswith(".json") and "index" not in name]
    hub.reset()
    assert equal(bigsmall.from_pretrained("states/packed", local_files_only=True), bigsmall.load(packed))
    assert hub.requests == []


def test_what_is_not_there(hub: Hub, tmp_path: Path) -> None:
    for place in (tmp_path / "nothing", "./nothing/at/all", "no such name"):
        with pytest.raises(FileNotFoundError, match=r"nothing|no such name"):
            bigsmall.from_pretrained(place)
    with pytest.raises(OSError, match="states/nothing"):
        bigsmall.from_pretrained("states/nothing")
    with pytest.raises(TypeError, match="colour"):
        bigsmall.from_pretrained(tmp_path, colour="red")
