"""`Tensor`, the core's own object: buffer and DLPack protocols."""

import gc
import sys
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from models import Raw, weights, write_safetensors

KNOWN_TO_NUMPY = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64", "C64")


def decoded(directory: Path, raw: Raw) -> "bigsmall._core.Tensor":
    bigsmall.compress(write_safetensors(directory / "a.safetensors", {"x": raw}), directory / "a.bs", force=True)
    return bigsmall.Reader(directory / "a.bs").tensor("x")


def test_what_it_says_of_itself(tmp_path: Path) -> None:
    tensor = decoded(tmp_path, weights("BF16", 3, 5))
    assert (tensor.dtype, tensor.shape, tensor.nbytes, len(tensor)) == ("BF16", (3, 5), 30, 3)
    with pytest.raises(TypeError):
        len(decoded(tmp_path, weights("BF16")))


def test_the_buffer_is_writable_bytes(tmp_path: Path) -> None:
    raw = weights("F32", 4, 4)
    tensor = decoded(tmp_path, raw)
    view = memoryview(tensor)
    assert (view.nbytes, view.ndim, view.itemsize, view.readonly) == (64, 1, 1, False)
    assert bytes(view) == raw.data
    view[0] ^= 0xFF
    assert bytes(memoryview(tensor)) != raw.data


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (5,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", KNOWN_TO_NUMPY)
def test_dlpack_to_numpy_shares_memory(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    raw = weights(dtype, *shape)
    tensor = decoded(tmp_path, raw)
    array = np.from_dlpack(tensor)
    assert (array.shape, array.tobytes()) == (shape, raw.data)
    assert array.flags.writeable
    if array.size:
        assert np.shares_memory(array, np.frombuffer(tensor, np.uint8))


def test_dlpack_keeps_the_memory_alive(tmp_path: Path) -> None:
    raw = weights("F32", 500, 500)
    array = np.from_dlpack(decoded(tmp_path, raw))
    gc.collect()
    others = [bytearray(array.nbytes) for _ in range(20)]
    assert array.tobytes() == raw.data
    del others


def test_old_and_new_capsules(tmp_path: Path) -> None:
    tensor = decoded(tmp_path, weights("F32", 2))
    assert "dltensor_versioned" in repr(tensor.__dlpack__(max_version=(1, 0)))
    assert '"dltensor"' in repr(tensor.__dlpack__())
    assert '"dltensor"' in repr(tensor.__dlpack__(max_version=(0, 8)))
    assert tuple(tensor.__dlpack_device__()) == (1, 0)


def test_memory_comes_back(tmp_path: Path) -> None:
    """Hundreds of times the tensor, through every way out of it."""
    resource = pytest.importorskip("resource")
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": weights("U8", 4 << 20)}), tmp_path / "a.bs")
    reader = bigsmall.Reader(tmp_path / "a.bs")

    def use() -> None:
        tensor = reader.tensor("x")
        np.from_dlpack(tensor)
        memoryview(tensor)
        # Capsules that nobody takes.
        tensor.__dlpack__(max_version=(1, 0))
        tensor.__dlpack__()

    use()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(100):
        use()
    # KiB on Linux, bytes on macOS: less than a quarter of what would have leaked in either.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << (10 if sys.platform != "darwin" else 20)


def test_another_device_is_refused(tmp_path: Path) -> None:
    tensor = decoded(tmp_path, weights("F32", 2))
    with pytest.raises(BufferError):
        tensor.__dlpack__(dl_device=(2, 0))


def test_a_copy_is_left_to_the_caller(tmp_path: Path) -> None:
    tensor = decoded(tmp_path, weights("F32", 8))
    with pytest.raises(BufferError):
        np.from_dlpack(tensor, copy=True)
    assert np.from_dlpack(tensor, copy=False).tobytes() == bytes(memoryview(tensor))


def test_a_view_outlives_the_tensor(tmp_path: Path) -> None:
    raw = weights("F32", 64)
    tensor = decoded(tmp_path, raw)
    view = memoryview(tensor)
    del tensor
    gc.collect()
    assert bytes(view) == raw.data
