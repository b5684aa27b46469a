"""Loading into vLLM and sglang: a folder that any version reads, and the plug-ins against the engines' own source."""

import subprocess
import sys
from pathlib import Path

import pytest

import bigsmall
from architectures import make
from hub_server import Hub
from models import files_of, write_model_dir

pytest.importorskip("torch")
pytest.importorskip("transformers")

ENGINES = Path(sys.prefix, "engines")
CHECKS = Path(__file__).parent / "engines"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_plug_in_with_the_engines_own_source(engine: str, hub: Hub, tmp_path: Path) -> None:
    if not (ENGINES / engine).is_dir():
        pytest.skip(f"the source of {engine} is absent: tools/fetch_engines.py brings it")
    _, original, packed = make("llama", tmp_path, max_shard_size="60KB")
    _, _, tied = make("llama_tied", tmp_path)
    hub.add_folder(f"engines/{engine}", packed)
    command = [sys.executable, str(CHECKS / f"check_{engine}.py"), str(ENGINES), str(original), str(packed), str(tied)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "all is as it should be"


def test_a_folder_with_the_original_files(tmp_path: Path, hub: Hub) -> None:
    from bigsmall.integrations.vllm import decompress_to_temp

    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "model-bs")
    expected = files_of(tmp_path / "model")
    made = decompress_to_temp(tmp_path / "model-bs")
    assert files_of(made) == expected
    assert files_of(decompress_to_temp(tmp_path / "model-bs", output_dir=tmp_path / "out")) == expected
    with pytest.raises(FileExistsError):
        decompress_to_temp(tmp_path / "model-bs", output_dir=tmp_path / "out")
    hub.add_folder("engines/folder", tmp_path / "model-bs")
    at_the_top = {name: data for name, data in expected.items() if "/" not in name}
    assert files_of(decompress_to_temp("engines/folder", output_dir=tmp_path / "hub")) == at_the_top


def test_the_folder_of_a_single_file(tmp_path: Path) -> None:
    from bigsmall.integrations.vllm import decompress_to_temp

    write_model_dir(tmp_path / "model", n_shards=1)
    bigsmall.compress(tmp_path / "model" / "model-00001-of-00001.safetensors", tmp_path / "weights.bs")
    made = decompress_to_temp(tmp_path / "weights.bs", config_dir=tmp_path / "model", output_dir=tmp_path / "out")
    assert sorted(file.name for file in made.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert (made / "model.safetensors").read_bytes() == (tmp_path / "model" / "model-00001-of-00001.safetensors").read_bytes()


def test_nothing_is_left_of_what_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bigsmall.integrations.vllm import decompress_to_temp

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    write_model_dir(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "model-bs")
    shard = next(iter((tmp_path / "model-bs").glob("*.bs")))
    data = bytearray(shard.read_bytes())
    data[-70] ^= 1
    shard.write_bytes(data)
    with pytest.raises(bigsmall.CorruptError):
        decompress_to_temp(tmp_path / "model-bs")
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(("engine", "extra"), [("vllm", "vllm"), ("sglang", "sglang")])
def test_without_the_engine(engine: str, extra: str) -> None:
    script = f"import sys; sys.modules[{engine!r}] = None; import bigsmall.integrations.{engine} as one; one.register()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"pip install 'bigsmall[{extra}]'" in done.stderr.splitlines()[-1]
