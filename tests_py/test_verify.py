"""`verify`: samples, places of damage, and the source."""

import json
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from conftest import Cli
from models import Raw, weights, write_model_dir, write_safetensors

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "published" / "v4.0.0" / "default"


@pytest.fixture(scope="module")
def many_blocks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of some sixty blocks, of several codecs."""
    tensors = {f"{i}": weights("BF16", 700, 512, seed=i) for i in range(10)}
    tensors["noise"] = Raw("U8", (5 << 20,), np.random.default_rng(0).bytes(5 << 20))
    tensors["small"] = weights("F32", 40, 40)
    tensors["smaller"] = weights("F32", 30, 40)
    source = write_safetensors(tmp_path_factory.mktemp("verify") / "model.safetensors", tensors)
    bigsmall.compress(source)
    return source.with_suffix(".bs")


def flip(path: Path, into: Path, *places: int) -> Path:
    data = bytearray(path.read_bytes())
    for at in places:
        data[at] ^= 0x40
    into.write_bytes(data)
    return into


def test_a_sample_of_all_is_all(many_blocks: Path) -> None:
    facts = bigsmall.verify(many_blocks, sample=1.0)
    assert facts["ok"]
    sample = facts["sample"]
    assert sample["n_sampled"] == sample["n_blocks"] > 50
    assert sample["found_share"] == 0
    assert facts["n_checked"] == 0


def test_a_sample_says_how_sure_it_is(many_blocks: Path, cli: Cli) -> None:
    sample = bigsmall.verify(many_blocks, sample=0.2, seed=1)["sample"]
    assert sample["n_sampled"] == -(-sample["n_blocks"] // 5)
    assert sample["confidence"] == 0.95
    assert 1 - (1 - sample["found_share"]) ** sample["n_sampled"] == pytest.approx(0.95)
    done = cli("verify", many_blocks, "--sample", 0.2, "--seed", 1)
    percent = f"{100 * sample['found_share']:.2g}%"
    assert done.stdout == (
        f"OK: {many_blocks}: {sample['n_sampled']} of {sample['n_blocks']} blocks (seed 1): "
        f"damage to {percent} of the blocks would have been found with 95% probability\n"
    )


def test_samples_find_damage_as_often_as_they_say(many_blocks: Path, tmp_path: Path) -> None:
    """Of one damaged block, samples of a fifth find it one time in five; and the same sample always does."""
    rows = bigsmall.verify(flip(many_blocks, tmp_path / "a.bs", many_blocks.stat().st_size - (3 << 20)))["problems"]
    assert len(rows) == 1
    found = [not bigsmall.verify(tmp_path / "a.bs", sample=0.2, seed=seed)["ok"] for seed in range(100)]
    assert 8 <= sum(found) <= 36
    assert found == [not bigsmall.verify(tmp_path / "a.bs", sample=0.2, seed=seed)["ok"] for seed in range(100)]
    assert bigsmall.verify(tmp_path / "a.bs", sample=1.0)["problems"] == rows


def test_every_damaged_block_is_told_with_its_bytes(many_blocks: Path, tmp_path: Path, cli: Cli) -> None:
    size = many_blocks.stat().st_size
    places = [size // 5, size // 5 + 300_000, size - (4 << 20), size - (1 << 20)]
    path = flip(many_blocks, tmp_path / "a.bs", *places)
    problems = bigsmall.verify(path)["problems"]
    assert len(problems) == 4
    for place in places:
        [problem] = [problem for problem in problems if problem["bytes"][0] <= place < problem["bytes"][1]]
        assert problem["tensor"] is not None
        assert problem["block"] is not None
    done = cli("verify", path)
    assert done.returncode == 3
    start, stop = problems[0]["bytes"]
    assert done.stdout.splitlines()[0].endswith(f": does not match its checksum (bytes {start:,} to {stop - 1:,})")
    assert "(and 3 more)" in done.stderr
    assert json.loads(cli("verify", path, "--json").stdout)["problems"] == problems


def test_the_source_is_compared(tmp_path: Path, cli: Cli) -> None:
    tensors = {"a": weights("BF16", 64, 64), "b": weights("F32", 9), "c": weights("F32", 8, 2)}
    source = write_safetensors(tmp_path / "model.safetensors", tensors)
    bigsmall.compress(source)
    packed = source.with_suffix(".bs")
    for flags in ([], ["--fast"], ["--sample", "0.5"]):
        done = cli("verify", packed, "--source", source, *flags)
        assert (done.returncode, done.stderr) == (0, ""), flags
        assert done.stdout.endswith(f", equal to {source}\n")
    changed = {"a": weights("BF16", 64, 64, seed=1), "c": tensors["c"]._replace(shape=(2, 8)), "d": tensors["b"]}
    other = write_safetensors(tmp_path / "other.safetensors", changed)
    facts = bigsmall.verify(packed, source=other)
    assert {problem["tensor"]: problem["message"] for problem in facts["problems"]} == {
        "a": "has other bytes in the source",
        "b": "is not in the source",
        "c": "has another dtype or shape in the source",
        "d": "is in the source and missing here",
    }
    assert cli("verify", packed, "--source", other).returncode == 3
    assert cli("verify", packed, "--source", tmp_path / "none").returncode == 1
    (tmp_path / "text").write_text("no checkpoint at all")
    done = cli("verify", packed, "--source", tmp_path / "text")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def test_directories(tmp_path: Path, cli: Cli) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    facts = bigsmall.verify(tmp_path / "packed", sample=1.0, source=tmp_path / "model")
    assert facts["ok"]
    assert facts["sample"]["n_blocks"] == facts["sample"]["n_sampled"] > 2
    shard = tmp_path / "packed" / "model-00002-of-00002.bs"
    flip(shard, shard, shard.stat().st_size // 2)
    [problem, *_] = bigsmall.verify(tmp_path / "packed", sample=1.0)["problems"]
    assert problem["path"] == str(shard)
    assert cli("verify", tmp_path / "packed").returncode == 3


def test_published_containers_are_sampled_by_tensors(tmp_path: Path) -> None:
    path = PUBLISHED / "bf16.bs"
    if not path.exists():
        pytest.skip("../shared/published is absent")
    facts = bigsmall.verify(path, sample=1.0)
    assert facts["ok"]
    assert facts["sample"]["n_blocks"] > 0
    damaged = flip(path, tmp_path / "a.bs", path.stat().st_size - 1000)
    assert not bigsmall.verify(damaged, sample=1.0)["ok"]


def test_wrong_requests(compressed: Path, cli: Cli) -> None:
    for flags in (["--sample", "0"], ["--sample", "1.5"], ["--sample", "nan"], ["--sample", "x"], ["--sample", "0.1", "--fast"]):
        done = cli("verify", compressed, *flags)
        assert (done.returncode, done.stdout) == (2, ""), flags
    with pytest.raises(bigsmall.OptionError):
        bigsmall.verify(compressed, fast=True, sample=0.5)
