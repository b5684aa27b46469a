"""`xray`: what values tell about a checkpoint."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import bigsmall
from bigsmall import report
from conftest import Cli
from models import Raw, write_safetensors

FLAGS = ["bf16_native_lineage", "lineage_residue", "mantissa_carved", "sign_imbalance", "exp_near_random", "below_random_floor"]

WIDTHS = {"BF16": 2, "F16": 2, "F32": 4, "F8_E4M3": 1, "F8_E5M2": 1}


def words(dtype: str, values: np.ndarray) -> Raw:
    """Values rounded to nearest in that dtype."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    numpy_dtype = {
        "BF16": ml_dtypes.bfloat16,
        "F16": np.float16,
        "F32": np.float32,
        "F8_E4M3": ml_dtypes.float8_e4m3fn,
        "F8_E5M2": ml_dtypes.float8_e5m2,
    }[dtype]
    return Raw(dtype, values.shape, values.astype(np.float32).astype(numpy_dtype).tobytes())


def one(path: Path, tensor: Raw, **options: object) -> dict:
    [found] = bigsmall.xray(write_safetensors(path / "one.safetensors", {"weight": tensor}), **options)["tensors"]
    return found


@pytest.mark.parametrize("dtype", WIDTHS)
def test_entropies_are_those_of_the_definition(tmp_path: Path, dtype: str) -> None:
    tensor = words(dtype, np.random.default_rng(1).standard_t(4, (100, 101)) * 0.05)
    found = one(tmp_path, tensor)
    raw = np.frombuffer(tensor.data, f"<u{WIDTHS[dtype]}").astype(np.int64)
    raw = raw >> 16 if dtype == "F32" else raw
    exponent_bits, mantissa_bits = {"BF16": (8, 7), "F16": (5, 10), "F32": (8, 7), "F8_E4M3": (4, 3), "F8_E5M2": (5, 2)}[dtype]
    streams = {
        "sign": raw >> (exponent_bits + mantissa_bits),
        "exp": raw >> mantissa_bits & (1 << exponent_bits) - 1,
        "mant": raw & (1 << mantissa_bits) - 1,
    }
    n = raw.size
    total = 0.0
    for name, stream in streams.items():
        counts = np.unique(stream, return_counts=True)[1]
        p = counts / n
        entropy = -(p * np.log2(p)).sum() + (len(counts) - 1) / (2 * n * np.log(2))
        total += entropy
        assert found[name]["entropy"] == pytest.approx(entropy, abs=1e-9)
    if WIDTHS[dtype] > 1:
        assert found["ratio_pct"] == pytest.approx(100 * total / 16)
    values = np.frombuffer(tensor.data, "<u1" if WIDTHS[dtype] == 1 else f"<u{WIDTHS[dtype]}")
    assert found["sign_balance"] == pytest.approx(1 - streams["sign"].mean())
    assert sum(count for _, count, _ in found["exponents"]) == values.size


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.02), (0.05, 0.1), (-1.0, 0.3)])
def test_the_control_is_what_random_weights_give(tmp_path: Path, dtype: str, mean: float, std: float) -> None:
    found = one(tmp_path, words(dtype, np.random.default_rng(2).normal(mean, std, (700, 700))))
    for name in ("sign", "exp", "mant"):
        stream = found[name]
        assert stream["entropy"] == pytest.approx(stream["control_entropy"], abs=5 * stream["error"] + 1e-3), name
        assert stream["divergence"] < 1e-3, name
    assert found["ratio_pct"] == pytest.approx(found["control_ratio_pct"], abs=0.3 if WIDTHS[dtype] == 1 else 0.1)
    # Of a byte, little is left of what the values were, and the moments that a control matches are those of what is left.
    tolerance = 0.05 if WIDTHS[dtype] == 1 else 1e-2
    assert (found["mean"], found["std"]) == (pytest.approx(mean, abs=tolerance * std), pytest.approx(std, rel=tolerance))
    assert found["excess_kurtosis"] == pytest.approx(0, abs=0.2)


def test_fingerprints(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    outer = words("F32", np.outer(rng.normal(size=80), rng.normal(size=90)))
    assert one(tmp_path, outer)["rank1_frac"] == pytest.approx(1, abs=1e-4)
    matrix = rng.normal(size=(120, 60)).astype("f4")
    share = np.linalg.svd(matrix, compute_uv=False)[0] ** 2 / (matrix**2).sum()
    assert one(tmp_path, words("F32", matrix))["rank1_frac"] == pytest.approx(share, rel=2e-2)
    assert one(tmp_path, words("F32", matrix), svd=False)["rank1_frac"] is None
    assert one(tmp_path, words("F32", matrix.ravel()))["rank1_frac"] is None
    assert one(tmp_path, words("F32", rng.laplace(size=100_000)))["excess_kurtosis"] == pytest.approx(3, abs=0.3)
    assert one(tmp_path, words("F32", np.abs(matrix)))["sign_balance"] == 1


def test_each_flag_has_its_case(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    heavy = (rng.standard_t(3, (300, 300)) * 0.02).astype("f4")
    carved = heavy.view("<u4") & 0xFFC00000 | rng.integers(0, 4, heavy.shape, dtype="<u4") << 16
    # Values of which some were rounded to fewer bits before.
    narrow = heavy.astype("<f4")
    narrow.view("<u4")[:6] &= 0xFFFF0000 - (0x3F << 16)
    tensors = {
        "plain": words("F32", heavy),
        "bf16": Raw("F32", heavy.shape, (heavy.view("<u4") & 0xFFFF0000).tobytes()),
        "residue": Raw("F32", heavy.shape, narrow.tobytes()),
        "carved": Raw("F32", heavy.shape, carved.astype("<u4").tobytes()),
        "signs": words("F32", heavy + 0.003),
        "random": words("F32", rng.normal(0, 0.02, (300, 300))),
        "uniform": words("F32", rng.uniform(-0.1, 0.1, (300, 300))),
        "zeros": words("F32", np.where(rng.random((300, 300)) < 0.7, 0, heavy)),
    }
    facts = bigsmall.xray(write_safetensors(tmp_path / "flags.safetensors", tensors))
    flags = {tensor["name"]: tensor["flags"] for tensor in facts["tensors"]}
    assert flags["plain"] == []
    assert "bf16_native_lineage" in flags["bf16"]
    assert flags["residue"] == ["lineage_residue"]
    assert {"mantissa_carved", "below_random_floor"} <= set(flags["carved"])
    assert flags["signs"] == ["sign_imbalance"]
    assert flags["random"] == ["exp_near_random"]
    assert "exp_near_random" in flags["uniform"]
    assert "below_random_floor" in flags["zeros"]
    assert list(facts["flags"]) == FLAGS
    assert not facts["looks_untrained"]


def test_chance_gets_no_flag(tmp_path: Path) -> None:
    """Small tensors of random weights are `exp_near_random` and nothing else."""
    rng = np.random.default_rng(5)
    tensors = {f"{i}": words("BF16", rng.normal(0, 0.02, (64, 64))) for i in range(200)}
    facts = bigsmall.xray(write_safetensors(tmp_path / "small.safetensors", tensors))
    assert facts["flag_counts"] == {flag: 200 if flag == "exp_near_random" else 0 for flag in FLAGS}


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_a_randomised_checkpoint_is_told_loudly(tmp_path: Path, cli: Cli, dtype: str, draw: str) -> None:
    rng = np.random.default_rng(6)
    make = {"normal": lambda shape: rng.normal(0, 0.02, shape), "uniform": lambda shape: rng.uniform(-0.06, 0.06, shape)}[draw]
    shapes = {"wte.weight": (500, 96), **{f"h.{i}.mlp.{k}.weight": (96, 300) for i in range(4) for k in ("up", "down")}}
    tensors = {name: words(dtype, make(shape)) for name, shape in shapes.items()}
    tensors["norm.weight"] = words(dtype, np.ones(96))
    source = write_safetensors(tmp_path / "random.safetensors", tensors)
    bigsmall.compress(source)
    for path in (source, source.with_suffix(".bs")):
        done = cli("xray", path, "--no-svd")
        assert done.returncode == 0, done.stderr
        assert f"bigsmall: warning: {path}: LOOKS UNTRAINED: 9 of 9 matrices" in done.stderr
        assert "LOOKS UNTRAINED" in done.stdout


def test_real_checkpoints_do_not_look_untrained(shared_weights: Path) -> None:
    facts = bigsmall.xray(shared_weights, svd=False)
    assert facts["n_analyzed"] > 0
    assert not facts["looks_untrained"]
    # Adapters have one matrix of each pair that training hardly moves.
    assert facts["n_random"] <= (0.45 if shared_weights.name.startswith("lora") else 0.25) * facts["n_matrices"]


def test_minilm_does_not_look_untrained_and_its_double_does(minilm_dir: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors.numpy")
    source = minilm_dir / "model.safetensors"
    assert not bigsmall.xray(source, svd=False)["looks_untrained"]
    rng = np.random.default_rng(7)
    double = {
        name: rng.normal(array.mean(), array.std(), array.shape).astype("f4") if array.dtype == np.float32 else array
        for name, array in safetensors.load_file(source).items()
    }
    safetensors.save_file(double, tmp_path / "double.safetensors")
    facts = bigsmall.xray(tmp_path / "double.safetensors", svd=False)
    assert facts["looks_untrained"]
    assert facts["n_random"] >= 38


def test_files_of_every_kind_give_the_same(source: Path, compressed: Path, tmp_path: Path) -> None:
    def without_path(facts: dict) -> str:
        return json.dumps({**facts, "path": None})

    expected = without_path(bigsmall.xray(source, threads=1))
    assert without_path(bigsmall.xray(compressed, threads=2)) == expected
    (tmp_path / "model").mkdir()
    source.rename(tmp_path / "model" / "model.safetensors")
    bigsmall.compress(tmp_path / "model")
    for path in (tmp_path / "model", tmp_path / "model-bs"):
        assert without_path(bigsmall.xray(path)) == expected


def test_special_values(tmp_path: Path) -> None:
    array = np.random.default_rng(8).normal(0, 1, (80, 80)).astype("f4")
    array[0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    array[1, :2] = [3e38, -3e38]
    for dtype in ("F32", "BF16", "F8_E5M2"):
        found = one(tmp_path, words(dtype, array))
        assert found["non_finite_share"] > 0
        assert json.dumps(found, allow_nan=False)
    for array in (np.zeros((80, 80)), np.full((80, 80), -2.5), np.full((80, 80), np.nan)):
        found = one(tmp_path, words("F32", array))
        assert json.dumps(found, allow_nan=False)
        assert "exp_near_random" not in found["flags"]
    facts = bigsmall.xray(write_safetensors(tmp_path / "ints.safetensors", {"ids": Raw("I64", (9,), bytes(72))}))
    assert (facts["tensors"], facts["looks_untrained"], facts["median_h_exp"]) == ([], False, None)


def test_the_command(source: Path, cli: Cli, tmp_path: Path) -> None:
    done = cli("xray", source, "--json", tmp_path / "facts.json", "--min-elements", 1000)
    lines = done.stdout.splitlines()
    assert lines[0] == f"xray: {source}"
    assert re.fullmatch(r"  tensors analyzed: \d+ \(of \d+ seen; min 1000 elements\)", lines[1])
    assert re.fullmatch(r"  median H_exp  \d\.\d{4} bits   median H_mant \d\.\d{4} bits   median ratio \d+\.\d\d%", lines[2])
    assert re.fullmatch(r"  median mantissa coder-KL vs matched normal: \d\.\d{4} bits/symbol \(coder band 0\.02\)", lines[3])
    assert lines[4].startswith("  flags: ")
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert json.loads(cli("xray", source, "--json", "--min-elements", 1000).stdout) == facts
    assert json.loads(cli("xray", source, "--json-only", "--min-elements", 1000).stdout) == facts
    again = cli("xray", source, "--json", tmp_path / "facts.json", "--json-only")
    assert (again.returncode, again.stdout) == (1, "")
    assert "--force" in again.stderr
    assert cli("xray", source, "--json", tmp_path / "facts.json", "--json-only", "--force").stdout == ""


def test_wrong_inputs(compressed: Path, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello, this is no checkpoint")
    (tmp_path / "empty.bs").write_bytes(b"")
    data = bytearray(compressed.read_bytes())
    (tmp_path / "short.bs").write_bytes(data[:-100])
    data[-500] ^= 1
    (tmp_path / "damaged.bs").write_bytes(data)
    for name, status in {"missing": 1, "text.safetensors": 3, "empty.bs": 3, "short.bs": 3, "damaged.bs": 3}.items():
        done = cli("xray", tmp_path / name, "--min-elements", 1)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1), (name, done)
    assert cli("xray", compressed, "--min-elements", "-1").returncode == 2


def test_the_page_stands_on_its_own(source: Path, cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    path = tmp_path / "report.html"
    done = cli("xray", source, "--html", path, "--min-elements", 64)
    assert done.returncode == 0, done.stderr
    text = path.read_text()
    assert [*re.findall("<h2>([^<]*)", text)] == ["Entropy along depth", "Exponents", "Flags", "Where the bytes are", "Fingerprints"]
    # Nothing is fetched: scripts and styles are in the page.
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert "model.layers.1.mlp.up_proj.weight" in text
    assert cli("xray", source, "--html", path).returncode == 1
    assert cli("xray", source, "--html", path, "--force").returncode == 0


def test_names_are_text_on_the_page(tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    name = "</script><script>alert(1)</script>"
    source = write_safetensors(tmp_path / "a.safetensors", {name: words("F32", np.random.default_rng(9).normal(size=(70, 70)))})
    assert "<script>alert(1)" not in report.page(bigsmall.xray(source))


def test_a_missing_plotly_is_named(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from bigsmall.cli import main

    monkeypatch.setitem(__import__("sys").modules, "plotly", None)
    assert main(["xray", str(source), "--html", "never.html"]) == 1
    assert capsys.readouterr().err == "bigsmall: error: xray --html needs plotly: pip install 'bigsmall[report]'\n"
