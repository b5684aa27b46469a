"""Measuring a machine, and the file that keeps what was measured."""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import bigsmall
from bigsmall.autopilot import disk, gpus, probing, profile, rates
from bigsmall.autopilot.cpu import cpu
from bigsmall.autopilot.memory import memory
from bigsmall.cli import main
from bigsmall.stream.memory import forget_peak, peak_resident_set, resident_set
from machines import gpu, machine
from models import files_of, weights, write_safetensors

GIB = 1 << 30
MEMINFO = f"MemTotal: {64 * 1024 * 1024} kB\nMemFree: 1 kB\nMemAvailable: {32 * 1024 * 1024} kB\nHugePages_Total: 0\n"


def system(root: Path, **files: str) -> Path:
    """A root directory with these files; `__` stands for a slash and `_dot_` for a dot."""
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "total", "available", "limited_by"),
    [
        ({}, 64 * GIB, 32 * GIB, "RAM"),
        (
            {
                "proc__self__cgroup": "0::/box/inner\n",
                "sys__fs__cgroup__box__memory_dot_max": f"{8 * GIB}\n",
                "sys__fs__cgroup__box__memory_dot_current": f"{3 * GIB}\n",
                "sys__fs__cgroup__box__memory_dot_stat": f"anon 1\ninactive_file {GIB}\n",
                "sys__fs__cgroup__box__inner__memory_dot_max": "max\n",
            },
            8 * GIB,
            6 * GIB,
            "cgroup",
        ),
        (
            {
                "proc__self__cgroup": "4:cpu,memory:/docker/1\n1:name=systemd:/\n",
                "sys__fs__cgroup__memory__memory_dot_limit_in_bytes": f"{2 * GIB}",
                "sys__fs__cgroup__memory__memory_dot_usage_in_bytes": f"{5 * GIB}",
            },
            2 * GIB,
            0,
            "cgroup",
        ),
        (
            {"proc__self__cgroup": "4:memory:/\n", "sys__fs__cgroup__memory__memory_dot_limit_in_bytes": "9223372036854771712"},
            64 * GIB,
            32 * GIB,
            "RAM",
        ),
        ({"proc__self__cgroup": "0::/../..\n", "sys__fs__cgroup__memory_dot_max": f"{GIB}\n"}, GIB, GIB, "cgroup"),
    ],
    ids=["none", "v2", "v1", "v1 without a limit", "outside of what is mounted"],
)
def test_limits_of_control_groups(tmp_path: Path, files: dict[str, str], total: int, available: int, limited_by: str) -> None:
    found = memory(system(tmp_path, proc__meminfo=MEMINFO, **files))
    assert (found.total_bytes, found.available_bytes, found.limited_by) == (total, available, limited_by)


def test_limits_of_time(tmp_path: Path) -> None:
    n_threads = cpu(tmp_path).n_threads
    root = system(tmp_path, proc__self__cgroup="0::/\n", proc__cpuinfo="processor : 0\nmodel name : Some CPU @ 3 GHz\n")
    assert (cpu(root).n_threads, cpu(root).model) == (n_threads, "Some CPU @ 3 GHz")
    assert cpu(system(root, sys__fs__cgroup__cpu_dot_max="150000 100000\n")).n_threads == 1
    assert cpu(system(root, sys__fs__cgroup__cpu_dot_max="max 100000\n")).n_threads == n_threads


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_the_peak_of_memory() -> None:
    forget_peak()
    before = resident_set()
    assert before is not None
    held = bytearray(os.urandom(64 << 20))
    del held
    peak = peak_resident_set()
    assert peak is not None
    assert before + (48 << 20) < peak
    forget_peak()
    after = peak_resident_set()
    assert after is not None
    assert after < peak


def test_the_disk_is_measured(tmp_path: Path) -> None:
    found = disk.probe(tmp_path, 5 << 20)
    assert found.method in ("O_DIRECT", "posix_fadvise", "page cache")
    assert found.bytes_per_s is not None
    assert found.bytes_per_s > 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_direct_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "O_DIRECT", raising=False)
    found = disk.probe(tmp_path, 5 << 20)
    assert found.method in ("posix_fadvise", "page cache")
    assert found.bytes_per_s is not None


def test_a_disk_that_cannot_be_written(tmp_path: Path) -> None:
    found = disk.probe(tmp_path / "nowhere", 1 << 20)
    assert (found.bytes_per_s, found.method) == (None, "failed: No such file or directory")


def test_what_is_in_the_page_cache(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8 << 20))
    if disk.cached_share(path) is None:
        pytest.skip("this file system does not tell")
    assert disk.cached_share(path) == 1
    with path.open("rb") as file:
        os.fsync(file.fileno())
    disk.forget(path)
    share = disk.cached_share(path)
    assert share is not None
    if share == 1:
        pytest.skip("this file system forgets nothing")
    assert share < 0.1


def test_every_kind_of_tensor_has_a_rate(tmp_path: Path) -> None:
    loads = rates.load_rates(tmp_path, 1 << 20)
    assert loads.keys() == rates.SAMPLES.keys()
    assert rates.kernel_rates(tmp_path).keys() == loads.keys() - {"stored"}
    assert all(rate > 0 for rate in loads.values())
    assert list(tmp_path.iterdir()) == []


class NoNvmlError(Exception):
    pass


def nvml(**functions: Any) -> Any:
    """The management library with one GPU, as far as it is asked."""

    def refuse(*args: object) -> None:
        raise NoNvmlError("Not Supported")

    default: dict[str, Any] = {
        "NVMLError": NoNvmlError,
        "NVML_CLOCK_MEM": 2,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(total=24 * GIB, free=20 * GIB),
        "nvmlDeviceGetUUID": lambda handle: b"GPU-7",
        "nvmlDeviceGetName": lambda handle: "Some GPU",
    }
    unknown = ["UtilizationRates", "MaxClockInfo", "MemoryBusWidth", "MaxPcieLinkGeneration", "MaxPcieLinkWidth", "ComputeRunningProcesses"]
    return SimpleNamespace(**{f"nvmlDeviceGet{name}": refuse for name in unknown} | default | functions)


def test_facts_of_a_gpu() -> None:
    silent = gpus.facts(nvml(), object())
    assert (silent.uuid, silent.name, silent.free_bytes, silent.is_busy) == ("GPU-7", "Some GPU", 20 * GIB, False)
    assert silent.memory_bytes_per_s is silent.link_bytes_per_s is None
    told = gpus.facts(
        nvml(
            nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=3),
            nvmlDeviceGetMaxClockInfo=lambda handle, clock: 8000,
            nvmlDeviceGetMemoryBusWidth=lambda handle: 320,
            nvmlDeviceGetMaxPcieLinkGeneration=lambda handle: 4,
            nvmlDeviceGetMaxPcieLinkWidth=lambda handle: 16,
            nvmlDeviceGetComputeRunningProcesses=lambda handle: [object()],
        ),
        object(),
    )
    assert told.memory_bytes_per_s == pytest.approx(640e9)
    assert told.link_bytes_per_s == pytest.approx(32e9)
    assert told.is_busy


def test_gpus_that_cuda_may_see() -> None:
    found = [gpu(uuid="GPU-a1"), gpu(uuid="GPU-b2"), gpu(uuid="GPU-b3")]
    for variable, uuids in (
        (None, ["GPU-a1", "GPU-b2", "GPU-b3"]),
        ("", []),
        ("-1", []),
        ("1", ["GPU-b2"]),
        ("2,0", ["GPU-b3", "GPU-a1"]),
        ("GPU-b3,0,9,1", ["GPU-b3", "GPU-a1"]),
    ):
        assert [gpu.uuid for gpu in gpus.visible(found, variable)] == uuids


def test_a_profile_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    for saved in (machine(), machine(ram_gb=None, disk=None, gpus=(gpu(), gpu(memory_bytes_per_s=None)))):
        with profile.Place(path) as place:
            place.write(saved)
        assert profile.read(path) == saved
    assert list(tmp_path.iterdir()) == [path]
    path.write_text(json.dumps({"profile_version": 99}))
    assert profile.read(path) is None


def broken_profiles() -> Iterator[tuple[str, bytes]]:
    whole = machine(gpus=(gpu(),)).to_json()
    text = json.dumps(whole).encode()
    yield from ((f"{length} bytes", text[:length]) for length in range(0, len(text), 97))
    yield from ((f"no {name}", json.dumps({key: value for key, value in whole.items() if key != name}).encode()) for name in whole)
    for what, damage in {
        "a text for a rate": {"copy_bytes_per_s": "fast"},
        "a rate of zero": {"copy_bytes_per_s": 0},
        "not a number": {"copy_bytes_per_s": float("nan")},
        "infinity": {"copy_bytes_per_s": float("inf")},
        "a list for an object": {"cpu": []},
        "an object for a list": {"gpus": {}},
        "a negative size": {"memory": {**whole["memory"], "total_bytes": -1}},
        "a huge size": {"memory": {**whole["memory"], "total_bytes": 1 << 200}},
        "true for a size": {"memory": {**whole["memory"], "total_bytes": True}},
        "a kind that is missing": {"loads": {}},
        "no name of a GPU": {"gpus": [{}]},
    }.items():
        yield what, json.dumps({**whole, **damage}).encode()
    yield "no JSON", b"\xff\xfe"
    yield "deep", b"[" * 100_000
    yield "a number", b"3"


def test_a_damaged_profile_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "profile.json"
    for what, text in broken_profiles():
        path.write_bytes(text)
        with pytest.raises(bigsmall.FormatError) as caught:
            profile.read(path)
        assert caught.value.path == str(path), what
    assert main(["profile", "--path", str(path)]) == 3
    assert "is no profile, or a damaged one" in capsys.readouterr().err
    assert path.read_bytes() == text


def test_what_tells_machines_apart() -> None:
    here = machine()
    assert here.difference(machine(disk=1, load=1, gpus=(gpu(),))) is None
    for other, words in (
        (dataclasses.replace(here, system="Linux aarch64"), "system: Linux x86_64, here: Linux aarch64"),
        (dataclasses.replace(here, cpu=dataclasses.replace(here.cpu, model="Other")), "processor: Some CPU, here: Other"),
        (dataclasses.replace(here, cpu=dataclasses.replace(here.cpu, n_threads=4)), "usable cores"),
        (machine(ram_gb=64), "memory"),
    ):
        difference = here.difference(other)
        assert difference is not None
        assert words in difference


def command(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[dict[str, Any], str]:
    assert main([*map(str, args), "--json"]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_profile(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    flags = ["--sample-mb", 2]
    first, err = command(capsys, "profile", *flags)
    path = tmp_path / ".bigsmall" / "profile.json"
    assert (first["path"], first["measured_now"], err) == (str(path), True, "")
    written = path.read_bytes()
    again, err = command(capsys, "profile", *flags)
    assert (again, err) == ({**first, "measured_now": False}, "")
    assert path.read_bytes() == written
    assert command(capsys, "profile", "--force", *flags)[0]["measured_now"]
    assert files_of(tmp_path).keys() == {".bigsmall/profile.json"}
    assert main(["profile"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0].strip() for line in lines] == ["profile", "cpu", "ram", "disk", "gpu", "kernels", "loads", "copies"]
    # Another machine's is recognised.
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "system": "Plan9 mips"}))
    other, err = command(capsys, "profile", *flags)
    assert other["measured_now"]
    assert "is not of this machine (its system: Plan9 mips" in err
    assert profile.read(path) == probing_result(other)


def probing_result(facts: dict[str, Any]) -> profile.Profile:
    return profile.parsed(profile.Profile, facts)


def test_profiles_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for place in (tmp_path / "nowhere" / "profile.json", tmp_path / "file" / "profile.json", tmp_path):
        # At once, and not after measuring.
        monkeypatch.setattr(probing, "probe", lambda *args: pytest.fail("has measured"))
        assert main(["profile", "--force", "--path", str(place)]) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"bigsmall: error: {place}: ")
        assert err.count("\n") == 1
    assert files_of(tmp_path) == {"file": b"mine"}


def test_a_home_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is measured for the plan alone, and that is said."""
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.setattr(probing, "SAMPLE_BYTES", 2 << 20)
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", {"x": weights("BF16", 64, 64)}))
    assert main(["plan", str(tmp_path / "a.bs")]) == 0
    out, err = capsys.readouterr()
    assert out == "Running perfect mode (bit-exact) in CPU RAM at full CPU speed.\n"
    assert "cannot be written (No such file or directory)" in err
