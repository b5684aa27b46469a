"""Published files, rewritten in today's format in their place: of `format="v1"`, and the package's own beside the repository."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import bigsmall
from bigsmall.cli import main
from models import files_of, llama, weights, write_model_dir, write_safetensors

SHARED = Path(__file__).resolve().parents[2] / "shared" / "published"


@pytest.fixture
def published(source: Path) -> Path:
    """A file of container version 1, its source beside it."""
    path = source.with_suffix(".bs")
    bigsmall.compress(source, path, format="v1")
    return path


def version(path: Path) -> int:
    return bigsmall.Reader(path).version


def test_a_file_is_replaced_and_kept(published: Path, source: Path, tmp_path: Path) -> None:
    before = published.read_bytes()
    published.chmod(0o640)
    facts = bigsmall.migrate(published)
    backup = published.with_name("model.bs.bak")
    assert backup.read_bytes() == before
    assert (facts["was_current"], facts["n_tensors"], facts["backup"]) == (False, 21, str(backup))
    assert (facts["bytes_before"], facts["bytes_after"]) == (len(before), published.stat().st_size)
    assert sum(change["n_tensors"] for change in facts["recoded"]) == 21
    assert {"before": "tied", "after": "tied", "n_tensors": 1} in facts["recoded"]
    assert version(published) == bigsmall.FORMAT_VERSION
    assert published.stat().st_mode & 0o777 == 0o640
    bigsmall.decompress(published, tmp_path / "back.safetensors")
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()
    again = bigsmall.migrate(published)
    assert (again["was_current"], again["bytes_before"], again["backup"]) == (True, published.stat().st_size, None)


def test_a_dry_run_tells_the_same_and_leaves_all_as_it_is(published: Path, tmp_path: Path) -> None:
    before = files_of(tmp_path)
    told = bigsmall.migrate(published, dry_run=True)
    assert files_of(tmp_path) == before
    assert {**bigsmall.migrate(published), "backup": None} == told


def test_without_backup(published: Path, tmp_path: Path) -> None:
    names = set(files_of(tmp_path))
    assert bigsmall.migrate(published, backup=False)["backup"] is None
    assert set(files_of(tmp_path)) == names
    assert version(published) == bigsmall.FORMAT_VERSION


def test_an_earlier_backup_is_replaced_only_with_force(published: Path, tmp_path: Path) -> None:
    old = published.read_bytes()
    backup = published.with_name("model.bs.bak")
    backup.write_bytes(b"another")
    before = files_of(tmp_path)
    with pytest.raises(FileExistsError) as raised:
        bigsmall.migrate(published)
    assert raised.value.filename == str(backup)
    assert files_of(tmp_path) == before
    bigsmall.migrate(published, force=True)
    assert backup.read_bytes() == old


def test_a_damaged_file_stays_as_it_is(published: Path, tmp_path: Path) -> None:
    data = bytearray(published.read_bytes())
    data[-5000] ^= 8
    published.write_bytes(data)
    before = files_of(tmp_path)
    with pytest.raises(bigsmall.CorruptError) as raised:
        bigsmall.migrate(published)
    assert raised.value.path == str(published)
    assert raised.value.tensor is not None
    assert files_of(tmp_path) == before


def test_a_directory_is_replaced_and_kept(tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    packed = tmp_path / "packed"
    bigsmall.compress(tmp_path / "model", packed, format="v1")
    before = files_of(packed)
    assert bigsmall.migrate(packed, dry_run=True)["n_tensors"] == 21
    assert files_of(tmp_path / "packed") == before
    facts = bigsmall.migrate(packed)
    assert facts["backup"] == str(tmp_path / "packed.bak")
    assert files_of(tmp_path / "packed.bak") == before
    assert files_of(packed).keys() == before.keys()
    assert {path.name for path in tmp_path.iterdir()} == {"model", "packed", "packed.bak"}
    assert bigsmall.verify(packed)["ok"]
    bigsmall.decompress(packed, tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "model")
    assert bigsmall.migrate(packed)["was_current"]
    shutil.rmtree(packed)
    shutil.copytree(tmp_path / "packed.bak", packed)
    with pytest.raises(FileExistsError):
        bigsmall.migrate(packed)
    assert bigsmall.migrate(packed, backup=False)["backup"] is None
    assert files_of(tmp_path / "packed.bak") == before


def migrating(path: Path, **limits: int) -> subprocess.Popen[bytes]:
    """The command in a process of its own, with a limit to the size of its files."""

    def limit() -> None:
        # Or the first byte beyond it is a signal and not an error.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    command = [sys.executable, "-m", "bigsmall", "migrate", str(path), "--no-backup"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=limit)


def test_a_full_disk_changes_nothing(published: Path, tmp_path: Path) -> None:
    before = files_of(tmp_path)
    for n_bytes in (1000, 100_000):
        process = migrating(published, RLIMIT_FSIZE=n_bytes)
        _, messages = process.communicate()
        assert process.returncode == 1, messages
        assert messages.count(b"\n") == 1
        assert files_of(tmp_path) == before


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "model.safetensors", {str(i): weights("BF16", 700, 700, seed=i) for i in range(4)})
    made = tmp_path / "made.bs"
    bigsmall.compress(source, made, format="v1")
    work = tmp_path / "work"
    work.mkdir()
    path = work / "model.bs"
    for delay in (0.1, 0.2, 0.3, 0.4, 0.6, 0.9):
        shutil.copy(made, path)
        process = migrating(path)
        time.sleep(delay)
        process.kill()
        process.communicate()
        # What is unfinished has no name, or one that begins with a dot.
        assert [found.name for found in work.iterdir() if not found.name.startswith(".")] == ["model.bs"]
        assert bigsmall.verify(path)["ok"]
        assert path.read_bytes() == made.read_bytes() or version(path) == bigsmall.FORMAT_VERSION


def test_what_the_command_prints(published: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate", str(published), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"migrate (dry-run): {published}"
    assert [line.split()[0] for line in lines[1:7]] == [
        "tensors_total",
        "tensors_migrated",
        "bytes_before",
        "bytes_after",
        "savings_pct",
        "format_version",
    ]
    assert main(["migrate", str(published), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["saved_bytes"] == facts["bytes_before"] - facts["bytes_after"]
    assert facts["savings_pct"] == pytest.approx(100 * facts["saved_bytes"] / facts["bytes_before"])
    assert main(["migrate", str(published)]) == 0
    assert "already" in capsys.readouterr().out
    assert main(["migrate", str(published.with_suffix(".safetensors"))]) == 3


def packages_own() -> list[Path]:
    return sorted(SHARED.glob("v*/**/*.bs"))


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/published is absent")
def test_files_of_the_package_itself(tmp_path: Path) -> None:
    """Every container of three releases: it has all tensors afterwards, bit for bit, or is refused and stays."""
    n_migrated = n_deltas = 0
    for original in packages_own():
        path = tmp_path / "model.bs"
        shutil.copyfile(original, path)
        before = [(entry["name"], entry["dtype"], entry["shape"], entry["md5"]) for entry in bigsmall.Reader(path).entries()]
        try:
            facts = bigsmall.migrate(path, backup=False)
        except bigsmall.errors.PatchBaseError:
            assert path.read_bytes() == original.read_bytes()
            n_deltas += 1
            continue
        after = [(entry["name"], entry["dtype"], entry["shape"], entry["md5"]) for entry in bigsmall.Reader(path).entries()]
        assert after == before, original
        assert facts["n_tensors"] == len(before)
        n_migrated += 1
    assert n_deltas > 0
    assert n_migrated > 50


def test_llama_is_what_the_counts_above_say() -> None:
    assert len(llama()) == 21
