"""Files of the published Python package: those beside the repository by the digests in their manifest, a few of our own without it."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open as open_source

import bigsmall
from bigsmall.loading import decoded_tensors
from bigsmall.published import kv_entry
from hub_server import Hub

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden" / "published"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "published"
MANIFEST: dict[str, Any] = json.loads((SHARED / "MANIFEST.json").read_text()) if SHARED.exists() else {"files": []}
MODELS = [entry for entry in MANIFEST["files"] if not entry["file"].endswith((".ecc", ".progress", "/kv"))]

Cli = Callable[..., subprocess.CompletedProcess[str]]

needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the published package's files are not beside the repository")


def sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def expected(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: facts for source in entry["sources"] for name, facts in MANIFEST["sources"][source]["tensors"].items()}


@needs_shared
@pytest.mark.parametrize("entry", [entry for entry in MODELS if "base" not in entry], ids=lambda entry: entry["file"])
def test_every_tensor_is_the_one_that_was_compressed(entry: dict[str, Any], tmp_path: Path) -> None:
    path = SHARED / entry["file"]
    tensors = dict(decoded_tensors(path))
    facts = expected(entry)
    assert {name: (tensor.dtype, list(tensor.shape), sha256(tensor)) for name, tensor in tensors.items()} == {
        name: (one["dtype"], one["shape"], one["sha256"]) for name, one in facts.items()
    }
    assert bigsmall.verify(path)["ok"]
    assert {row["name"] for row in bigsmall.stat(path)} == set(facts)
    assert bigsmall.info(path)["version"] in (1, 2)
    if path.is_file():
        restored = tmp_path / "restored.safetensors"
        bigsmall.decompress(path, restored)
        with open_source(restored, framework="pt") as source:
            assert set(source.keys()) == set(facts)
            for name in source.keys():  # noqa: SIM118 - it is no dict
                if facts[name]["dtype"] not in ("F4", "F8_E8M0"):
                    assert source.get_tensor(name).nbytes == facts[name]["nbytes"]
            if path.suffix == ".bs" and "reshard" not in entry["file"]:
                assert (source.metadata() or None) == (MANIFEST["sources"][entry["sources"][0]]["metadata"] or None)


@needs_shared
@pytest.mark.parametrize("entry", [entry for entry in MODELS if "base" in entry], ids=lambda entry: entry["file"])
def test_a_patch_without_its_base_is_refused(entry: dict[str, Any]) -> None:
    with pytest.raises(bigsmall.BigSmallError, match="differences to those of"):
        dict(decoded_tensors(SHARED / entry["file"]))


@needs_shared
def test_entries_of_kv_caches() -> None:
    entry = next(entry for entry in MANIFEST["files"] if entry["file"].endswith("/kv"))
    for name, facts in entry["entries"].items():
        tensors = kv_entry((SHARED / entry["file"] / name).read_bytes())
        for tensor, of in zip(tensors, ("K", "V"), strict=True):
            assert (list(tensor.shape), sha256(tensor)) == (facts[of]["shape"], facts[of]["sha256"]), (name, of)


def test_entries_of_kv_caches_are_the_same_in_every_form() -> None:
    first, *others = [kv_entry((GOLDEN / name).read_bytes()) for name in ("kv-v1.bin", "kv-v3_seq.bin")]
    assert first[0].dtype == "BF16"
    assert first[0].shape == (1, 2, 40, 16)
    for other in others:
        assert [bytes(tensor) for tensor in other] == [bytes(tensor) for tensor in first]
    assert [tensor.dtype for tensor in kv_entry((GOLDEN / "kv-v3_fp8_seq.bin").read_bytes())] == ["F8_E4M3", "F8_E5M2"]
    keys, values = kv_entry((GOLDEN / "kv-chunked16.bin").read_bytes())
    assert keys.shape == values.shape


@pytest.mark.parametrize("name", ["kv-v1.bin", "kv-v3_seq.bin", "kv-v3_fp8_seq.bin", "kv-chunked16.bin"])
def test_truncated_entries_of_kv_caches_are_refused(name: str) -> None:
    entry = (GOLDEN / name).read_bytes()
    for n_bytes in range(0, len(entry), 37):
        with pytest.raises(bigsmall.CorruptError):
            kv_entry(entry[:n_bytes])


def test_the_command_reads_them(cli: Cli, tmp_path: Path) -> None:
    path = shutil.copy(GOLDEN / "groups.bs", tmp_path)
    facts = json.loads(cli("info", path, "--json").stdout)
    assert facts["version"] == 2
    assert {"group_stream_v1", "group_member", "zstd"} == set(facts["codecs"])
    assert cli("verify", path).stdout.startswith("OK")
    cli("decompress", path)
    assert (tmp_path / "groups.safetensors").exists()


def test_damage_is_found_where_the_published_package_finds_none(tmp_path: Path) -> None:
    packed = bytearray((GOLDEN / "bf16-rans.bs").read_bytes())
    packed[-5] ^= 1
    path = tmp_path / "damaged.bs"
    path.write_bytes(packed)
    with pytest.raises(bigsmall.CorruptError) as error:
        dict(decoded_tensors(path))
    assert error.value.tensor is not None
    assert not bigsmall.verify(path)["ok"]


def test_directories_have_the_tensors_that_shards_leave_out() -> None:
    tensors = dict(decoded_tensors(GOLDEN / "hub"))
    assert bytes(tensors["lm_head.weight"]) == bytes(tensors["model.embed_tokens.weight"])
    tied = {row["name"]: row["tied_to"] for row in bigsmall.stat(GOLDEN / "hub")}
    assert tied["lm_head.weight"] == "model.embed_tokens.weight"


def test_so_have_those_of_the_hub(hub: Hub) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("huggingface_hub")
    hub.add_folder("me/published", GOLDEN / "hub")
    state_dict = bigsmall.stream_from_hub("me/published")
    assert set(state_dict) == set(dict(decoded_tensors(GOLDEN / "hub")))
    assert state_dict["lm_head.weight"].equal(state_dict["model.embed_tokens.weight"])
