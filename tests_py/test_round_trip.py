"""What goes in comes back, for every dtype, shape and mode."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from bigsmall.dtypes import array_shape
from models import BITS, DTYPES, Raw, safetensors_bytes, weights, write_safetensors

SHAPES = ((), (0,), (3, 0, 2), (1,), (8,), (64, 48), (2, 4, 5, 8), (3, 1000))


def tensors_of(dtype: str) -> dict[str, Raw]:
    """One tensor of each shape that fills whole bytes."""
    return {f"t{shape}": weights(dtype, *shape) for shape in SHAPES if np.prod(shape, dtype=int) * BITS[dtype] % 8 == 0}


@pytest.mark.parametrize("mode", ["balanced", "storage", "inference"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_as_arrays_and_as_the_same_file(tmp_path: Path, dtype: str, mode: str) -> None:
    tensors = tensors_of(dtype)
    source = write_safetensors(tmp_path / "a.safetensors", tensors, {"dtype": dtype})
    facts = bigsmall.compress(source, tmp_path / "a.bs", mode=mode)
    assert facts["source_bytes"] == source.stat().st_size
    assert facts["compressed_bytes"] == (tmp_path / "a.bs").stat().st_size <= source.stat().st_size * 1.0001 + 4096
    assert facts["n_tensors"] == len(tensors)

    arrays = bigsmall.decompress(tmp_path / "a.bs")
    assert list(arrays) == list(tensors)
    for name, raw in tensors.items():
        assert arrays[name].tobytes() == raw.data
        assert arrays[name].shape == array_shape(dtype, raw.shape)
        assert arrays[name].flags.writeable
        assert arrays[name].flags.c_contiguous

    bigsmall.decompress(tmp_path / "a.bs", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("BF16", "uint16"),
        ("F8_E4M3", "uint8"),
        ("F8_E8M0", "uint8"),
        ("F32", "float32"),
        ("BOOL", "bool"),
        ("C64", "complex64"),
        ("U64", "uint64"),
    ],
)
def test_array_dtypes(tmp_path: Path, dtype: str, expected: str) -> None:
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": weights(dtype, 4, 4)}), tmp_path / "a.bs")
    assert bigsmall.decompress(tmp_path / "a.bs")["x"].dtype == expected


def test_shapes_where_elements_share_bytes() -> None:
    assert array_shape("F4", (3, 8)) == (3, 4)
    assert array_shape("F4", (2, 3)) == (3,)
    assert array_shape("F4", (0,)) == (0,)
    assert array_shape("F6_E2M3", (2, 4)) == (6,)
    assert array_shape("BF16", ()) == ()


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {"format": "pt"}, {"z": "last first", "a": 'quote " and \\', "é": "日本語 \U0001f600", "ctrl": "\n\t\x01"}],
    ids=["none", "empty", "plain", "odd"],
)
def test_metadata_and_odd_names_survive(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    tensors = {"": weights("F32", 3), "a.b": weights("I8", 5), 'né "quoted" \\ name': weights("BF16", 2, 2), " blank ": weights("U8", 0)}
    source = write_safetensors(tmp_path / "a.safetensors", tensors, metadata)
    bigsmall.compress(source, tmp_path / "a.bs")
    bigsmall.decompress(tmp_path / "a.bs", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == source.read_bytes()
    with bigsmall.safe_open(tmp_path / "a.bs", "np") as f:
        assert f.metadata() == metadata
        assert f.offset_keys() == list(tensors)


def test_a_header_laid_out_by_hand_survives(tmp_path: Path) -> None:
    """Blanks, key order and padding of the source are part of the file."""
    text = b'{ "b":{"shape":[2],"dtype":"F32","data_offsets":[4,12]} ,\n "a":{"data_offsets":[0,4],"dtype":"F32","shape":[]} }  \n'
    source = tmp_path / "a.safetensors"
    source.write_bytes(len(text).to_bytes(8, "little") + text + bytes(range(12)))
    bigsmall.compress(source, tmp_path / "a.bs")
    bigsmall.decompress(tmp_path / "a.bs", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == source.read_bytes()


def test_no_tensors_at_all(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", {}, {"only": "metadata"})
    bigsmall.compress(source, tmp_path / "a.bs")
    assert bigsmall.decompress(tmp_path / "a.bs") == {}
    bigsmall.decompress(tmp_path / "a.bs", tmp_path / "b.safetensors")
    assert (tmp_path / "b.safetensors").read_bytes() == source.read_bytes()
    assert bigsmall.info(tmp_path / "a.bs")["tensor_count"] == 0


def test_tied_tensors_are_stored_once_and_do_not_share_memory(compressed: Path, tensors: dict[str, Raw]) -> None:
    rows = {row["name"]: row for row in bigsmall.stat(compressed)}
    assert rows["lm_head.weight"]["tied_to"] == "model.embed_tokens.weight"
    arrays = bigsmall.decompress(compressed)
    arrays["lm_head.weight"][:] = 0
    assert arrays["model.embed_tokens.weight"].tobytes() == tensors["model.embed_tokens.weight"].data


@pytest.mark.parametrize("mode", ["balanced", "storage", "inference"])
def test_threads_do_not_change_the_output(tmp_path: Path, source: Path, mode: str) -> None:
    digests = set()
    for threads in (1, 2, 5):
        bigsmall.compress(source, tmp_path / "x.bs", mode=mode, threads=threads, force=True)
        digests.add(hashlib.sha256((tmp_path / "x.bs").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_default_output_lies_beside_the_source(source: Path) -> None:
    facts = bigsmall.compress(source)
    assert facts["outputs"] == [str(source.with_suffix(".bs"))]
    assert source.with_suffix(".bs").exists()


def test_in_memory_and_on_disk_are_the_same(source: Path, compressed: Path) -> None:
    from bigsmall import _core

    assert _core.compress_bytes(source.read_bytes()) == compressed.read_bytes()
    assert _core.decompress_bytes(compressed.read_bytes()) == source.read_bytes()


def test_the_order_of_data_is_that_of_the_source(tmp_path: Path) -> None:
    """safetensors' own writer sorts by dtype and name; other writers do not."""
    tensors = {"z": weights("U8", 4), "a": weights("F64", 4), "m": weights("BF16", 4)}
    source = tmp_path / "a.safetensors"
    source.write_bytes(safetensors_bytes(tensors))
    bigsmall.compress(source)
    assert list(bigsmall.decompress(tmp_path / "a.bs")) == ["z", "a", "m"]
