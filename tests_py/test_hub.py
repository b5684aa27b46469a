"""Compressed models on a Hub: read in parts, published, with all that can go wrong on the way."""

import json
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from bigsmall.hub import remote
from hub_server import Hub
from models import Raw, files_of, weights, write_model_dir, write_safetensors

torch = pytest.importorskip("torch")
pytest.importorskip("huggingface_hub")

# The Hub's client sends uploads in a way that its own HTTP package would rather not see.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def original(tmp_path: Path) -> dict[str, Raw]:
    """A sharded model in `model`, and compressed in `packed`."""
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    return tensors


def bytes_of(tensor: "torch.Tensor") -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def same(state_dict: dict[str, Any], tensors: dict[str, Raw]) -> bool:
    return {name: bytes_of(tensor) for name, tensor in state_dict.items()} == {name: raw.data for name, raw in tensors.items()}


def test_a_model_is_streamed_without_a_file(hub: Hub, tmp_path: Path, original: dict[str, Raw], monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_folder("me/streamed", tmp_path / "packed")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    reports: list[tuple[int, int]] = []
    state_dict = bigsmall.stream_from_hub("me/streamed", progress=lambda done, total: reports.append((done, total)))
    assert same(state_dict, original)
    assert not (tmp_path / "cache").exists()
    assert reports[-1][0] == reports[-1][1] == sum(len(raw.data) for raw in original.values())
    downloads = [request for request in hub.requests if "/resolve/" in request.path]
    assert all(request.range is not None for request in downloads)
    # Two shards: prefix, header, tables and the blobs, which lie together; and the index.
    assert len(downloads) <= 2 * 4 + 1


def test_only_what_is_asked_for_is_read(hub: Hub, tmp_path: Path) -> None:
    from bigsmall.hub.reading import remote_shards
    from bigsmall.hub.remote import listing

    tensors = {name: weights("BF16", 512, 512, seed=seed) for seed, name in enumerate("abc")}
    bigsmall.compress(write_safetensors(tmp_path / "model.safetensors", tensors), tmp_path / "model.bs")
    hub.add("me/parts", {"model.bs": (tmp_path / "model.bs").read_bytes()})
    shards = remote_shards(listing("me/parts"))
    hub.requests.clear()
    shards.hold(["b"])
    assert bytes(memoryview(shards.tensors(["b"])["b"])) == tensors["b"].data
    (request,) = hub.requests
    start, stop = (int(number) for number in str(request.range).removeprefix("bytes=").split("-"))
    assert stop - start < 0.4 * (tmp_path / "model.bs").stat().st_size


def test_dtype_and_cache(hub: Hub, tmp_path: Path, original: dict[str, Raw]) -> None:
    hub.add_folder("me/cached", tmp_path / "packed")
    cast = bigsmall.stream_from_hub("me/cached", dtype=torch.float32)
    assert {tensor.dtype for tensor in cast.values()} == {torch.float32}
    assert same(bigsmall.stream_from_hub("me/cached", cache=True), original)
    hub.requests.clear()
    assert same(bigsmall.stream_from_hub("me/cached", cache=True), original)
    assert hub.downloads() == []


@pytest.mark.parametrize("kind", ["cut", "busy", "short"])
def test_what_goes_wrong_once_is_tried_again(hub: Hub, tmp_path: Path, original: dict[str, Raw], kind: str) -> None:
    hub.add_folder("me/shaky", tmp_path / "packed")
    hub.fault(kind, "GET", r"\.bs$", times=2)
    assert same(bigsmall.stream_from_hub("me/shaky"), original)
    assert hub.faults == []


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("cut", ConnectionError, "the connection to the Hub failed"),
        ("busy", OSError, "the Hub answers 503"),
        ("short", OSError, r"the server gave 9 bytes as 'bytes 0-9/\d+' where 'bytes 0-9/\d+' was asked for"),
        ("whole", OSError, "the server does not give ranges of files"),
        ("refused", PermissionError, "the Hub answers 403"),
    ],
)
def test_what_goes_wrong_for_good_is_one_error(
    hub: Hub, tmp_path: Path, original: dict[str, Raw], kind: str, error: type[OSError], message: str
) -> None:
    hub.add_folder("me/broken", tmp_path / "packed")
    hub.fault(kind, "GET", r"\.bs$", times=remote.N_TRIES)
    with pytest.raises(error, match=message) as raised:
        bigsmall.stream_from_hub("me/broken")
    assert raised.value.filename == "me/broken/model-00001-of-00002.bs"


def test_repositories_that_will_not_do(hub: Hub, tmp_path: Path, original: dict[str, Raw]) -> None:
    packed = files_of(tmp_path / "packed")
    with pytest.raises(FileNotFoundError, match="no such repository") as raised:
        bigsmall.stream_from_hub("me/none")
    assert raised.value.filename == "me/none"
    hub.add("me/empty", {"config.json": b"{}"})
    with pytest.raises(FileNotFoundError, match=r"holds no \.bs files"):
        bigsmall.stream_from_hub("me/empty")
    hub.add("me/half", {name: data for name, data in packed.items() if name != "model-00002-of-00002.bs"})
    with pytest.raises(FileNotFoundError, match=r"lacks model-00002-of-00002\.bs, which its index names"):
        bigsmall.stream_from_hub("me/half")
    hub.add("me/nonsense", {**packed, "bigsmall.index.json": b"[]"})
    with pytest.raises(bigsmall.FormatError, match=r"me/nonsense/bigsmall\.index\.json: this is no index"):
        bigsmall.stream_from_hub("me/nonsense")
    shard = packed["model-00001-of-00002.bs"]
    for name, data, error in (
        ("me/truncated", shard[: len(shard) // 2], bigsmall.FormatError),
        ("me/damaged", shard[:-200] + bytes([shard[-200] ^ 1]) + shard[-199:], bigsmall.CorruptError),
        ("me/foreign", b"GGUF" + shard, bigsmall.FormatError),
    ):
        hub.add(name, {**packed, "model-00001-of-00002.bs": data})
        with pytest.raises(error, match=rf"{name}/model-00001-of-00002\.bs: "):
            bigsmall.stream_from_hub(name)


def test_a_hub_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{free.getsockname()[1]}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    with pytest.raises(ConnectionError, match="the connection to the Hub failed"):
        bigsmall.stream_from_hub("me/none")


def test_offline_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="HF_HUB_OFFLINE"):
        bigsmall.stream_from_hub("me/none")


@pytest.mark.parametrize("upload", [bigsmall.upload_to_hub, bigsmall.upload_to_hub_lfs])
def test_there_and_back(hub: Hub, tmp_path: Path, original: dict[str, Raw], upload: Any) -> None:
    url = upload(tmp_path / "packed", "me/uploaded", token="hf_x")
    assert url.endswith("me/uploaded")
    assert hub.repos["me/uploaded"] == {name.replace("\\", "/"): data for name, data in files_of(tmp_path / "packed").items()}
    assert same(bigsmall.stream_from_hub("me/uploaded"), original)
    with bigsmall.StreamingLoader("me/uploaded") as loader:
        assert loader.layer_count == 2
        assert bytes_of(loader.load_tensor("model.norm.weight")) == original["model.norm.weight"].data
    layers = bigsmall.decompress_layers("me/uploaded", [1], include_non_layer=True)
    assert set(layers) == {name for name in original if ".layers.0." not in name}
    hub.requests.clear()
    upload(tmp_path / "packed", "me/uploaded", token="hf_x")
    assert not [request for request in hub.requests if request.method == "PUT"]


def test_an_upload_that_breaks_off_goes_on(hub: Hub, tmp_path: Path, original: dict[str, Raw]) -> None:
    hub.fault("none", "PUT", "/lfs/")
    hub.fault("refused", "PUT", "/lfs/")
    with pytest.raises(PermissionError, match="403"):
        bigsmall.upload_to_hub_lfs(tmp_path / "packed", "me/resumed", token="hf_x")
    assert [name for name in hub.repos["me/resumed"] if name.endswith(".bs")] == ["model-00001-of-00002.bs"]
    assert "bigsmall.index.json" not in hub.repos["me/resumed"]
    hub.requests.clear()
    bigsmall.upload_to_hub_lfs(tmp_path / "packed", "me/resumed", token="hf_x")
    assert len([request for request in hub.requests if request.method == "PUT"]) == 1
    assert hub.repos["me/resumed"] == files_of(tmp_path / "packed")


def test_what_cannot_be_uploaded(hub: Hub, tmp_path: Path, original: dict[str, Raw]) -> None:
    for upload in (bigsmall.upload_to_hub, bigsmall.upload_to_hub_lfs):
        with pytest.raises(FileNotFoundError):
            upload(tmp_path / "none", "me/x")
        with pytest.raises(FileNotFoundError, match=r"\.bs"):
            upload(tmp_path / "model", "me/x")
        with pytest.raises(NotADirectoryError):
            upload(tmp_path / "packed" / "model-00001-of-00002.bs", "me/x")
    (tmp_path / "packed" / "model-00002-of-00002.bs").unlink()
    with pytest.raises((FileNotFoundError, bigsmall.FormatError), match="model-00002-of-00002"):
        bigsmall.upload_to_hub(tmp_path / "packed", "me/x")
    assert hub.repos == {}


def test_a_model_of_the_hub_is_compressed(hub: Hub, tmp_path: Path, original: dict[str, Raw]) -> None:
    hub.add_folder("me/source", tmp_path / "model")
    folder = bigsmall.compress_for_hub("me/source", tmp_path / "for-hub")
    assert same(bigsmall.load(folder), original)
    assert json.loads((folder / "config.json").read_text()) == {"model_type": "llama"}
    assert same(bigsmall.load(bigsmall.compress_for_hub(tmp_path / "model", tmp_path / "local")), original)
    assert same(bigsmall.load(bigsmall.compress_from_hub("me/source", tmp_path / "one.bs")), original)
    assert (bigsmall.compress_from_hub("me/source", tmp_path / "folder") / "config.json").exists()
    with pytest.raises(FileExistsError):
        bigsmall.compress_from_hub("me/source", tmp_path / "one.bs")
    with pytest.raises(FileNotFoundError, match="no such repository"):
        bigsmall.compress_from_hub("me/none", tmp_path / "none.bs")
    hub.add("me/empty", {"config.json": b"{}"})
    with pytest.raises(FileNotFoundError, match="no safetensors files"):
        bigsmall.compress_from_hub("me/empty", tmp_path / "none.bs")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "for-hub", "local", "model", "one.bs", "packed"]


def test_layers_that_do_not_exist(tmp_path: Path, original: dict[str, Raw]) -> None:
    with pytest.raises(ValueError, match=r"there is no layer 2: .*packed has 2"):
        bigsmall.decompress_layers(tmp_path / "packed", [0, 2])
    assert {tensor.dtype for tensor in bigsmall.decompress_layers(tmp_path / "packed", [0], dtype=torch.float32).values()} == {
        torch.float32
    }


def test_what_the_readme_shows(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its other programs run without a Hub: see test_pages."""
    pytest.importorskip("transformers")
    readme = Path(__file__).resolve().parent.parent / "README.md"
    programs = re.findall(r"^```py\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    (program,) = [program for program in programs if "upload_to_hub" in program]
    data = Path(bigsmall.__file__).parent / "data"
    bigsmall.compress(shutil.copytree(data, tmp_path / "llama"), tmp_path / "llama-bs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_x")
    hub.user = "you"
    found: dict[str, Any] = {"bigsmall": bigsmall}
    exec(program, found)
    assert len(found["state_dict"]) == 39
    assert found["model"].streaming.layer_names == [f"model.layers.{i}" for i in range(4)]


def test_repositories_without_compressed_weights(hub: Hub, tmp_path: Path, original: dict[str, Raw]) -> None:
    hub.add("me/bare", {"config.json": b"{}"})
    hub.add_folder("me/original", tmp_path / "model")
    for repo, message in (("me/bare", r"neither \.bs nor \.safetensors"), ("me/original", r"\.bs files")):
        for use in (bigsmall.StreamingLoader, bigsmall.BigSmallStreamingModel.from_pretrained):
            with pytest.raises(FileNotFoundError, match=message):
                use(repo)


def test_without_the_hubs_client(tmp_path: Path, original: dict[str, Raw], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for use in (
        lambda: bigsmall.stream_from_hub("me/x"),
        lambda: bigsmall.StreamingLoader("me/x"),
        lambda: bigsmall.compress_from_hub("me/x", tmp_path / "x.bs"),
        lambda: bigsmall.upload_to_hub(tmp_path / "packed", "me/x"),
    ):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'bigsmall\[hf\]'"):
            use()
