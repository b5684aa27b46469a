"""Tensors that are decoded when something is done with them, and ranks that decode only their part."""

from pathlib import Path

import pytest

import bigsmall
from models import weights, write_safetensors

torch = pytest.importorskip("torch")

N_ROWS, N_COLUMNS = 4096, 512
TENSORS = {
    "matrix": weights("BF16", N_ROWS, N_COLUMNS),
    "experts": weights("F16", 8, 512, 256),
    "fp8": weights("F8_E4M3", N_ROWS, N_COLUMNS),
    "fp4": weights("F4", N_ROWS, 2 * N_COLUMNS),
    "vector": weights("BF16", 1 << 20),
    "norm": weights("BF16", N_COLUMNS),
    "unwanted": weights("BF16", 16, 16),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deferred")
    bigsmall.compress(write_safetensors(folder / "a.safetensors", TENSORS), folder / "a.bs")
    return folder / "a.bs"


@pytest.fixture(scope="module")
def plain(file: Path) -> "dict[str, torch.Tensor]":
    return bigsmall.load(file)


def deferred(file: Path) -> "dict[str, torch.Tensor]":
    from bigsmall.deferred import deferred_weights

    return dict(deferred_weights(str(file), lambda name: name != "unwanted"))


def bytes_read(tensor: "torch.Tensor") -> int:
    return tensor._source._reader.bytes_read  # type: ignore[attr-defined, no-any-return]


def same(tensor: "torch.Tensor", other: "torch.Tensor") -> bool:
    assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape)
    raw = [one.contiguous().flatten().view(torch.uint8) for one in (tensor, other)]
    return torch.equal(*raw)


def test_large_tensors_wait_and_small_ones_do_not(file: Path, plain: "dict[str, torch.Tensor]") -> None:
    from bigsmall.deferred import DeferredTensor

    tensors = deferred(file)
    assert set(tensors) == set(TENSORS) - {"unwanted"}
    assert {name for name, tensor in tensors.items() if isinstance(tensor, DeferredTensor)} == {"matrix", "experts", "fp8", "fp4"}
    for name, tensor in tensors.items():
        assert isinstance(tensor, torch.Tensor)
        assert tensor.stride() == plain[name].stride()
        assert tensor.device == plain[name].device
        assert same(tensor, plain[name])
        assert same(tensor.data, plain[name])


@pytest.mark.parametrize("n_ranks", [2, 4])
def test_a_rank_reads_only_the_blocks_of_its_rows(file: Path, plain: "dict[str, torch.Tensor]", n_ranks: int) -> None:
    """As engines do: each rank narrows the tensor it is given, perhaps twice, and copies that into its parameter."""
    n_rows = N_ROWS // n_ranks
    for rank in range(n_ranks):
        tensor = deferred(file)["matrix"]
        before = bytes_read(tensor)
        assert before < 2000
        parameter = torch.nn.Parameter(torch.empty(n_rows, N_COLUMNS, dtype=torch.bfloat16), requires_grad=False)
        parameter.data.copy_(tensor.narrow(0, rank * n_rows, n_rows).narrow(0, 0, n_rows))
        assert same(parameter.data, plain["matrix"][rank * n_rows : (rank + 1) * n_rows])
        (entry,) = (entry for entry in tensor._source._reader.entries() if entry["name"] == "matrix")  # type: ignore[attr-defined]
        # A block at each end of the rows may hold others too.
        assert bytes_read(tensor) - before < entry["compressed_bytes"] * (1 / n_ranks + 0.1)


def test_whatever_is_done_with_one(file: Path, plain: "dict[str, torch.Tensor]") -> None:
    tensors = deferred(file)
    matrix, whole = tensors["matrix"], plain["matrix"]
    for name in ("matrix", "experts", "fp8", "fp4"):
        for index in (slice(3, 7), slice(-5, None), slice(5, 5), 4, -1, slice(0, 8, 2)):
            assert same(tensors[name][index], plain[name][index])
    assert same(matrix.narrow(1, 128, 128), whole.narrow(1, 128, 128))
    assert same(matrix[100:200][50:60], whole[150:160])
    assert same(matrix.detach()[7:9].clone(), whole[7:9])
    assert same(matrix.t(), whole.t())
    assert same(matrix.to(torch.float32), whole.float())
    assert same(matrix.view(-1, 64), whole.view(-1, 64))
    assert same(torch.cat([matrix, matrix]), torch.cat([whole, whole]))
    assert all(same(part, other) for part, other in zip(matrix.chunk(2), whole.chunk(2), strict=True))
    assert matrix[0, 0].item() == whole[0, 0].item()
    assert matrix[:2, :2].tolist() == whole[:2, :2].tolist()
    assert (deferred(file)["experts"].numpy() == plain["experts"].numpy()).all()
    assert "512" in repr(matrix)


def test_slices_of_a_file_read_only_the_blocks_of_their_rows(file: Path, plain: "dict[str, torch.Tensor]") -> None:
    """As transformers does with a model that is spread by its plan: it indexes the slices of a checkpoint."""
    from bigsmall.torch import lazy_tensors

    tensor = lazy_tensors([file])["matrix"]
    part = tensor[1024:2048, 0:N_COLUMNS]
    assert same(part, plain["matrix"][1024:2048])
    assert tensor._reader.bytes_read < 0.4 * len(TENSORS["matrix"].data) * 0.7
    assert same(tensor[0:N_ROWS, 128:256], plain["matrix"][:, 128:256])


def test_damage_is_told_when_it_is_met(file: Path, tmp_path: Path) -> None:
    data = bytearray(file.read_bytes())
    (entry,) = (entry for entry in bigsmall.Reader(file).entries() if entry["name"] == "matrix")
    (start, stop) = bigsmall.Reader(file).stored_ranges(["matrix"])[0]
    assert stop - start >= entry["compressed_bytes"]
    data[stop - 100] ^= 1
    (tmp_path / "bad.bs").write_bytes(data)
    tensor = deferred(tmp_path / "bad.bs")["matrix"]
    assert tensor[:16].clone().shape == (16, N_COLUMNS)
    with pytest.raises(bigsmall.CorruptError, match="matrix"):
        tensor.clone()
