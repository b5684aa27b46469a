"""`safe_open` beside the one of safetensors, on the same data."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bigsmall
from models import Raw, weights, write_safetensors

safetensors = pytest.importorskip("safetensors", minversion="0.8")

TENSORS = {
    "matrix": weights("F32", 6, 8),
    "scalar": weights("F32"),
    "vector": weights("I64", 9),
    "cube": weights("BF16", 5, 4, 6),
    "fp8": weights("F8_E4M3", 8, 16),
    "scales": weights("F8_E8M0", 8),
    "mask": weights("BOOL", 4, 4),
    "complex": weights("C64", 3, 3),
    "tall": weights("BF16", 4000, 64),
}

# Numpy has no float8; safetensors refuses to load those tensors there.
NOT_IN_SAFETENSORS_NUMPY = {"fp8", "scales"}

# fmt: off
INDICES = [
    "...", "()", ":", "0", "3", "-1", "1:3", "2:", ":2", "0:0", "::2", "1:4:2", "...,0", "...,1:3", "0,...",
    "1:3,...", "2,3", "2,1:3", "1:3,2", "1:3,1:3", ":,::2", ":,1", ":,0:0", "0,...,0", "0,1,2", "1:,:2,::3",
    "...,0,0,0", "-2:", ":-1", "-3:-1", "3:1", ":,-2:", ":1000000", "1000000:", "-1000000:", "[]", "[0,1]", ":,[0,1]",
    "None", "None,1", "...,None", "1000000", "-1000000", ":,1000000", "0,0,0,0,0", "...,...", "'a'", "1.5", "::-1",
    "::0", "[1000000]",
]
# fmt: on


def indexed(tensor_slice: Any, index: str) -> Any:
    return eval(f"tensor_slice[{index}]", {"tensor_slice": tensor_slice})


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("safe_open")
    source = write_safetensors(directory / "a.safetensors", TENSORS, {"format": "pt", "x": "y"})
    bigsmall.compress(source, directory / "a.bs")
    return source, directory / "a.bs"


@pytest.fixture(params=["np", "pt"])
def opened(request: pytest.FixtureRequest, pair: tuple[Path, Path]) -> Any:
    """(theirs, ours, what makes two results comparable)"""
    if request.param == "pt":
        torch = pytest.importorskip("torch")
    else:
        # Gives numpy a bfloat16, without which safetensors refuses it.
        pytest.importorskip("ml_dtypes")

    def plain(result: Any) -> tuple[str, tuple[int, ...], bytes]:
        dtype = str(result.dtype)
        if request.param == "pt":
            data = (
                result.clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8).numpy().tobytes()
                if result.numel()
                else b""
            )
        else:
            data = result.tobytes()
            # Told in the documentation: numpy has no bfloat16 of its own, so its bits are shown.
            dtype = {"bfloat16": "uint16"}.get(dtype, dtype)
        return dtype, tuple(result.shape), data

    source, compressed = pair
    with safetensors.safe_open(source, request.param) as theirs, bigsmall.safe_open(compressed, request.param) as ours:
        yield theirs, ours, plain


def test_names_and_metadata(opened: Any) -> None:
    theirs, ours, _ = opened
    assert ours.keys() == list(theirs.keys())
    assert ours.offset_keys() == list(theirs.offset_keys())
    assert ours.metadata() == theirs.metadata()


@pytest.mark.parametrize("name", TENSORS)
def test_whole_tensors(opened: Any, name: str) -> None:
    theirs, ours, plain = opened
    assert ours.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
    assert ours.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()
    assert plain(ours.get_tensor(name))[2] == TENSORS[name].data
    try:
        expected = plain(theirs.get_tensor(name))
    except AttributeError:
        assert name in NOT_IN_SAFETENSORS_NUMPY
    else:
        assert plain(ours.get_tensor(name)) == expected


def test_results_are_arrays_in_c_order(opened: Any) -> None:
    _, ours, _ = opened
    for result in (
        ours.get_tensor("matrix"),
        *(indexed(ours.get_slice("cube"), index) for index in ("2", "1:3", "..., 0", ":, 1:3, ::2", "1, 2, 3")),
    ):
        assert type(result) is type(ours.get_tensor("scalar"))
        if isinstance(result, np.ndarray):
            assert result.flags.c_contiguous
            assert result.flags.writeable
        else:
            assert result.is_contiguous()


def test_all_tensors(opened: Any) -> None:
    _, ours, plain = opened
    tensors = ours.get_tensors()
    assert list(tensors) == ours.offset_keys()
    assert {name: plain(tensor)[2] for name, tensor in tensors.items()} == {name: raw.data for name, raw in TENSORS.items()}


@pytest.mark.parametrize("index", INDICES)
def test_slices(opened: Any, index: str) -> None:
    """What safetensors answers is our answer, and what torch or numpy refuses we refuse.

    Under torch, safetensors takes every index that torch takes; under numpy it refuses many, where we have numpy's answer.
    """
    theirs, ours, plain = opened
    for name in TENSORS.keys() - NOT_IN_SAFETENSORS_NUMPY:
        whole = ours.get_tensor(name)
        try:
            part = indexed(whole, index)
        except (IndexError, TypeError, ValueError, RuntimeError) as refusal:
            with pytest.raises((type(refusal), IndexError)):
                indexed(ours.get_slice(name), index)
            continue
        expected = plain(part)
        assert plain(indexed(ours.get_slice(name), index)) == expected, f"{name}[{index}]"
        try:
            theirs_plain = plain(indexed(theirs.get_slice(name), index))
        except (safetensors.SafetensorError, OverflowError, SystemError):
            continue
        assert theirs_plain == expected, f"{name}[{index}]"


@pytest.mark.parametrize("index", ["6", "-7", "0, 0, 0", "'a'", "1.5", "7, 0"])
def test_what_is_no_index(opened: Any, index: str) -> None:
    _, ours, _ = opened
    with pytest.raises((IndexError, TypeError)):
        indexed(ours.get_slice("matrix"), index)


def test_integers_and_arrays_of_numpy(opened: Any) -> None:
    _, ours, plain = opened
    part, whole = ours.get_slice("matrix"), ours.get_tensor("matrix")
    assert plain(part[np.int64(2)]) == plain(whole[2])
    assert plain(part[np.array([4, 1])]) == plain(whole[np.array([4, 1])])
    assert plain(part[np.array([True, False] * 3)]) == plain(whole[np.array([True, False] * 3)])


@pytest.mark.parametrize("verb", ["get_tensor", "get_slice"])
def test_a_name_that_is_not_there(opened: Any, verb: str) -> None:
    theirs, ours, _ = opened
    with pytest.raises(safetensors.SafetensorError, match="nope"):
        getattr(theirs, verb)("nope")
    with pytest.raises(bigsmall.MissingTensorError, match="nope") as caught:
        getattr(ours, verb)("nope")
    assert isinstance(caught.value, KeyError)
    assert caught.value.path.endswith("a.bs")


def test_closed_files(opened: Any) -> None:
    theirs, ours, plain = opened
    kept = ours.get_slice("matrix")
    theirs.__exit__(None, None, None)
    ours.__exit__(None, None, None)
    with pytest.raises(safetensors.SafetensorError, match="closed"):
        theirs.keys()
    for use in (
        ours.keys,
        ours.offset_keys,
        ours.metadata,
        ours.get_tensors,
        lambda: ours.get_tensor("matrix"),
        lambda: ours.get_slice("matrix"),
    ):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert plain(kept[...])[2] == TENSORS["matrix"].data


def test_no_with_statement_is_needed(pair: tuple[Path, Path]) -> None:
    assert bigsmall.safe_open(pair[1], "numpy").get_tensor("scalar").shape == ()


@pytest.mark.parametrize("arguments", [{"framework": "jax"}, {"framework": "np", "device": "cuda"}, {"framework": "np", "backend": "tape"}])
def test_what_cannot_be_asked_for(pair: tuple[Path, Path], arguments: dict[str, str]) -> None:
    with pytest.raises(bigsmall.OptionError):
        bigsmall.safe_open(pair[1], **arguments)


@pytest.mark.parametrize("framework", ["pt", "torch", "pytorch", "np", "numpy"])
@pytest.mark.parametrize("backend", ["mmap", "pread"])
def test_other_names(pair: tuple[Path, Path], framework: str, backend: str) -> None:
    if framework not in ("np", "numpy"):
        pytest.importorskip("torch")
    with bigsmall.safe_open(str(pair[1]), framework=framework, device="cpu", backend=backend) as f:
        assert list(f.get_tensor("vector").shape) == [9]


def test_devices(pair: tuple[Path, Path]) -> None:
    torch = pytest.importorskip("torch")
    with bigsmall.safe_open(pair[1], "pt", device="meta") as f:
        assert f.get_tensor("matrix").device == torch.device("meta")
        assert f.get_slice("matrix")[1:3].device == torch.device("meta")
        assert f.get_tensors()["matrix"].device == torch.device("meta")


@pytest.mark.parametrize("framework", ["np", "pt"])
def test_elements_that_share_bytes(tmp_path: Path, framework: str) -> None:
    if framework == "pt":
        pytest.importorskip("torch")
    tensors = {"f4": weights("F4", 6, 8), "f4 vector": weights("F4", 16), "f6": weights("F6_E3M2", 4, 8)}
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")

    def data(array: Any) -> bytes:
        return np.asarray(array if framework == "np" else array.view(dtype=__import__("torch").uint8)).tobytes()

    rows = np.frombuffer(tensors["f4"].data, np.uint8).reshape(6, 4)
    with bigsmall.safe_open(tmp_path / "a.bs", framework) as f:
        f4, vector, f6 = (f.get_slice(name) for name in tensors)
        assert f4.get_shape() == [6, 8]
        assert list(f4[1:3].shape) == [2, 4]
        assert data(f4[1:3]) == rows[1:3].tobytes()
        assert data(f4[2]) == rows[2].tobytes()
        assert data(f4[::2]) == rows[::2].tobytes()
        assert data(vector[...]) == tensors["f4 vector"].data
        assert data(f6[:]) == data(f6[:, :]) == data(f.get_tensor("f6")) == tensors["f6"].data
        for cut in (lambda: f4[:, 0], lambda: f4[0, 2:4], lambda: f4[..., 0], lambda: vector[3], lambda: vector[0:2], lambda: f6[0]):
            with pytest.raises(bigsmall.OptionError, match="share"):
                cut()


def test_rows_cost_only_the_blocks_that_hold_them(tmp_path: Path) -> None:
    raw = weights("BF16", 16384, 256)
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": raw}), tmp_path / "a.bs")
    with bigsmall.safe_open(tmp_path / "a.bs", "np") as f:
        part = f.get_slice("x")[8000:8010]
        assert part.tobytes() == raw.data[8000 * 512 : 8010 * 512]
        assert f._reader.bytes_read < f._reader.file_bytes / 4


def test_threads_may_share_a_file(pair: tuple[Path, Path]) -> None:
    """As transformers reads checkpoints."""
    with bigsmall.safe_open(pair[1], "np") as f, ThreadPoolExecutor(4) as pool:
        names = list(TENSORS) * 20
        results = pool.map(lambda name: (f.get_tensor(name).tobytes(), f.get_slice(name)[...].tobytes()), names)
        assert list(results) == [(TENSORS[name].data,) * 2 for name in names]


def test_a_damaged_tensor_does_not_hide_the_others(tmp_path: Path) -> None:
    tensors: dict[str, Raw] = {f"t{k}": weights("BF16", 300, 300, seed=k) for k in range(3)}
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    data = bytearray((tmp_path / "a.bs").read_bytes())
    data[-1000] ^= 1
    (tmp_path / "a.bs").write_bytes(data)
    with bigsmall.safe_open(tmp_path / "a.bs", "np") as f:
        assert f.get_tensor("t0").tobytes() == tensors["t0"].data
        with pytest.raises(bigsmall.CorruptError, match="t2"):
            f.get_tensor("t2")
        with pytest.raises(bigsmall.CorruptError, match="t2"):
            f.get_tensors()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_decodes_with_threads_of_its_own(tmp_path: Path) -> None:
    raw = weights("BF16", 1024, 1024)
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": raw}), tmp_path / "a.bs")
    reader = bigsmall.Reader(tmp_path / "a.bs")
    assert bytes(reader.tensor("x")) == raw.data
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        os._exit(0 if bytes(reader.tensor("x")) == raw.data else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_many_rows_are_decoded_by_all_cores(tmp_path: Path) -> None:
    raw = weights("BF16", 5000, 700)
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": raw}), tmp_path / "a.bs")
    reader = bigsmall.Reader(tmp_path / "a.bs")
    for start, stop in ((0, 5000), (1, 4999), (2500, 5000), (17, 17)):
        assert bytes(reader.rows("x", start, stop)) == raw.data[start * 1400 : stop * 1400]
