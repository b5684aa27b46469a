"""plan and run on real files: what is said, what is done, and how near the predictions come."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from bigsmall.autopilot import disk
from bigsmall.cli import main
from models import llama, write_model_dir, write_safetensors

TOLERANCE = 0.25


@pytest.fixture(scope="session")
def profiled_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home directory with a profile of this machine."""
    home = tmp_path_factory.mktemp("home")
    (home / ".bigsmall").mkdir()
    assert main(["profile", "--path", str(home / ".bigsmall" / "profile.json"), "--sample-mb", "32"]) == 0
    return home


@pytest.fixture(autouse=True)
def home(profiled_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    capsys.readouterr()
    monkeypatch.setenv("HOME", str(profiled_home))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return profiled_home


def run(*args: object) -> dict[str, Any]:
    """`bigsmall run --json` in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bigsmall", "run", *map(str, args), "--json"], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_plan(capsys: pytest.CaptureFixture[str], compressed: Path) -> None:
    assert main(["plan", str(compressed)]) == 0
    assert capsys.readouterr() == ("Running perfect mode (bit-exact) in CPU RAM at full CPU speed.\n", "")
    assert main(["plan", str(compressed), "--json", "--min-tok-s", "1e12"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["placement"], facts["usable"], facts["min_tok_s"]) == ("cpu_full", False, 1e12)
    assert facts["sentence"].endswith("; that is for capacity, below 1e+12 tok/s.")
    raw_bytes = bigsmall.info(compressed)["raw_bytes"]
    assert facts["pick"]["memory"][0]["terms"]["weights"] == raw_bytes
    assert {placement["placement"] for placement in facts["considered"]} == {"cpu_full", "cpu_stream_ram", "cpu_stream_disk"}


@pytest.mark.parametrize("flags", [[], ["--stream"]], ids=["load", "stream"])
def test_run(capsys: pytest.CaptureFixture[str], compressed: Path, flags: list[str]) -> None:
    facts = bigsmall.info(compressed)
    done = subprocess.run([sys.executable, "-m", "bigsmall", "run", str(compressed), *flags], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0] == "Running perfect mode (bit-exact) in CPU RAM at full CPU speed."
    if flags:
        assert lines[1].startswith("--stream forced: layer-streaming executor on cpu_stream_")
        assert lines[2].startswith("streamed 2 layers [mode=perfect]: ")
        assert "resident: non-layer " in lines[3]
    else:
        assert lines[1].startswith(f"loaded {facts['tensor_count']} tensors into host RAM in ")
        assert lines[1].endswith("[mode=perfect] (bit-exact: the checksum of every block was compared)")
    assert "process peak " in lines[-1]
    result = run(compressed, *flags)
    assert (result["raw_bytes"], result["n_tensors"]) == (facts["raw_bytes"], facts["tensor_count"])
    assert result["promise_kept"] is not False


def test_run_of_a_directory(tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model")
    for flags in ([], ["--stream"]):
        facts = run(tmp_path / "model-bs", *flags)
        assert facts["n_tensors"] == len(tensors)
        assert facts["raw_bytes"] == sum(len(raw.data) for raw in tensors.values())


@pytest.mark.parametrize("flags", [[], ["--stream"]], ids=["load", "stream"])
def test_run_of_damage(capsys: pytest.CaptureFixture[str], compressed: Path, flags: list[str]) -> None:
    data = bytearray(compressed.read_bytes())
    data[-100] ^= 1
    compressed.write_bytes(data)
    assert main(["run", str(compressed), *flags]) == 3
    out, err = capsys.readouterr()
    assert "loaded" not in out
    assert "streamed" not in out
    assert err.startswith(f'bigsmall: error: {compressed}: tensor "')
    assert err.count("\n") == 1


def test_another_machine(capsys: pytest.CaptureFixture[str], compressed: Path, home: Path, tmp_path: Path) -> None:
    facts = json.loads((home / ".bigsmall" / "profile.json").read_text())
    facts["cpu"]["model"] = "Some CPU"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(facts))
    assert main(["plan", str(compressed), "--profile", str(other)]) == 0
    assert "is of another machine (its processor: Some CPU, here: " in capsys.readouterr().err
    assert main(["run", str(compressed), "--profile", str(other)]) == 1
    assert capsys.readouterr().err.endswith("is of another machine, and plan is what works for those\n")
    facts["memory"]["available_bytes"] = 1
    other.write_text(json.dumps(facts))
    assert main(["plan", str(compressed), "--profile", str(other)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"bigsmall: error: {compressed}: does not fit on this machine: perfect mode, " in err.splitlines()[-1]


def test_a_mode_that_the_file_has_not(capsys: pytest.CaptureFixture[str], compressed: Path) -> None:
    for command in ("plan", "run"):
        assert main([command, str(compressed), "--mode", "fast"]) == 2
        assert capsys.readouterr() == ("", f"bigsmall: error: {compressed}: has no fast mode, only perfect\n")


@pytest.mark.parametrize("rate", ["-1", "nan", "inf", "fast"])
def test_rates_that_are_none(capsys: pytest.CaptureFixture[str], compressed: Path, rate: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", str(compressed), f"--min-tok-s={rate}"])
    assert ended.value.code == 2
    assert "is no number of tokens per second" in capsys.readouterr().err


def test_a_promise_that_is_not_kept(capsys: pytest.CaptureFixture[str], compressed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bigsmall.autopilot.running.peak_resident_set", lambda: 1 << 50)
    assert main(["run", str(compressed)]) == 1
    out, err = capsys.readouterr()
    assert "loaded" in out
    assert "of memory were promised, and 1,125,899.91 GB taken" in err


def test_predictions(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Memory must be as predicted, and never more. How long it takes depends on who else is there: that error is only printed."""
    sources = {
        "Llama, BF16": write_safetensors(tmp_path / "bf16.safetensors", llama(n_layers=4, width=1024)),
        "Llama, F32": write_safetensors(tmp_path / "f32.safetensors", llama(n_layers=2, width=1024, dtype="F32")),
        "Llama, F16": write_safetensors(tmp_path / "f16.safetensors", llama(n_layers=4, width=1024, dtype="F16")),
        "demo": Path(bigsmall.__file__).parent / "data" / "demo.safetensors",
    }
    rows = []
    for name, source in sources.items():
        for form in ("balanced", "storage", "v1") if name == "demo" else ("balanced",):
            path = tmp_path / "model.bs"
            match form:
                case "balanced" | "storage":
                    bigsmall.compress(source, path, mode=form, force=True)
                case "v1":
                    bigsmall.compress(source, path, format="v1", force=True)
            for flags, is_cold in (([], False), ([], True), (["--stream"], False)):
                if is_cold:
                    disk.forget(path)
                facts = run(path, *flags)
                assert facts["promise_kept"] is not False
                if facts["peak_rss_bytes"] is not None:
                    assert facts["promised_bytes"] <= (1 + TOLERANCE) * facts["peak_rss_bytes"]
                rows.append((f"{name}, {form}, {'cold' if is_cold else 'cached'} {flags[-1] if '--stream' in flags else ''}", facts))
    with capsys.disabled():
        print("\nbigsmall run: predicted and measured")
        for name, facts in rows:
            load = beside(facts["load_s_est"], facts["elapsed_s"], "s")
            peak = facts["peak_rss_bytes"]
            print(f"  {name:<40} {load}   {'' if peak is None else beside(facts['promised_bytes'] / 1e6, peak / 1e6, 'MB')}")


def beside(predicted: float, measured: float, unit: str) -> str:
    return f"{predicted:8.3f} and {measured:8.3f} {unit} ({100 * (predicted / measured - 1):+4.0f} %)"
