"""State dicts, and how the core's memory becomes torch's."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

import bigsmall
from bigsmall.dtypes import array_shape
from models import BITS, DTYPES, Raw, weights, write_model_dir, write_safetensors

torch = pytest.importorskip("torch")

TORCH_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F4": "float4_e2m1fn_x2",
    "F6_E2M3": "uint8",
    "F6_E3M2": "uint8",
}


def bytes_of(tensor: "torch.Tensor") -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_torchs_own(tmp_path: Path, dtype: str) -> None:
    shapes = [shape for shape in ((), (0,), (2, 0), (8,), (6, 8)) if (shape != () or BITS[dtype] % 8 == 0)]
    tensors = {str(shape): weights(dtype, *shape) for shape in shapes}
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    state_dict = bigsmall.load(tmp_path / "a.bs")
    assert list(state_dict) == list(tensors)
    for name, raw in tensors.items():
        tensor = state_dict[name]
        assert tensor.dtype == getattr(torch, TORCH_DTYPES[dtype], torch.uint8)
        assert tuple(tensor.shape) == array_shape(dtype, raw.shape)
        assert bytes_of(tensor) == raw.data
        assert tensor.device.type == "cpu"


@pytest.mark.parametrize("dtype", ["BF16", "F32", "F8_E4M3", "F6_E2M3", "U16"])
def test_nothing_is_copied(tmp_path: Path, dtype: str) -> None:
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": weights(dtype, 32, 32)}), tmp_path / "a.bs")
    from bigsmall.torch import to_tensor

    decoded = bigsmall.Reader(tmp_path / "a.bs").tensor("x")
    one, other = to_tensor(decoded), to_tensor(decoded)
    assert one.data_ptr() == other.data_ptr()
    assert one.data_ptr() % 64 == 0
    assert memoryview(decoded)[0] == one.flatten().view(torch.uint8)[0].item()
    one.flatten().view(torch.uint8)[0] = 77
    assert memoryview(decoded)[0] == 77


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3"])
def test_tensors_outlive_everything_they_came_from(tmp_path: Path, dtype: str) -> None:
    raw = weights(dtype, 256, 256)
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": raw}), tmp_path / "a.bs")
    tensor = bigsmall.load(tmp_path / "a.bs")["x"]
    (tmp_path / "a.bs").unlink()
    gc.collect()
    # Memory that had been freed would be taken again here.
    others = [bytearray(len(raw.data)) for _ in range(50)]
    assert bytes_of(tensor) == raw.data
    del others


def test_tensors_are_ordinary_ones(compressed: Path) -> None:
    weight = bigsmall.load(compressed)["model.layers.0.mlp.up_proj.weight"].float()
    parameter = torch.nn.Parameter(bigsmall.load(compressed)["model.norm.weight"])
    with torch.no_grad():
        parameter.mul_(2)
    x = torch.ones(1, 64, requires_grad=True)
    (x * parameter.float() @ weight.T).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_a_process_may_end_with_tensors_alive(compressed: Path) -> None:
    script = f"import bigsmall, sys; sys.tensors = bigsmall.load({str(compressed)!r}); sys.reader = bigsmall.Reader({str(compressed)!r})"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_a_device_is_taken_in_every_form(compressed: Path, tensors: dict[str, Raw]) -> None:
    for device in ("cpu", torch.device("cpu")):
        assert bigsmall.load(compressed, device=device).keys() == tensors.keys()
    assert {tensor.device.type for tensor in bigsmall.load(compressed, "meta").values()} == {"meta"}
    with pytest.raises(RuntimeError, match="nonsense"):
        bigsmall.load(compressed, "nonsense")


def test_loading_in_batches_is_loading(compressed: Path, tensors: dict[str, Raw]) -> None:
    """What a load to another device does to bound host memory."""
    from bigsmall.loading import decoded_tensors

    reports: list[tuple[int, int]] = []
    batched = decoded_tensors(compressed, batch_bytes=10_000, progress=lambda done, total: reports.append((done, total)))
    assert [(name, bytes(memoryview(tensor))) for name, tensor in batched] == [(name, raw.data) for name, raw in tensors.items()]
    assert [done for done, _ in reports] == sorted(done for done, _ in reports)
    assert reports[-1] == (reports[-1][1], sum(len(raw.data) for raw in tensors.values()))


def test_a_directory_is_one_state_dict(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    state_dict = bigsmall.load(tmp_path / "packed")
    assert {name: bytes_of(tensor) for name, tensor in state_dict.items()} == {name: raw.data for name, raw in tensors.items()}
