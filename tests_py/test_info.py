"""`info`, `stat` and `scan`."""

import json
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from models import Raw, llama, weights, write_model_dir, write_safetensors


def test_info_of_a_file(source: Path, compressed: Path, tensors: dict[str, Raw]) -> None:
    facts = bigsmall.info(compressed)
    raw_bytes = sum(len(raw.data) for raw in tensors.values())
    assert json.loads(json.dumps(facts)) == facts
    assert facts["path"] == str(compressed)
    assert (facts["format"], facts["mode"], facts["version"]) == ("bf16", "balanced", bigsmall.FORMAT_VERSION)
    assert facts["metadata"] == {"format": "pt"}
    assert (facts["file_count"], facts["tensor_count"]) == (1, len(tensors))
    assert (facts["file_size"], facts["source_bytes"]) == (compressed.stat().st_size, source.stat().st_size)
    assert facts["raw_bytes"] == raw_bytes
    assert facts["ratio_pct"] == pytest.approx(100 * compressed.stat().st_size / source.stat().st_size)
    assert facts["dtypes"]["BF16"]["raw_bytes"] == raw_bytes
    assert sum(total["tensor_count"] for total in facts["codecs"].values()) == len(tensors)
    assert sum(total["compressed_bytes"] for total in facts["codecs"].values()) <= facts["file_size"]


def test_layers_and_what_streaming_them_needs(compressed: Path, tensors: dict[str, Raw]) -> None:
    facts = bigsmall.info(compressed)
    layer_bytes = sum(len(raw.data) for name, raw in tensors.items() if name.startswith("model.layers.0."))
    assert facts["layer_count"] == 2
    assert facts["largest_layer_raw_bytes"] == layer_bytes
    assert facts["non_layer_raw_bytes"] == facts["raw_bytes"] - 2 * layer_bytes
    assert facts["streaming_peak_ram_bytes"] == facts["raw_bytes"] - layer_bytes


def test_best_and_worst(tmp_path: Path) -> None:
    tensors = {
        "good": weights("BF16", 400, 400),
        "bad": weights("U8", 1 << 16),
        "none": weights("F32", 0),
        "same": weights("BF16", 400, 400),
    }
    tensors["bad"] = Raw("U8", (1 << 16,), __import__("random").Random(0).randbytes(1 << 16))
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    facts = bigsmall.info(tmp_path / "a.bs")
    assert [row["name"] for row in facts["best"]] == ["good", "bad"]
    assert [row["name"] for row in facts["worst"]] == ["bad", "good"]


def test_stat(compressed: Path, tensors: dict[str, Raw]) -> None:
    import hashlib

    rows = bigsmall.stat(compressed)
    assert [row["name"] for row in rows] == list(tensors)
    for row in rows:
        raw = tensors[row["name"]]
        assert (row["dtype"], tuple(row["shape"]), row["raw_bytes"]) == (raw.dtype, raw.shape, len(raw.data))
        assert row["md5"] == hashlib.md5(raw.data).hexdigest()
        assert row["ratio_pct"] == pytest.approx(100 * row["compressed_bytes"] / row["raw_bytes"])
        assert row["path"] == str(compressed)


def test_a_directory_counts_as_one_model(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    facts = bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    summary = bigsmall.info(tmp_path / "packed")
    assert (summary["file_count"], summary["tensor_count"], summary["layer_count"]) == (2, len(tensors), 2)
    assert summary["source_bytes"] == facts["source_bytes"]
    assert {row["name"] for row in bigsmall.stat(tmp_path / "packed")} == tensors.keys()
    assert len({row["path"] for row in bigsmall.stat(tmp_path / "packed")}) == 2


def test_scan_finds_narrow_values_in_wide_words(tmp_path: Path) -> None:
    bf16 = np.frombuffer(weights("BF16", 64, 64).data, "<u2").astype("<u4") << 16
    f16 = np.frombuffer(weights("F16", 64, 64).data, "<f2").astype("<f4")
    tensors = {
        "wide": weights("F32", 64, 64),
        "from bf16": Raw("F32", (64, 64), bf16.tobytes()),
        "from f16": Raw("F32", (64, 64), f16.tobytes()),
        "other": weights("I8", 7),
    }
    source = write_safetensors(tmp_path / "a.safetensors", tensors)
    facts = bigsmall.scan(source)
    assert json.loads(json.dumps(facts)) == facts
    assert facts["f32"] == {
        "n_tensors": 3,
        "n_bf16_native": 1,
        "n_f16_native": 1,
        "bf16_native_bytes": 16384,
        "f16_native_bytes": 16384,
        "raw_bytes": 49152,
    }
    assert (facts["n_shards"], facts["n_tensors"]) == (1, 4)
    assert facts["source_bytes"] == source.stat().st_size
    assert [row["name"] for row in facts["tensors"]] == list(tensors)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_estimate_is_near_the_truth(tmp_path: Path, dtype: str) -> None:
    source = write_safetensors(tmp_path / "a.safetensors", llama(2, 256, dtype))
    estimated = bigsmall.scan(source)["estimated_bytes"]
    actual = bigsmall.compress(source)["compressed_bytes"]
    assert estimated == pytest.approx(actual, rel=0.05)


@pytest.mark.parametrize("mode", ["balanced", "inference"])
def test_the_estimate_of_real_weights_is_within_half_a_point(shared_weights: Path, tmp_path: Path, mode: str) -> None:
    estimated = bigsmall.scan(shared_weights, mode=mode)["estimated_bytes"]
    facts = bigsmall.compress(shared_weights, tmp_path / "a.bs", mode=mode)
    assert abs(estimated - facts["compressed_bytes"]) < 0.005 * facts["source_bytes"]


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_the_estimate_of_minilm_is_within_half_a_point(minilm_dir: Path, tmp_path: Path, dtype: str) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    numpy_dtype = {"F32": np.float32, "BF16": ml_dtypes.bfloat16, "F16": np.float16}[dtype]
    tensors = safetensors.load_file(minilm_dir / "model.safetensors")
    cast = {name: array.astype(numpy_dtype) if array.dtype == np.float32 else array for name, array in tensors.items()}
    safetensors.save_file(cast, tmp_path / "model.safetensors")
    estimated = bigsmall.scan(tmp_path / "model.safetensors")["estimated_bytes"]
    facts = bigsmall.compress(tmp_path / "model.safetensors")
    assert abs(estimated - facts["compressed_bytes"]) < 0.005 * facts["source_bytes"]
