"""Files that the published package reads, read by that package itself: three releases, in environments of their own."""

import hashlib
import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bigsmall
import child
import environment
from models import BITS, Raw, files_of, weights, write_model_dir, write_safetensors
from rivals import published as rival

HERE = Path(__file__).resolve().parent

RETURNED = ("BF16", "F16", "F32", "F8_E4M3", "F8_E5M2", "I64", "I32", "I16", "I8", "U8", "U16", "BOOL")
"""Dtypes that the published package gives back."""

Published = Callable[..., dict[str, Any]]


@pytest.fixture(params=rival.VERSIONS)
def published(request: pytest.FixtureRequest) -> Published:
    """Calls a function of `published_package` under a release of the published package."""
    python = environment.installed(rival.environment_name(request.param), rival.requirements(request.param))
    if python is None:
        pytest.skip(f"bigsmall {request.param} is not installed: bench/install_published.py does that")

    def call(function: str, **arguments: object) -> dict[str, Any]:
        given = {name: str(value) for name, value in arguments.items()}
        return child.call(f"published_package:{function}", given, python, {"PYTHONPATH": str(HERE)})

    return call


def told(tensors: Mapping[str, Raw]) -> dict[str, list[Any]]:
    """What the package is to tell of these: a tensor without dimensions gets one."""
    return {name: [list(raw.shape) or [1], hashlib.sha256(raw.data).hexdigest()] for name, raw in tensors.items()}


def of_every_kind() -> dict[str, Raw]:
    """Tensors of all dtypes that come back, of shapes and values that each codec is made for, and those that are awkward."""
    rng = np.random.default_rng(5)
    tensors = {}
    for dtype in RETURNED:
        width = BITS[dtype] // 8
        most = 2 if dtype == "BOOL" else 256
        for shape in ((), (1,), (5,), (300, 7), (257, 129)):
            tensors[f"{dtype}.{shape}"] = weights(dtype, *shape)
        tensors[f"{dtype}.empty"] = Raw(dtype, (0, 3), b"")
        tensors[f"{dtype}.noise"] = Raw(dtype, (5000,), rng.integers(0, most, 5000 * width, "u1").tobytes())
        words = rng.integers(0, most, (4, width), "u1")
        tensors[f"{dtype}.few"] = Raw(dtype, (100, 8), words[rng.integers(0, 4, 800)].tobytes())
        tensors[f"{dtype}.zeros"] = Raw(dtype, (1000, 8), bytes(8000 * width))
        tensors[f"{dtype}.tied"] = tensors[f"{dtype}.(257, 129)"]
        tensors[f"{dtype}.reshaped"] = tensors[f"{dtype}.(257, 129)"]._replace(shape=(129, 257))
    tensors['names: ünï中 "\\ \n'] = weights("BF16", 40, 3, seed=9)
    return tensors


def test_files_of_every_dtype(published: Published, tmp_path: Path) -> None:
    tensors = of_every_kind()
    source = write_safetensors(tmp_path / "model.safetensors", tensors, {"format": "pt", "née": "中"})
    bigsmall.compress(source, format="v1")
    assert published("decompressed", path=tmp_path / "model.bs") == told(tensors)


def test_directories(published: Published, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed", format="v1")
    read = published("loaded", directory=tmp_path / "packed")
    assert read.pop("") == told(tensors)
    assert read.keys() == {"model-00001-of-00002.bs", "model-00002-of-00002.bs"}
    assert {name: one for shard in read.values() for name, one in shard.items()} == told(tensors)
    written = set(files_of(tmp_path / "packed"))
    kept = {"config.json", "tokenizer.json", "1_Pooling/config.json", "bigsmall.index.json"}
    assert written == {*kept, "model-00001-of-00002.bs", "model-00002-of-00002.bs"}


def test_files_of_the_package(published: Published, tmp_path: Path) -> None:
    """The other direction: what the package makes of the same tensors opens here."""
    tensors = {name: raw for name, raw in of_every_kind().items() if raw.shape}
    source = write_safetensors(tmp_path / "model.safetensors", tensors)
    published("compress", source=source, target=tmp_path / "model.bs")
    assert bigsmall.Reader(tmp_path / "model.bs").version in (1, 2)
    assert read(tmp_path / "model.bs") == tensors
    assert bigsmall.verify(tmp_path / "model.bs")["ok"]


def test_directories_of_the_package(published: Published, tmp_path: Path) -> None:
    """Later releases leave out tensors that are equal, and name them in the index alone."""
    tensors = write_model_dir(tmp_path / "model")
    published("compress_directory", source=tmp_path / "model", target=tmp_path / "packed")
    assert bigsmall.verify(tmp_path / "packed")["ok"]
    shards = sorted((tmp_path / "packed").glob("*.bs"))
    assert {name: raw for shard in shards for name, raw in read(shard).items()} == tensors
    bigsmall.migrate(tmp_path / "packed")
    bigsmall.decompress(tmp_path / "packed", tmp_path / "back")
    assert {name: raw for shard in shards for name, raw in read(shard).items()} == tensors
    assert {path.name for path in (tmp_path / "back").glob("model*")} == {path.name for path in (tmp_path / "model").glob("model*")}


def read(path: Path) -> dict[str, Raw]:
    reader = bigsmall.Reader(path)
    entries = {entry["name"]: entry for entry in reader.entries()}
    return {name: Raw(entry["dtype"], tuple(entry["shape"]), bytes(reader.tensor(name))) for name, entry in entries.items()}


def test_files_come_back_here_byte_for_byte(tmp_path: Path) -> None:
    """The order of the source included, also where tensors lie at no multiples of their elements' sizes, and headers like no writer's."""
    tensors = of_every_kind()
    source = write_safetensors(tmp_path / "model.safetensors", tensors, {"z": "1", "a": "ü"})
    data = source.read_bytes()
    n_bytes = int.from_bytes(data[:8], "little")
    padded = tmp_path / "padded.safetensors"
    padded.write_bytes((n_bytes + 64).to_bytes(8, "little") + data[8 : 8 + n_bytes] + b" " * 64 + data[8 + n_bytes :])
    aligned = write_safetensors(tmp_path / "aligned.safetensors", {name: raw for name, raw in tensors.items() if "BF16" in name})
    for path in (source, padded, aligned):
        bigsmall.compress(path, format="v1")
        assert bigsmall.Reader(path.with_suffix(".bs")).version == 1
        bigsmall.decompress(path.with_suffix(".bs"), tmp_path / "back", force=True)
        assert (tmp_path / "back").read_bytes() == path.read_bytes()
        data = path.with_suffix(".bs").read_bytes()
        assert (b"source_header" in data[: int.from_bytes(data[6:10], "little")]) == (path != aligned)


def test_directories_come_back_here_byte_for_byte(tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed", format="v1")
    bigsmall.decompress(tmp_path / "packed", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "model")


def test_large_files(published: Published, tmp_path: Path) -> None:
    """Beyond 64 MiB the header is written into room that was left for it."""
    tensors = {str(i): Raw("I32", (1024, 1024), bytes([i, 0, 0, 0]) * 1024 * 1024) for i in range(17)}
    source = write_safetensors(tmp_path / "model.safetensors", tensors)
    bigsmall.compress(source, format="v1")
    assert published("decompressed", path=tmp_path / "model.bs") == told(tensors)


@pytest.mark.parametrize("dtype", sorted(set(BITS) - set(RETURNED)))
def test_dtypes_that_do_not_come_back_are_refused(dtype: str, tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "model.safetensors", {"fine": weights("F32", 4), "odd": weights(dtype, 8, 4)})
    with pytest.raises(bigsmall.OptionError, match=f"no {dtype}") as raised:
        bigsmall.compress(source, format="v1")
    assert (raised.value.tensor, raised.value.path) == ("odd", str(source))
    assert not (tmp_path / "model.bs").exists()


def test_the_same_bytes_on_any_number_of_threads(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "model.safetensors", of_every_kind())
    packed = []
    for threads in (1, 2, 5):
        bigsmall.compress(source, tmp_path / "model.bs", format="v1", threads=threads, force=True)
        packed.append((tmp_path / "model.bs").read_bytes())
    assert packed[0] == packed[1] == packed[2]


def test_the_header_says_what_the_package_expects(tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "model.bs", mode="storage", format="v1")
    data = (tmp_path / "model.bs").read_bytes()
    n_bytes = int.from_bytes(data[6:10], "little")
    assert data[:6] == b"BGSM\x01\x00"
    header = json.loads(data[10 : 10 + n_bytes])
    tensors = header.pop("tensors")
    assert header == {
        "format": "bf16",
        "mode": "storage",
        "model_type": "llm",
        "base_model": None,
        "tensor_count": len(tensors),
        "safetensors_metadata": {"format": "pt"},
        "codec_stats": {codec: sum(tensor["codec"] == codec for tensor in tensors) for codec in header["codec_stats"]},
    }
    assert sum(header["codec_stats"].values()) == len(tensors)
    end = 0
    for tensor in tensors:
        assert tensor["offset"] == end
        end += tensor["compressed_bytes"]
        assert len(tensor["md5"]) == 32
        assert prod(tensor["shape"]) > 0
    assert 10 + n_bytes + end == len(data)
