"""The Hub on loopback, as its own client sees it."""

from pathlib import Path

import pytest

from hub_server import Hub

huggingface_hub = pytest.importorskip("huggingface_hub")

FILES = {"config.json": b"{}", "model.bs": bytes(range(256)) * 4, "unet/config.json": b"[]"}


@pytest.fixture
def repo(hub: Hub) -> str:
    hub.add("served/model", FILES)
    return "served/model"


def test_a_snapshot_holds_every_file(repo: str, hub: Hub, tmp_path: Path) -> None:
    for _ in range(2):
        folder = Path(huggingface_hub.snapshot_download(repo, cache_dir=tmp_path))
        assert {name: (folder / name).read_bytes() for name in FILES} == FILES
        assert folder.name == hub.commit(repo)
    assert sorted(hub.downloads()) == sorted(FILES)


def test_parts_of_files(repo: str, hub: Hub) -> None:
    files = huggingface_hub.HfFileSystem()
    with files.open(f"{repo}/model.bs", "rb", block_size=16) as file:
        file.seek(300)
        assert file.read(8) == FILES["model.bs"][300:308]
    assert any(request.range for request in hub.requests)


def test_what_is_not_there(repo: str, tmp_path: Path) -> None:
    with pytest.raises(huggingface_hub.errors.EntryNotFoundError):
        huggingface_hub.hf_hub_download(repo, "nope.bs", cache_dir=tmp_path)
    with pytest.raises(huggingface_hub.errors.RepositoryNotFoundError):
        huggingface_hub.hf_hub_download("served/nothing", "model.bs", cache_dir=tmp_path)
    assert not huggingface_hub.HfApi().repo_exists("served/nothing")


def test_facts(repo: str) -> None:
    api = huggingface_hub.HfApi()
    assert api.list_repo_files(repo) == list(FILES)
    (info,) = api.get_paths_info(repo, ["model.bs"])
    assert info.size == len(FILES["model.bs"])
    assert [model.id for model in api.list_models(author="served")] == [repo]
