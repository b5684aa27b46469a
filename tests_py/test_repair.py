"""`compress --ecc`, `protect` and `repair`."""

import json
from pathlib import Path

import pytest

import bigsmall
from conftest import Cli
from models import write_model_dir

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "published"


def damage(path: Path, *places: tuple[int, int]) -> bytes:
    """Overwrite bytes [start, stop) of the file; returns what it was."""
    intact = path.read_bytes()
    data = bytearray(intact)
    for start, stop in places:
        data[start:stop] = bytes(byte ^ 0xA5 for byte in data[start:stop])
    path.write_bytes(data)
    return intact


@pytest.fixture
def protected(source: Path, cli: Cli) -> Path:
    path = source.with_suffix(".bs")
    assert cli("compress", source, path, "--ecc").returncode == 0
    return path


def test_compress_tells_of_the_sidecar(source: Path, cli: Cli) -> None:
    out = source.with_suffix(".bs")
    done = cli("compress", source, out, "--ecc-percent", 25)
    sidecar = Path(f"{out}.ecc")
    n_bytes = sidecar.stat().st_size
    assert f"ecc:        {n_bytes:,} bytes ({100 * n_bytes / out.stat().st_size:.2f}%)" in done.stdout
    assert n_bytes == pytest.approx(0.25 * out.stat().st_size, rel=0.05)
    facts = json.loads(cli("compress", source, out, "--ecc", "--force", "--json").stdout)
    assert facts["ecc_bytes"] == sidecar.stat().st_size < n_bytes


def test_a_damaged_file_is_mended_and_kept(protected: Path, cli: Cli) -> None:
    sidecar = Path(f"{protected}.ecc").read_bytes()
    intact = damage(protected, (5, 6), (20_000, 24_000), (60_000, 60_001))
    damaged = protected.read_bytes()
    done = cli("repair", protected)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"repaired {protected} -> {protected}.repaired",
        "  damaged: bytes 5 to 5",
        "  damaged: bytes 20,000 to 23,999",
        "  damaged: bytes 60,000 to 60,000",
        f"  sidecar: written anew as {protected}.repaired.ecc",
    ]
    assert protected.read_bytes() == damaged
    assert Path(f"{protected}.repaired").read_bytes() == intact
    assert Path(f"{protected}.repaired.ecc").read_bytes() == sidecar
    again = cli("repair", protected)
    assert (again.returncode, again.stdout) == (1, "")
    assert "--force" in again.stderr
    facts = json.loads(cli("repair", protected, "--force", "--json").stdout)
    assert facts["n_damaged"] == 1
    assert facts["files"][0]["damaged"] == [[5, 6], [20_000, 24_000], [60_000, 60_001]]


@pytest.mark.parametrize("change", [-3, -5000, 1, 100_000])
def test_a_file_of_the_wrong_length(protected: Path, change: int) -> None:
    intact = protected.read_bytes()
    protected.write_bytes(intact[:change] if change < 0 else intact + bytes(change))
    [facts] = bigsmall.repair(protected, protected.with_name("mended.bs"))
    assert protected.with_name("mended.bs").read_bytes() == intact
    assert (facts["found_bytes"], facts["file_bytes"]) == (len(intact) + change, len(intact))
    assert facts["damaged"] == [[len(intact) + min(change, 0), len(intact) + max(change, 0)]]


def test_nothing_is_written_where_nothing_is_wrong(protected: Path, cli: Cli) -> None:
    before = {path.name for path in protected.parent.iterdir()}
    assert cli("repair", protected).stdout == f"intact {protected}\n"
    assert {path.name for path in protected.parent.iterdir()} == before


def test_a_damaged_sidecar_is_mended_with_the_intact_file(protected: Path) -> None:
    sidecar = Path(f"{protected}.ecc")
    intact = damage(sidecar, (0, 90), (700, 3000))
    [facts] = bigsmall.repair(protected)
    assert facts["sidecar_damaged"]
    assert facts["outputs"] == [f"{protected}.repaired.ecc"]
    assert Path(f"{protected}.repaired.ecc").read_bytes() == intact


def test_what_cannot_be_mended_is_told_and_nothing_is_written(protected: Path, cli: Cli) -> None:
    damage(protected, (10_000, 60_000))
    before = {path.name for path in protected.parent.iterdir()}
    done = cli("repair", protected)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"bigsmall: error: {protected}: cannot be mended: ")
    assert done.stderr.count("\n") == 1
    assert {path.name for path in protected.parent.iterdir()} == before


def test_shards_of_a_directory(tmp_path: Path, cli: Cli) -> None:
    write_model_dir(tmp_path / "model")
    assert cli("compress", tmp_path / "model", tmp_path / "packed", "--ecc").returncode == 0
    names = {path.name for path in (tmp_path / "packed").iterdir()}
    protected = {"model-00001-of-00002.bs", "model-00002-of-00002.bs", "bigsmall.index.json"}
    assert {name.removesuffix(".ecc") for name in names if name.endswith(".ecc")} == protected
    intact = damage(tmp_path / "packed" / "model-00002-of-00002.bs", (30_000, 33_000))
    done = cli("repair", tmp_path / "packed")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("intact ") == 2
    repaired = tmp_path / "packed-repaired"
    assert {path.name for path in repaired.iterdir()} == {"model-00002-of-00002.bs", "model-00002-of-00002.bs.ecc"}
    assert (repaired / "model-00002-of-00002.bs").read_bytes() == intact
    # Sidecars are no part of the model.
    (tmp_path / "packed" / "model-00002-of-00002.bs").write_bytes(intact)
    bigsmall.decompress(tmp_path / "packed", tmp_path / "back")
    assert not list((tmp_path / "back").glob("*.ecc"))


def test_one_hopeless_shard_stops_before_anything_is_written(tmp_path: Path, cli: Cli) -> None:
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed", ecc_percent=14)
    damage(tmp_path / "packed" / "model-00001-of-00002.bs", (30_000, 33_000))
    damage(tmp_path / "packed" / "model-00002-of-00002.bs", (0, 50_000))
    assert cli("repair", tmp_path / "packed").returncode == 3
    assert not (tmp_path / "packed-repaired").exists()


def test_wrong_requests(source: Path, protected: Path, tmp_path: Path, cli: Cli) -> None:
    for percent in ("4", "nan", "101"):
        done = cli("compress", source, tmp_path / "other.bs", "--ecc-percent", percent)
        assert (done.returncode, done.stdout) == (2, ""), done
        assert "percent" not in done.stderr or done.stderr.count("\n") == 1
        assert not (tmp_path / "other.bs").exists()
    assert cli("repair", source).returncode == 1
    assert cli("repair", tmp_path / "missing").returncode == 1
    (tmp_path / "empty").mkdir()
    assert "no .ecc files" in cli("repair", tmp_path / "empty").stderr
    damage(protected, (100, 101))
    same = cli("repair", protected, protected, "--force")
    assert (same.returncode, same.stderr) == (2, f"bigsmall: error: {protected}: source and target are the same\n")
    Path(f"{protected}.ecc").write_bytes(b"not a sidecar" * 100)
    done = cli("repair", protected)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    for n_bytes in (0, 1, 50, 96):
        Path(f"{protected}.ecc").write_bytes(bytes(n_bytes))
        assert cli("repair", protected).returncode == 3


def test_a_sidecar_in_the_way_is_noticed_before_the_work(source: Path, cli: Cli) -> None:
    sidecar = source.with_suffix(".bs.ecc")
    sidecar.write_text("mine")
    assert cli("compress", source, "--ecc").returncode == 1
    assert not source.with_suffix(".bs").exists()
    assert sidecar.read_text() == "mine"


def published_sidecar() -> Path:
    found = sorted(PUBLISHED.rglob("*.ecc"))
    if not found:
        pytest.skip("../shared/published is absent")
    return found[0]


def test_the_published_package_s_sidecars_mend(tmp_path: Path, cli: Cli) -> None:
    sidecar = published_sidecar()
    intact = sidecar.with_suffix("").read_bytes()
    path = tmp_path / "model.bs"
    path.write_bytes(intact)
    (tmp_path / "model.bs.ecc").write_bytes(sidecar.read_bytes())
    assert cli("repair", path).stdout == f"intact {path}\n"
    # Sixteen wrong bytes in each of a few chunks of 223, which is all that it mends.
    damage(path, (0, 16), (223 * 5 + 200, 223 * 5 + 216), (len(intact) - 3, len(intact)))
    done = cli("repair", path)
    assert done.returncode == 0, done.stderr
    assert Path(f"{path}.repaired").read_bytes() == intact
    assert not Path(f"{path}.repaired.ecc").exists()
    path.write_bytes(intact)
    damage(path, (0, 17))
    done = cli("repair", path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    path.write_bytes(intact[:-300])
    assert cli("repair", path).returncode == 3


def test_a_damaged_header_of_a_published_sidecar_is_told(tmp_path: Path, cli: Cli) -> None:
    sidecar = published_sidecar()
    path = tmp_path / "model.bs"
    path.write_bytes(sidecar.with_suffix("").read_bytes())
    for at in range(8, 42, 3):
        damaged = bytearray(sidecar.read_bytes())
        damaged[at] ^= 0x7F
        (tmp_path / "model.bs.ecc").write_bytes(damaged)
        with pytest.raises((bigsmall.FormatError, bigsmall.CorruptError)):
            bigsmall.repair(path)
