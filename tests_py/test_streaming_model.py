"""transformers models that run from compressed weights, beside the same models loaded whole."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from architectures import CONFIGS, inputs, make
from bigsmall.stream.placement import Tier, place

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

STREAMED = [name for name in CONFIGS if name != "albert"]
"""Albert has one layer that runs several times."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """By name: the `Auto` class, the model loaded whole, and its compressed folder."""
    made: dict[str, Any] = {}

    def get(name: str) -> Any:
        if name not in made:
            auto, original, packed = make(name, tmp_path_factory.mktemp(name))
            made[name] = (auto, auto.from_pretrained(original).eval(), packed)
        return made[name]

    yield get
    made.clear()


def generated(model: Any, name: str, n_tokens: int = 5) -> list[int]:
    start = {"decoder_start_token_id": 0} if name == "t5" else {}
    return model.generate(inputs("")["input_ids"], max_new_tokens=n_tokens, do_sample=False, **start)[0].tolist()


def stream(models: Any, name: str, **options: Any) -> Any:
    auto, _, packed = models(name)
    return bigsmall.BigSmallStreamingModel.from_pretrained(packed, model_class=auto, **options)


def check(models: Any, name: str, streamed: Any) -> None:
    """Logits and generated tokens are the whole model's; afterwards no layer but the kept ones has parameters."""
    _, whole, _ = models(name)
    assert type(streamed) is type(whole)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(streamed(**inputs(name)).logits, whole(**inputs(name)).logits)
    if whole.can_generate():
        assert generated(streamed, name) == generated(whole, name)
    kept = {streamed.streaming.layer_names[i] for i in streamed.streaming.kept_layers}
    for layer in streamed.streaming.layer_names:
        devices = {parameter.device.type for parameter in streamed.get_submodule(layer).parameters()}
        assert devices == {"cpu" if layer in kept else "meta"}


@pytest.mark.parametrize("name", STREAMED)
def test_a_streamed_model_is_the_model(models: Any, name: str) -> None:
    streamed = stream(models, name, prefetch=1)
    check(models, name, streamed)
    streamed.streaming.close()


@pytest.mark.parametrize(
    "options", [{"prefetch": 0}, {"prefetch": 2}, {"prefetch": 9}, {"compressed_in": "ram"}, {"compressed_in": "disk"}]
)
@pytest.mark.parametrize("name", ["llama_tied", "t5"])
def test_however_it_streams(models: Any, name: str, options: dict[str, Any]) -> None:
    streamed = stream(models, name, **options)
    check(models, name, streamed)
    streamed.streaming.close()


def test_a_sharded_model(tmp_path: Path) -> None:
    auto, original, packed = make("llama", tmp_path, max_shard_size="100KB")
    assert len(list(packed.glob("*.bs"))) > 2
    streamed = bigsmall.BigSmallStreamingModel.from_pretrained(packed)
    whole = auto.from_pretrained(original)
    assert generated(streamed, "llama") == generated(whole, "llama")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_another_dtype(models: Any, dtype: str) -> None:
    auto, _, packed = models("mixtral")
    whole = auto.from_pretrained(packed.with_name("mixtral"), dtype=getattr(torch, dtype)).eval()
    streamed = stream(models, "mixtral", dtype=getattr(torch, dtype), prefetch=1)
    with torch.no_grad():
        assert torch.equal(streamed(**inputs("mixtral")).logits, whole(**inputs("mixtral")).logits)


def test_what_has_no_layers_is_told(models: Any) -> None:
    with pytest.raises(bigsmall.OptionError, match="no layers that run one after the other"):
        stream(models, "albert")


def test_layers_stay_as_far_as_the_budget_goes(models: Any) -> None:
    one = stream(models, "llama")
    largest = one.streaming.memory.scratch_bytes
    for n_kept in (0, 1, 2, 3):
        streamed = stream(models, "llama", lru_max_vram_gb=(n_kept + 0.5) * largest / 1e9, prefetch=0)
        check(models, "llama", streamed)
        assert streamed.streaming.kept_layers == list(range(n_kept))
        before = len(streamed.streaming.decodes)
        with torch.no_grad():
            streamed(**inputs("llama"))
        assert len(streamed.streaming.decodes) - before == 3 - n_kept


def test_an_encoder_gives_way_while_the_decoder_runs(models: Any) -> None:
    """One layer may stay: at first the encoder's, which is not needed again while text is generated."""
    size = stream(models, "t5", prefetch=0).streaming.memory.scratch_bytes
    streamed = stream(models, "t5", lru_max_vram_gb=1.2 * size / 1e9, prefetch=1)
    generated(streamed, "t5", 1)
    assert [streamed.streaming.layer_names[i] for i in streamed.streaming.kept_layers] == ["encoder.block.0"]
    assert generated(streamed, "t5", 12) == generated(models("t5")[1], "t5", 12)
    assert [streamed.streaming.layer_names[i].split(".")[0] for i in streamed.streaming.kept_layers] == ["decoder"]


def test_layers_are_read_where_they_wait(models: Any) -> None:
    streamed = stream(models, "llama", ram_gb=1, pin_layers={0: "vram", 1: Tier.NVME})
    assert streamed.streaming.tiers == [Tier.VRAM, Tier.NVME, Tier.RAM]
    assert streamed.streaming.kept_layers == [0]
    assert streamed.streaming.memory.held_bytes == streamed.streaming.compressed_bytes[2]
    check(models, "llama", streamed)
    assert {i for i, _ in streamed.streaming.decodes[1:]} == {1, 2}


def test_the_memory_is_told_beforehand(models: Any) -> None:
    whole = models("llama")[1]
    layer_bytes = sum(parameter.nbytes for parameter in whole.model.layers[0].parameters())
    everything = sum(parameter.nbytes for parameter in whole.parameters())
    memory = stream(models, "llama", prefetch=1).streaming.memory
    assert 0 <= memory.scratch_bytes - 2 * layer_bytes < 2 * 64 * 12
    buffers = sum(buffer.nbytes for buffer in whole.buffers())
    assert memory.resident_bytes == everything - 3 * layer_bytes + buffers
    assert memory.bound_bytes == memory.scratch_bytes + memory.resident_bytes
    assert stream(models, "llama", lru_max_vram_gb=1).streaming.memory.kept_bytes < 1.01 * 3 * layer_bytes


def test_scratch_memory_is_used_again(models: Any) -> None:
    streamed = stream(models, "gpt2", prefetch=1)
    seen = set()
    layers = [streamed.get_submodule(name) for name in streamed.streaming.layer_names]
    for layer in layers:
        layer.register_forward_pre_hook(lambda module, args: seen.add(next(module.parameters()).untyped_storage().data_ptr()))
    generated(streamed, "gpt2", 8)
    assert 1 <= len(seen) <= 2


def test_an_error_inside_a_layer_leaves_the_model_whole(models: Any) -> None:
    streamed = stream(models, "llama", prefetch=1)

    def fail(module: Any, args: Any) -> None:
        raise ArithmeticError("in the middle")

    hook = streamed.get_submodule(streamed.streaming.layer_names[1]).mlp.register_forward_pre_hook(fail)
    with pytest.raises(ArithmeticError):
        streamed(**inputs("llama"))
    hook.remove()
    check(models, "llama", streamed)


@pytest.fixture
def folder(models: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models("llama")[2], tmp_path / "copy"))


def test_damage_that_is_met_while_the_model_runs(tmp_path: Path) -> None:
    """Layers are large enough here to be stored apart."""
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=256, intermediate_size=1024, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4
    )
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    streamed = bigsmall.BigSmallStreamingModel.from_pretrained(tmp_path / "packed", prefetch=1)
    file = tmp_path / "packed" / "model.bs"
    intact = file.read_bytes()
    ((start, stop),) = bigsmall.Reader(file).stored_ranges(["model.layers.1.mlp.up_proj.weight"])
    file.write_bytes(intact[: stop - 100] + bytes([intact[stop - 100] ^ 1]) + intact[stop - 99 :])
    for _ in range(2):
        with pytest.raises(bigsmall.CorruptError, match=r'"model.layers.1.mlp.up_proj.weight": block \d+: does not match its checksum'):
            streamed(**inputs("llama"))
    with file.open("r+b") as opened:
        opened.truncate(start)
    with pytest.raises(OSError, match="fill whole buffer"):
        streamed(**inputs("llama"))
    with file.open("r+b") as opened:
        opened.write(intact)
    with torch.no_grad():
        streamed(**inputs("llama"))


def test_a_checkpoint_that_lacks_parameters(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = bigsmall.load(folder / "model.bs")
    del tensors["model.layers.2.mlp.up_proj.weight"], tensors["model.norm.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    bigsmall.compress(tmp_path / "model.safetensors", folder / "model.bs", force=True)
    with pytest.raises(bigsmall.FormatError, match=r"lacks: model\.layers\.2\.mlp\.up_proj\.weight, model\.norm\.weight$"):
        bigsmall.BigSmallStreamingModel.from_pretrained(folder)


def test_a_checkpoint_of_other_shapes(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 80}))
    with pytest.raises(bigsmall.FormatError, match=r"of shape \(64, 96\), which is \(64, 80\) in the model"):
        bigsmall.BigSmallStreamingModel.from_pretrained(folder)


def test_wrong_requests(folder: Path) -> None:
    load = bigsmall.BigSmallStreamingModel.from_pretrained
    for options, message in (
        ({"lru_max_vram_gb": -1}, "lru_max_vram_gb is -1"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"compressed_in": "tape"}, "not in 'tape'"),
        ({"pin_layers": {0: "tape"}}, "no tier 'tape', only vram, ram, nvme"),
        ({"pin_layers": {3: "ram"}}, "no layer 3 to pin: the model has 3"),
        ({"model_class": dict}, "dict is no class of transformers' models"),
    ):
        with pytest.raises(bigsmall.OptionError, match=message):
            load(folder, **options)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(bigsmall.OptionError, match="quantization_config cannot be streamed"):
        load(folder)
    (folder / "model.bs").write_bytes(b"")
    with pytest.raises(bigsmall.FormatError, match="empty"):
        load(folder)


def test_a_transformers_that_is_not_known(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers.conversion_mapping as module

    monkeypatch.delattr(module, "get_model_conversion_mapping")
    with pytest.raises(bigsmall.FrameworkError, match=rf"transformers {transformers.__version__} .*bigsmall\.load"):
        bigsmall.BigSmallStreamingModel.from_pretrained(folder)


def test_without_what_it_needs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'bigsmall\[hf\]'"):
        bigsmall.BigSmallStreamingModel.from_pretrained(folder)


@pytest.mark.parametrize(
    ("budgets", "pinned", "tiers"),
    [
        ({}, {}, "nnnn"),
        ({"vram_bytes": 20}, {}, "vvnn"),
        ({"ram_bytes": 20}, {}, "rrrn"),
        ({"vram_bytes": 10, "ram_bytes": 6}, {}, "vrnn"),
        ({"vram_bytes": 10}, {3: Tier.VRAM}, "nnnv"),
        ({"ram_bytes": 12}, {0: Tier.NVME, 2: Tier.VRAM}, "nrvr"),
        ({}, {1: Tier.RAM}, "nrnn"),
    ],
)
def test_placement(budgets: dict[str, int], pinned: dict[int, Tier], tiers: str) -> None:
    placed = place([10] * 4, [6] * 4, pinned=pinned, **budgets)
    assert "".join(tier.value[0] for tier in placed) == tiers


MEASURE = """
import json, sys, torch, transformers, bigsmall, bigsmall.stream.model
from bigsmall.stream.memory import forget_peak, peak_resident_set
torch.set_num_threads(1)
ids = torch.arange(1, 9).view(1, -1)
tiny = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, vocab_size=64)
transformers.LlamaForCausalLM(tiny).generate(ids, max_new_tokens=2)
has_peak = forget_peak()
model = bigsmall.BigSmallStreamingModel.from_pretrained(sys.argv[1], prefetch=1)
model.generate(ids, max_new_tokens=3, do_sample=False)
before, peak = model.streaming.resident_before_bytes, peak_resident_set()
print(json.dumps([has_peak and before is not None, model.streaming.memory.bound_bytes, (peak or 0) - (before or 0)]))
"""

ROOM_BYTES = 48 << 20
"""For activations, the decoder's buffers, and what the allocator keeps."""


def test_the_memory_is_what_was_told(tmp_path: Path) -> None:
    """On a model of 222 MB, of which 30 MB are to be in memory."""
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=8, num_key_value_heads=8
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    whole_bytes = sum(parameter.nbytes for parameter in model.parameters())
    model.save_pretrained(tmp_path / "model")
    bigsmall.compress(tmp_path / "model", tmp_path / "packed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "packed")], capture_output=True, text=True, check=True
    )
    is_measured, bound_bytes, grown_bytes = json.loads(done.stdout.splitlines()[-1])
    if not is_measured:
        pytest.skip("the system does not tell what a process takes")
    assert bound_bytes < whole_bytes / 4
    assert grown_bytes < bound_bytes + ROOM_BYTES < whole_bytes / 2
