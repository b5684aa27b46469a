"""The command line: what it prints, where, and how it ends."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from bigsmall.cli import main
from bigsmall.cli.main import COMMANDS
from models import Raw, files_of, weights, write_model_dir, write_safetensors

Cli = Callable[..., subprocess.CompletedProcess[str]]


def printed(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    """What a command that succeeds writes to stdout; it writes nothing to stderr."""
    assert main([str(arg) for arg in args]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def facts(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    return json.loads(printed(capsys, *args, "--json"))


def test_compress(capsys: pytest.CaptureFixture[str], source: Path) -> None:
    out = printed(capsys, "compress", source, "--mode", "storage")
    target = source.with_suffix(".bs")
    source_bytes, compressed_bytes = source.stat().st_size, target.stat().st_size
    assert out.splitlines()[:4] == [
        f"compressed {source} -> {target}",
        f"  source:     {source_bytes:,} bytes",
        f"  compressed: {compressed_bytes:,} bytes ({100 * compressed_bytes / source_bytes:.2f}%)",
        f"  saved:      {source_bytes - compressed_bytes:,} bytes",
    ]
    assert re.fullmatch(r"  elapsed:    \d+\.\ds", out.splitlines()[4])
    assert bigsmall.info(target)["mode"] == "storage"


def test_compress_json(capsys: pytest.CaptureFixture[str], source: Path, tmp_path: Path) -> None:
    result = facts(capsys, "compress", source, "-o", tmp_path / "b.bs", "--inference", "--threads", 1)
    assert result["source"] == str(source)
    assert result["outputs"] == [str(tmp_path / "b.bs")]
    assert result["mode"] == bigsmall.info(tmp_path / "b.bs")["mode"] == "inference"
    assert result["saved_bytes"] == result["source_bytes"] - result["compressed_bytes"]


def test_decompress(capsys: pytest.CaptureFixture[str], source: Path, compressed: Path, tmp_path: Path) -> None:
    out = printed(capsys, "decompress", compressed, tmp_path / "back.safetensors")
    assert re.match(rf"decompressed {compressed} -> {tmp_path / 'back.safetensors'}  \(\d+\.\ds\)\n", out)
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()
    original = source.read_bytes()
    source.unlink()
    assert facts(capsys, "decompress", compressed)["output"] == str(source)
    assert source.read_bytes() == original


def test_directories(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    write_model_dir(tmp_path / "model")
    printed(capsys, "compress", tmp_path / "model")
    printed(capsys, "verify", tmp_path / "model-bs")
    printed(capsys, "decompress", tmp_path / "model-bs")
    assert files_of(tmp_path / "model-bs-restored") == files_of(tmp_path / "model")
    assert "file_count                 2" in printed(capsys, "info", tmp_path / "model-bs")
    printed(capsys, "compress", tmp_path / "model", tmp_path / "one.bs")
    assert (tmp_path / "one.bs").is_file()


def test_info(capsys: pytest.CaptureFixture[str], compressed: Path) -> None:
    out = printed(capsys, "info", compressed)
    for word in (
        "bf16",
        "tensor_count",
        "overall ratio_pct",
        "layer_count",
        "streaming_peak_ram_est",
        "codec_breakdown",
        "best compressed",
    ):
        assert word in out
    assert facts(capsys, "info", compressed) == bigsmall.info(compressed)


def test_stat(capsys: pytest.CaptureFixture[str], compressed: Path, tensors: dict[str, Raw]) -> None:
    out = printed(capsys, "stat", compressed)
    assert len(out.splitlines()) == len(tensors) + 2
    assert f"{len(tensors)} tensors" in out.splitlines()[-1]
    assert facts(capsys, "stat", compressed)["tensors"] == bigsmall.stat(compressed)
    rows = facts(capsys, "stat", compressed, "--tensor", "q_proj", "--sort", "name", "--reverse")["tensors"]
    assert [row["name"] for row in rows] == [f"model.layers.{k}.self_attn.q_proj.weight" for k in (1, 0)]
    for sort, key in (("size", lambda row: -row["raw_bytes"]), ("ratio", lambda row: row["ratio_pct"])):
        keys = [key(row) for row in facts(capsys, "stat", compressed, "--sort", sort)["tensors"]]
        assert keys == sorted(keys)


def test_scan(capsys: pytest.CaptureFixture[str], source: Path) -> None:
    out = printed(capsys, "scan", source, "--tensors")
    assert "BF16-native F32" in out
    assert "model.norm.weight" in out
    assert facts(capsys, "scan", source)["estimated_bytes"] == bigsmall.scan(source)["estimated_bytes"]


def test_verify(capsys: pytest.CaptureFixture[str], compressed: Path, tensors: dict[str, Raw]) -> None:
    assert printed(capsys, "verify", compressed).startswith(f"OK: {compressed}: {len(tensors)} of {len(tensors)} tensors")
    assert "structure only" in printed(capsys, "verify", "--fast", compressed)
    assert facts(capsys, "verify", compressed)["ok"] is True


def test_verify_of_damage(capsys: pytest.CaptureFixture[str], compressed: Path) -> None:
    data = bytearray(compressed.read_bytes())
    data[-100] ^= 1
    compressed.write_bytes(data)
    assert main(["verify", str(compressed)]) == 3
    out, err = capsys.readouterr()
    assert out.startswith(f'FAIL: {compressed}: tensor "')
    assert re.fullmatch(rf'bigsmall: error: {compressed}: tensor ".*": .+\n', err)
    assert main(["verify", str(compressed), "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_verify_of_something_else(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"no .bs file")
    for flags in ([], ["--fast"]):
        assert main(["verify", str(tmp_path / "garbage"), *flags]) == 3
        out, err = capsys.readouterr()
        assert out.startswith(f"FAIL: {tmp_path / 'garbage'}: ")
        assert err.startswith(f"bigsmall: error: {tmp_path / 'garbage'}: ")
        assert err.count("\n") == 1


def test_benchmark_leaves_nothing_behind(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, source: Path, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    before = files_of(tmp_path)
    out = printed(capsys, "benchmark", source)
    for word in ("compress:", "decompress:", "verify:", "OK", "peak RSS", "MB/s", "attention", "norm"):
        assert word in out
    assert "attention" not in printed(capsys, "benchmark", source, "--no-detail")
    assert files_of(tmp_path) == before
    assert list(scratch.iterdir()) == []
    result = facts(capsys, "benchmark", source, "-o", tmp_path / "kept.bs")
    assert result["compressed_bytes"] == (tmp_path / "kept.bs").stat().st_size
    assert result["compress"]["bytes_per_s"] > 0
    assert result["peak_rss_bytes"] > result["source_bytes"]


def test_benchmark_of_a_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    tensors = write_model_dir(tmp_path / "model")
    result = facts(capsys, "benchmark", tmp_path / "model")
    assert result["kinds"]["embedding"]["raw_bytes"] == len(tensors["model.embed_tokens.weight"].data)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: bigsmall {command}")
    # A command of several actions has it at each of them, as test_commands sees.
    assert "--json" in out or "show this help message and exit\n\nexit status" in out
    assert "exit status" in out


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version").stdout == f"bigsmall {bigsmall.__version__}\n"
    out = cli("--help").stdout
    assert all(command in out for command in COMMANDS)


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["compress"],
        ["compress", "a", "b", "c"],
        ["compress", "a", "b", "-o", "c"],
        ["compress", "a", "--mode", "fast"],
        ["compress", "a", "--storage", "--inference"],
        ["compress", "a", "--threads", "-1"],
        ["compress", "a", "--threads", "two"],
        ["stat", "a", "--sort", "colour"],
        ["verify", "--jso", "a"],
    ],
    ids=lambda args: " ".join(args) or "nothing",
)
def test_wrong_usage(cli: Cli, args: Sequence[str]) -> None:
    done = cli(*args)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "error: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_errors_are_one_line_with_the_right_status(cli: Cli, tmp_path: Path, source: Path, compressed: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"neither of the two formats")
    future = tmp_path / "future.bs"
    future.write_bytes(b"BGSM\x63\0" + bytes(100))
    damaged = tmp_path / "damaged.bs"
    data = bytearray(compressed.read_bytes())
    data[-100] ^= 1
    damaged.write_bytes(data)
    empty = tmp_path / "empty"
    empty.mkdir()
    nowhere = tmp_path / "nowhere"
    before = files_of(tmp_path)
    for status, words, *args in (
        (1, ["nowhere"], "compress", nowhere),
        (1, ["nowhere"], "info", nowhere),
        (1, ["nowhere"], "scan", nowhere),
        (1, ["nowhere"], "benchmark", nowhere),
        (1, ["nowhere"], "demo", nowhere),
        (1, ["model.bs", "exists", "--force"], "compress", source),
        (1, ["model.safetensors", "exists", "--force"], "decompress", compressed),
        (1, ["nowhere"], "compress", source, nowhere / "a.bs"),
        (1, ["model.bs", "zzz"], "stat", compressed, "--tensor", "zzz"),
        (2, ["model.safetensors"], "compress", source, source, "--force"),
        (2, ["threads"], "compress", source, tmp_path / "new", "--threads", 10**20),
        (1, ["empty"], "demo", empty, "--output-dir", nowhere),
        (3, ["garbage"], "compress", garbage),
        (3, ["garbage"], "decompress", garbage),
        (3, ["garbage"], "info", garbage),
        (3, ["garbage"], "stat", garbage),
        (3, ["garbage"], "scan", garbage),
        (3, ["future.bs", "version 99"], "info", future),
        (3, ["damaged.bs", 'tensor "', "block"], "decompress", damaged, tmp_path / "out"),
        (1, ["empty", ".safetensors"], "compress", empty),
        (1, ["empty", ".bs"], "decompress", empty),
    ):
        done = cli(*args)
        assert done.returncode == status, (args, done)
        assert done.stdout == ""
        assert done.stderr.count("\n") == 1
        assert done.stderr.startswith("bigsmall: error: ")
        assert all(word in done.stderr for word in words), (args, done.stderr)
    assert files_of(tmp_path) == before


def test_force_replaces(capsys: pytest.CaptureFixture[str], source: Path, compressed: Path) -> None:
    original = source.read_bytes()
    source.write_bytes(b"in the way")
    printed(capsys, "decompress", compressed, "--force")
    assert source.read_bytes() == original


def test_odd_names_do_not_reach_the_terminal(cli: Cli, tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "two\nlines  \x1b[31m.safetensors", {"red \x1b[31m\n name": weights("F32", 4)})
    for args in (["compress", source], ["stat", source.with_suffix(".bs")], ["info", source.with_suffix(".bs")], ["info", source]):
        done = cli(*args)
        assert "\x1b" not in done.stdout + done.stderr
        assert "two\\nlines  \\x1b[31m" in done.stdout + done.stderr or "red \\x1b[31m\\n name" in done.stdout
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are not any bytes there")
def test_names_that_are_no_text(cli: Cli, tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / os.fsdecode(b"\xff.safetensors"), {"x": weights("F32", 4)})
    target = source.with_suffix(".bs")
    for status, *args in ((0, "compress", source), (0, "info", target, "--json"), (1, "info", tmp_path / os.fsdecode(b"\xfe"))):
        done = cli(*args)
        assert done.returncode == status
        assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    tensors = {f"tensor {k}": weights("F32", 1, seed=k) for k in range(3000)}
    bigsmall.compress(write_safetensors(tmp_path / "a.safetensors", tensors), tmp_path / "a.bs")
    command = [sys.executable, "-m", "bigsmall", "stat", str(tmp_path / "a.bs")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 1


def test_closed_streams(tmp_path: Path, source: Path) -> None:
    def run(redirection: str, *args: object) -> subprocess.CompletedProcess[str]:
        shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "bigsmall", *map(str, args)]
        return subprocess.run(shell, capture_output=True, text=True)

    done = run("2>&-", "info", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    done = run("2>&-", "compress", source)
    assert (done.returncode, done.stdout[:10]) == (0, "compressed")
    done = run(">&-", "info", source.with_suffix(".bs"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_facts_that_cannot_be_written(compressed: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "bigsmall", "info", str(compressed)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "bigsmall: error: stdout: No space left on device\n"


def test_names_that_stdout_cannot_encode(tmp_path: Path) -> None:
    source = write_safetensors(tmp_path / "模型.safetensors", {"x": weights("F32", 4)})
    command = [sys.executable, "-m", "bigsmall", "compress", str(source)]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u6a21\\u578b.safetensors" in done.stdout


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")
@pytest.mark.parametrize("flags", [[], ["--no-progress"]], ids=["bar", "no bar"])
def test_a_bar_on_a_terminal_only(tmp_path: Path, flags: list[str]) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"x": weights("BF16", 2000, 2000)})
    terminal, child_side = os.openpty()
    # A new pseudo-terminal is no columns wide, and tqdm draws nothing there.
    pytest.importorskip("termios").tcsetwinsize(child_side, (24, 80))
    command = [sys.executable, "-m", "bigsmall", "compress", "a.safetensors", "--json", *flags]
    done = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=child_side, check=True)
    # A mark to read up to: a terminal that has been closed may forget what was on it.
    os.write(child_side, b"END")
    screen = b""
    while not screen.endswith(b"END"):
        screen += os.read(terminal, 1 << 16)
    os.close(child_side)
    os.close(terminal)
    assert json.loads(done.stdout)["n_tensors"] == 1
    assert (b"compress" in screen) == (not flags)


def test_the_installed_command(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("bigsmall")
    if not command.exists():
        pytest.skip("the package is not installed beside this interpreter")
    assert subprocess.run([command, "--version"], capture_output=True, text=True, check=True).stdout == f"bigsmall {bigsmall.__version__}\n"


def test_benchmark_beside_others(source: Path, cli: Cli) -> None:
    done = cli("benchmark", source, "--against", "zlib,lzma", "--no-detail")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[-3:]]
    assert [row[0] for row in rows] == ["bigsmall", "zlib", "lzma"]
    facts = json.loads(cli("benchmark", source, "--against", "zlib", "--json").stdout)
    zlib = facts["against"]["zlib"]
    assert 0 < zlib["compressed_bytes"] < zlib["raw_bytes"] < facts["source_bytes"]
    assert zlib["left_out_bytes"] == 0


def test_a_rival_that_is_missing_or_unknown_is_named(source: Path, cli: Cli) -> None:
    done = cli("benchmark", source, "--against", "zlib,none")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no rival 'none'" in done.stderr
    try:
        import zipnn  # noqa: F401
    except ImportError:
        done = cli("benchmark", source, "--against", "zipnn")
        assert (done.returncode, done.stderr) == (1, "bigsmall: error: zipnn is not installed: pip install zipnn\n")
