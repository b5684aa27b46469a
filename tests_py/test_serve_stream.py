"""`bigsmall serve-stream` on the demo model."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from bigsmall.cli import main

pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

DATA = Path(str(resources.files("bigsmall") / "data"))
N_LAYERS = 4


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model, compressed, in a folder without configuration."""
    path = tmp_path_factory.mktemp("demo") / "demo.bs"
    bigsmall.compress(DATA / "demo.safetensors", path)
    return path


def serve(capsys: pytest.CaptureFixture[str], demo: Path, *options: str) -> dict[str, Any]:
    assert main(["serve-stream", str(demo), "--config", str(DATA), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_text_is_the_whole_models(capsys: pytest.CaptureFixture[str], demo: Path) -> None:
    facts = serve(capsys, demo, "--prompt", "Return the", "--max-new-tokens", "12", "--prefetch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(DATA)
    model = bigsmall.load_model(demo, config_dir=DATA)
    tokens = model.generate(**tokenizer("Return the", return_tensors="pt"), max_new_tokens=12, do_sample=False)
    assert facts["output"] == tokenizer.decode(tokens[0], skip_special_tokens=True)
    assert facts["n_tokens"] == 12
    assert facts["prefetch"] == 1
    # Each layer is decoded for each token, and the first perhaps once more, ahead of a token that is not asked for.
    assert [layer["layer"] for layer in facts["decodes"]] == list(range(N_LAYERS))
    assert N_LAYERS * 12 <= facts["n_decodes"] <= N_LAYERS * 12 + 1
    assert facts["tokens_per_s"] > 0


def test_budgets_and_pins(capsys: pytest.CaptureFixture[str], demo: Path, tmp_path: Path) -> None:
    options = ["--ram-gb", "0.0005", "--pin-layer", "2:vram", "--pin-layer", "0:nvme", "--placement-json", str(tmp_path / "tiers.json")]
    facts = serve(capsys, demo, *options)
    assert [layer["tier"] for layer in facts["layers"]] == ["nvme", "ram", "vram", "nvme"]
    written = json.loads((tmp_path / "tiers.json").read_text())
    assert written == {key: facts[key] for key in ("layers", "memory")}
    memory = facts["memory"]
    assert memory["held_bytes"] == facts["layers"][1]["compressed_bytes"]
    assert memory["bound_bytes"] == sum(value for name, value in memory.items() if name != "bound_bytes")


def test_what_it_prints(capsys: pytest.CaptureFixture[str], demo: Path) -> None:
    assert main(["serve-stream", str(demo), "--config", str(DATA), "--prompt", "x", "--max-new-tokens", "2", "--vram-gb", "1"]) == 0
    out = capsys.readouterr().out
    for word in (
        "layers: 4",
        "residency: vram",
        "memory for weights: at most",
        "output: 'x",
        "tok/s; prefetch=",
        "per-layer decode: median",
    ):
        assert word in out


def test_wrong_requests(capsys: pytest.CaptureFixture[str], demo: Path, tmp_path: Path) -> None:
    config = ["--config", str(DATA)]
    for options, status, message in (
        ([str(tmp_path / "none.bs"), *config], 1, "none.bs: No such file"),
        ([str(demo), *config, "--pin-layer", "4:ram"], 2, "no layer 4 to pin: the model has 4"),
        ([str(demo), *config, "--device", "nonsense"], 2, "--device nonsense: "),
        ([str(demo), "--prompt", "x"], 1, "config.json"),
        ([str(DATA / "demo.safetensors"), *config], 3, "this is not a .bs file"),
    ):
        assert main(["serve-stream", *options]) == status
        err = capsys.readouterr().err
        assert message in err
        assert err.startswith("bigsmall: error: ")
        assert err.count("\n") == 1
    for options in (["--pin-layer", "0:tape"], ["--pin-layer", "ram"], ["--ram-gb", "-1"], ["--prefetch", "many"], ["--vram-gb", "nan"]):
        with pytest.raises(SystemExit) as ended:
            main(["serve-stream", str(demo), *config, *options])
        assert ended.value.code == 2
        assert options[0] in capsys.readouterr().err
