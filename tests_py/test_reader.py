"""The core's reader: objects as sources, memory that is there as output, ranges that are held."""

import gc
import threading
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from models import Raw, weights, write_safetensors


class Source:
    """A file of the disk, read the way a file of the network is. Counts what is asked of it."""

    def __init__(self, path: Path) -> None:
        self.path = f"hub:{path.name}"
        self._bytes = path.read_bytes()
        self.n_bytes = len(self._bytes)
        self.reads: list[tuple[int, int]] = []

    def read_at(self, offset: int, n_bytes: int) -> memoryview:
        self.reads.append((offset, n_bytes))
        return memoryview(self._bytes)[offset : offset + n_bytes]


def test_an_object_is_a_source(compressed: Path, tensors: dict[str, Raw]) -> None:
    reader = bigsmall.Reader(Source(compressed))
    assert reader.path == "hub:model.bs"
    assert reader.file_bytes == compressed.stat().st_size
    assert {name: bytes(memoryview(reader.tensor(name))) for name in reader.keys()} == {name: raw.data for name, raw in tensors.items()}  # noqa: SIM118
    del reader
    gc.collect()


def test_what_a_source_raises_comes_out(compressed: Path) -> None:
    class Cut(Source):
        def read_at(self, offset: int, n_bytes: int) -> memoryview:
            if offset > 100:
                raise ConnectionResetError("the other side hung up")
            return super().read_at(offset, n_bytes)

    with pytest.raises(ConnectionResetError, match="the other side hung up"):
        bigsmall.Reader(Cut(compressed)).tensors()


def test_a_source_that_gives_too_little(compressed: Path) -> None:
    class Short(Source):
        def read_at(self, offset: int, n_bytes: int) -> memoryview:
            return super().read_at(offset, n_bytes - 1)

    with pytest.raises(bigsmall.FormatError, match=r"hub:model.bs: 9 bytes were read at 0 where 10 were asked for"):
        bigsmall.Reader(Short(compressed))
    with pytest.raises(TypeError):
        bigsmall.Reader(object())


@pytest.fixture
def large(tmp_path: Path) -> dict[str, Raw]:
    """Tensors with blobs of their own, in large.bs."""
    tensors = {name: weights("BF16", 512, 512, seed=seed) for seed, name in enumerate("abc")}
    bigsmall.compress(write_safetensors(tmp_path / "large.safetensors", tensors), tmp_path / "large.bs")
    return tensors


def test_a_held_tensor_is_not_read_again(tmp_path: Path, large: dict[str, Raw]) -> None:
    source = Source(tmp_path / "large.bs")
    reader = bigsmall.Reader(source)
    names = ["b", "c"]
    (start, stop), *_ = reader.stored_ranges(names)
    assert 0 < start < stop <= source.n_bytes
    source.reads.clear()
    n_held = reader.hold(names)
    assert source.reads == [(a, b - a) for a, b in reader.stored_ranges(names)]
    assert n_held == sum(b - a for a, b in reader.stored_ranges(names))
    assert reader.hold(names) == 0
    source.reads.clear()
    for name in names:
        assert bytes(memoryview(reader.tensor(name))) == large[name].data
    assert source.reads == []
    reader.release(names)
    reader.tensor(names[0])
    assert source.reads != []
    with pytest.raises(bigsmall.MissingTensorError):
        reader.hold(["nonsense"])


def test_decoding_into_memory_that_is_there(compressed: Path, tensors: dict[str, Raw]) -> None:
    reader = bigsmall.Reader(compressed)
    for threads in (0, 1):
        out = [np.full(len(raw.data), 0xAA, "u1") for raw in tensors.values()]
        assert reader.read_into(list(tensors), out, threads=threads) == [None] * len(tensors)
        assert [array.tobytes() for array in out] == [raw.data for raw in tensors.values()]


def test_outputs_that_do_not_fit(compressed: Path, tensors: dict[str, Raw]) -> None:
    reader = bigsmall.Reader(compressed)
    name = "model.norm.weight"
    n_bytes = len(tensors[name].data)
    whole = np.zeros(3 * n_bytes, "u1")
    with pytest.raises(bigsmall.OptionError, match=rf"{n_bytes - 1} bytes of memory were given for {n_bytes}"):
        reader.read_into([name], [whole[1:n_bytes]])
    with pytest.raises(bigsmall.OptionError, match="not as many outputs"):
        reader.read_into([name], [])
    with pytest.raises(BufferError, match="C order"):
        reader.read_into([name], [whole[: 2 * n_bytes : 2]])
    with pytest.raises(BufferError, match="share memory"):
        reader.read_into([name, name], [whole[:n_bytes], whole[n_bytes - 1 : 2 * n_bytes - 1]])
    with pytest.raises(AttributeError):
        reader.read_into([name], [bytearray(n_bytes)])
    whole.flags.writeable = False
    with pytest.raises(BufferError):
        reader.read_into([name], [whole[:n_bytes]])
    assert not whole.any()


def test_a_damaged_tensor_is_its_error(tmp_path: Path, large: dict[str, Raw]) -> None:
    path = tmp_path / "large.bs"
    ((_, stop),) = bigsmall.Reader(path).stored_ranges(["b"])
    damaged = bytearray(path.read_bytes())
    damaged[stop - 100] ^= 1
    path.write_bytes(damaged)
    out = [np.zeros(len(raw.data), "u1") for raw in large.values()]
    fine, error, fine_too = bigsmall.Reader(path).read_into(list(large), out)
    assert isinstance(error, bigsmall.CorruptError)
    assert (error.tensor, error.path) == ("b", str(path))
    assert (fine, fine_too) == (None, None)
    assert out[0].tobytes() == large["a"].data
    assert out[2].tobytes() == large["c"].data


def test_threads_share_a_source(compressed: Path, tensors: dict[str, Raw]) -> None:
    reader = bigsmall.Reader(Source(compressed))
    wrong: list[str] = []

    def read() -> None:
        for name, raw in tensors.items():
            if bytes(memoryview(reader.tensor(name))) != raw.data:
                wrong.append(name)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
