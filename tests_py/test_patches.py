"""Patches, what differs between models, and chains of checkpoints."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from conftest import SHARED_WEIGHTS, Cli
from models import Raw, llama, write_model_dir, write_safetensors


def step(tensors: Mapping[str, Raw], seed: int = 0, share: float = 0.1) -> dict[str, Raw]:
    """The tensors with an ulp added to some of their words."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, raw in tensors.items():
        words = np.frombuffer(raw.data, "<u2").copy()
        words += (rng.random(words.size) < share).astype("<u2")
        moved[name] = raw._replace(data=words.tobytes())
    return moved


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_safetensors(tmp_path / "base.safetensors", llama(), {"format": "pt"})


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    return write_safetensors(tmp_path / "tuned.safetensors", step(llama()), {"format": "pt"})


@pytest.fixture
def patch(tmp_path: Path, base: Path, tuned: Path) -> Path:
    path = tmp_path / "patch.bs"
    facts = bigsmall.compress(tuned, path, delta_from=base)
    assert facts["matched"]["n_tensors"] == facts["n_tensors"]
    assert facts["matched"]["n_differences"] > 0
    return path


def test_a_patch_is_small_and_comes_back(tmp_path: Path, base: Path, tuned: Path, patch: Path) -> None:
    plain = bigsmall.compress(tuned)
    assert patch.stat().st_size * 3 < plain["compressed_bytes"]
    packed_base = Path(bigsmall.compress(base)["outputs"][0])
    for at, of in enumerate((base, packed_base)):
        out = tmp_path / f"back{at}.safetensors"
        bigsmall.apply(of, patch, out)
        assert out.read_bytes() == tuned.read_bytes()
        arrays = bigsmall.decompress_delta(patch, of)
        assert {name: array.tobytes() for name, array in arrays.items()} == {name: raw.data for name, raw in step(llama()).items()}


def test_tensors_and_slices_of_a_patch_are_read_on_its_base(base: Path, patch: Path) -> None:
    tensors = bigsmall.load(patch, base=base)
    name = "model.layers.1.mlp.gate_proj.weight"
    raw = step(llama())[name]
    assert tensors[name].view(dtype=__import__("torch").uint16).numpy().tobytes() == raw.data
    with bigsmall.safe_open(patch, "np", base=base) as f:
        assert f.get_tensor(name).tobytes() == raw.data
        assert f.get_slice(name)[10:12].tobytes() == raw.data[10 * 128 : 12 * 128]
    reader = bigsmall.Reader(patch)
    assert reader.version == 17
    assert len(reader.base_fingerprint or "") == 32
    assert {entry["base"] for entry in reader.entries()} > {name}
    with pytest.raises(bigsmall.PatchBaseError, match=reader.base_fingerprint):
        reader.tensor(name)


def test_a_wrong_base_is_refused_with_both_fingerprints(tmp_path: Path, tuned: Path, patch: Path, cli: Cli) -> None:
    wrong = write_safetensors(tmp_path / "wrong.safetensors", step(llama(), seed=5))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(bigsmall.PatchBaseError, match=r"fingerprint \w{32}.*fingerprint \w{32}"):
        bigsmall.apply(wrong, patch, tmp_path / "out.safetensors")
    result = cli("apply", wrong, patch, "-o", tmp_path / "out.safetensors")
    assert result.returncode == 3
    assert result.stderr.count("fingerprint") == 2
    assert len(result.stderr.splitlines()) == 1
    result = cli("decompress", patch, tmp_path / "out.safetensors")
    assert result.returncode == 3
    assert "base" in result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_command_makes_and_applies_patches(tmp_path: Path, base: Path, tuned: Path, cli: Cli) -> None:
    patch, out = tmp_path / "p.bs", tmp_path / "out.safetensors"
    result = cli("compress", tuned, "--delta-from", base, "-o", patch)
    assert result.returncode == 0, result.stderr
    assert "matched tensors stored standalone" in result.stdout
    assert result.stderr == ""
    facts = json.loads(cli("compress", tuned, "--base", base, "-o", patch, "--force", "--json").stdout)
    assert facts["base"] == str(base)
    assert facts["matched"]["n_differences"] > 0
    assert cli("apply", base, patch, "-o", out).stdout.startswith(f"apply: {patch} (+base {base}) -> {out}")
    assert cli("decompress", patch, "--base", base, "-o", out, "--force").returncode == 0
    assert out.read_bytes() == tuned.read_bytes()


def test_much_change_is_hinted_at(tmp_path: Path, base: Path, cli: Cli) -> None:
    other = write_safetensors(tmp_path / "other.safetensors", step(llama(), share=0.9))
    result = cli("compress", other, "--delta-from", base, "-o", tmp_path / "p.bs")
    assert result.returncode == 0
    assert "hint" in result.stderr
    result = cli("compress", other, "--delta-from", base, "-o", tmp_path / "p.bs", "--force", "--force-delta")
    assert result.returncode == 0
    assert result.stderr == ""


def test_the_closest_base_is_found(tmp_path: Path, base: Path, tuned: Path, patch: Path, cli: Cli) -> None:
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    (zoo / "notes.txt").write_text("no model")
    (zoo / "broken.safetensors").write_bytes(b"broken")
    rng = np.random.default_rng(3)
    strangers = {name: raw._replace(data=rng.permutation(np.frombuffer(raw.data, "<u2")).tobytes()) for name, raw in llama().items()}
    write_safetensors(zoo / "stranger.safetensors", strangers)
    with pytest.raises(bigsmall.OptionError, match="no model like it"):
        bigsmall.closest_base(tuned, [zoo])
    write_safetensors(zoo / "near.safetensors", step(llama(), share=0.5))
    assert bigsmall.closest_base(tuned, [zoo]) == zoo / "near.safetensors"
    write_model_dir(zoo / "sharded")
    assert bigsmall.closest_base(tuned, [zoo]) == zoo / "sharded"
    # Beside the model itself by default, where the patch is no candidate.
    assert bigsmall.closest_base(tuned) == base
    facts = json.loads(cli("compress", tuned, "-o", tmp_path / "auto.bs", "--auto-delta", "--base-dir", zoo, "--json").stdout)
    assert facts["base"] == str(zoo / "sharded")
    result = cli("compress", tuned, "-o", tmp_path / "no.bs", "--base-dir", zoo)
    assert result.returncode == 2
    assert "--auto-delta" in result.stderr


def test_directories_are_patched(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "base")
    write_model_dir(tmp_path / "tuned")
    for shard in (tmp_path / "tuned").glob("*.safetensors"):
        with bigsmall.safe_open(bigsmall.compress(shard, tmp_path / "shard.bs", force=True)["outputs"][0], "np") as f:
            names = f.offset_keys()
        write_safetensors(shard, step({name: tensors[name] for name in names}), {"format": "pt"})
    facts = bigsmall.compress(tmp_path / "tuned", tmp_path / "patch", delta_from=tmp_path / "base")
    assert facts["n_files"] == 2
    bigsmall.apply(tmp_path / "base", tmp_path / "patch", tmp_path / "back")
    for file in (tmp_path / "tuned").rglob("*"):
        if file.is_file():
            assert (tmp_path / "back" / file.relative_to(tmp_path / "tuned")).read_bytes() == file.read_bytes()
    arrays = bigsmall.decompress(tmp_path / "patch", base=tmp_path / "base")
    assert arrays.keys() == tensors.keys()


def test_what_differs_is_told(tmp_path: Path, base: Path, cli: Cli) -> None:
    tensors = llama()
    changed = step({"model.norm.weight": tensors.pop("model.norm.weight")}, share=0.5)
    gone = tensors.pop("model.layers.0.input_layernorm.weight")
    other = {**tensors, **changed, "renamed": gone, "lm_head.weight": tensors["lm_head.weight"]._replace(shape=(64, 256))}
    path = write_safetensors(tmp_path / "other.safetensors", other)
    packed = Path(bigsmall.compress(path)["outputs"][0])
    for a, b in ((base, path), (Path(bigsmall.compress(base)["outputs"][0]), packed), (base, packed)):
        found = bigsmall.diff(a, b)
        assert not found["is_same"]
        assert [tensor["name"] for tensor in found["added"]] == ["renamed"]
        assert [tensor["name"] for tensor in found["removed"]] == ["model.layers.0.input_layernorm.weight"]
        assert ["renamed", "model.layers.0.input_layernorm.weight"] in [list(pair) for pair in found["identical"]]
        by_name = {tensor["name"]: tensor for tensor in found["changed"]}
        assert by_name.keys() == {"model.norm.weight", "lm_head.weight"}
        norm = by_name["model.norm.weight"]
        words = [np.frombuffer(raw.data, "<u2") for raw in (llama()["model.norm.weight"], changed["model.norm.weight"])]
        n_differing = int((words[0] != words[1]).sum())
        assert (norm["n_words"], norm["n_differing"]) == (64, n_differing)
        assert norm["distances"][:2] == [64 - n_differing, n_differing]
        assert (by_name["lm_head.weight"]["n_differing"], by_name["lm_head.weight"]["was"]["shape"]) == (0, [256, 64])
    assert bigsmall.diff(base, base)["is_same"]
    result = cli("diff", base, path)
    assert result.returncode == 1
    assert "removed: 1  added: 1  changed: 2" in result.stdout
    assert json.loads(cli("diff", base, path, "--json").stdout)["n_common"] == len(llama()) - 1
    result = cli("diff", base, base)
    assert result.returncode == 0
    assert "identical" in result.stdout
    result = cli("diff", base, path, "--patch", tmp_path / "p.bs")
    assert result.returncode == 0
    bigsmall.apply(base, tmp_path / "p.bs", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == path.read_bytes()
    result = cli("diff", base, tmp_path / "none")
    assert result.returncode == 1
    assert "none" in result.stderr


def test_any_step_of_a_chain_is_restored(tmp_path: Path, cli: Cli) -> None:
    tensors = llama()
    files = []
    chain = bigsmall.Chain(tmp_path / "chain")
    for at in range(6):
        files.append(write_safetensors(tmp_path / f"step-{at}.safetensors", tensors))
        chain.append(files[-1])
        # After the third step the weights are others altogether.
        tensors = step(tensors, seed=at) if at != 2 else {name: raw._replace(data=raw.data[::-1]) for name, raw in tensors.items()}
    steps = chain.steps()
    assert [one["key"] for one in steps] == [None, "step-0", "step-0", None, "step-3", "step-3"]
    assert all(one["compressed_bytes"] * 2 < steps[0]["compressed_bytes"] for one in steps if one["key"])
    for file in files:
        bigsmall.Chain(tmp_path / "chain").restore(file.stem, tmp_path / "back.safetensors", force=True)
        assert (tmp_path / "back.safetensors").read_bytes() == file.read_bytes()
    with pytest.raises(bigsmall.OptionError, match="already"):
        chain.append(files[0])
    for name in ("", "a/b", "..", ".hidden"):
        with pytest.raises(bigsmall.OptionError, match="no name"):
            chain.append(files[0], name)
    with pytest.raises(bigsmall.OptionError, match="no step"):
        chain.restore("none", tmp_path / "x")
    with pytest.raises(bigsmall.SourceError):
        chain.append(write_bytes(tmp_path / "bad.safetensors", b"bad"))
    assert chain.steps() == bigsmall.Chain(tmp_path / "chain").steps() == steps

    assert "patch to step-3" in cli("chain", "append", tmp_path / "chain", files[5], "--name", "again").stdout
    listed = cli("chain", "list", tmp_path / "chain").stdout.splitlines()
    assert len(listed) == 9
    assert listed[1].startswith("step-0")
    assert len(json.loads(cli("chain", "list", tmp_path / "chain", "--json").stdout)["steps"]) == 7
    assert cli("chain", "restore", tmp_path / "chain", "again", "-o", tmp_path / "again.safetensors").returncode == 0
    assert (tmp_path / "again.safetensors").read_bytes() == files[5].read_bytes()
    assert cli("chain", "restore", tmp_path / "chain", "none", "-o", tmp_path / "x").returncode == 2


def write_bytes(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "[]",
        '{"format": "other", "version": 1, "steps": []}',
        '{"format": "bigsmall-chain", "version": 1, "steps": [{"name": "a"}]}',
        '{"format": "bigsmall-chain", "version": 1, "steps": [{"name": "a", "file": "../a.bs", "key": null, "source_bytes": 1, "compressed_bytes": 1}]}',  # noqa: E501
        '{"format": "bigsmall-chain", "version": 1, "steps": [{"name": "a", "file": "a.bs", "key": "b", "source_bytes": 1, "compressed_bytes": 1}]}',  # noqa: E501
    ],
)
def test_a_chain_that_is_none_is_refused(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "chain.json").write_text(manifest)
    with pytest.raises(bigsmall.FormatError, match=r"chain\.json"):
        bigsmall.Chain(tmp_path)


PAIRS = [
    ("lora_roberta_agnews_step0500", "lora_roberta_agnews_step1000"),
    ("lora_roberta_agnews_step1000", "lora_roberta_agnews_step1200"),
    ("lora_roberta_agnews_step1000_bf16", "lora_roberta_agnews_step1200_bf16"),
    ("realcugan_se_up2x-conservative_f16", "realcugan_se_up2x-no-denoise_f16"),
    ("realcugan_pro_up3x-conservative_f16", "realcugan_pro_up3x-no-denoise_f16"),
    ("retsim_v1_f32_oldnames", "retsim_v1_f32"),
    ("faststyle_wave_f32", "faststyle_la_muse_f32"),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[1])
def test_real_pairs_come_back_and_are_never_larger(tmp_path: Path, pair: tuple[str, str]) -> None:
    base, tuned = (SHARED_WEIGHTS / f"{name}.safetensors" for name in pair)
    if not tuned.exists():
        pytest.skip("../shared/weights is absent")
    patched = bigsmall.compress(tuned, tmp_path / "patch.bs", delta_from=base)
    plain = bigsmall.compress(tuned, tmp_path / "plain.bs")
    assert patched["compressed_bytes"] <= plain["compressed_bytes"]
    if pair[0].startswith("retsim"):
        assert patched["compressed_bytes"] * 50 < plain["compressed_bytes"]
    bigsmall.apply(base, tmp_path / "patch.bs", tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == tuned.read_bytes()
