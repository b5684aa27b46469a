"""transformers opens `.bs` files, with the results that it has from the safetensors files they were made of."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from architectures import CONFIGS, inputs, make, state
from hub_server import Hub

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

Pair = tuple[Any, Path, Path]
"""An `Auto` class, the folder of a model's safetensors files and that of its `.bs` files."""


@pytest.fixture(autouse=True)
def hook() -> Iterator[None]:
    bigsmall.install_hook()
    yield
    bigsmall.uninstall_hook()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """A model by its name, made once; `sharded` in several files."""
    made: dict[tuple[str, bool], Pair] = {}

    def model(name: str, *, sharded: bool = False) -> Pair:
        if (name, sharded) not in made:
            save = {"max_shard_size": "60KB"} if sharded else {}
            made[name, sharded] = make(name, tmp_path_factory.mktemp("models"), **save)
        return made[name, sharded]

    return model


@pytest.fixture
def llama(models: Callable[..., Pair]) -> Pair:
    return models("llama")


def assert_same(pair: Pair, auto: Any = None, **options: Any) -> Any:
    """Load both models with these options, compare them bit by bit, and return the one of `.bs` files."""
    auto = auto or pair[0]
    theirs, ours = (auto.from_pretrained(folder, **options) for folder in pair[1:])
    assert not list(pair[2].rglob("*.safetensors"))
    assert state(ours) == state(theirs)
    return ours


def logits(model: Any, name: str = "llama") -> Any:
    with torch.no_grad():
        return model(**inputs(name)).logits


@pytest.mark.parametrize("name", CONFIGS)
def test_every_architecture(models: Callable[..., Pair], name: str) -> None:
    auto, original, packed = models(name)
    expected = auto.from_pretrained(original)
    for loaded in (auto.from_pretrained(packed), bigsmall.load_model(packed, auto), bigsmall.load_model(packed)):
        assert type(loaded) is type(expected)
        assert state(loaded) == state(expected)
        assert torch.equal(logits(loaded, name), logits(expected, name))


@pytest.mark.parametrize("name", ["llama", "llama_tied", "mixtral"])
def test_shards(models: Callable[..., Pair], name: str) -> None:
    pair = models(name, sharded=True)
    assert len(list(pair[2].glob("*.bs"))) > 2
    assert_same(pair)
    assert state(bigsmall.load_model(pair[2])) == state(pair[0].from_pretrained(pair[1]))


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "float32"},
        {"dtype": "float16"},
        {"dtype": "auto"},
        {"device_map": "auto"},
        {"device_map": "cpu"},
        {"device_map": {"": "cpu"}},
        {"use_safetensors": True},
        {"low_cpu_mem_usage": True},
        {"output_loading_info": False},
    ],
    ids=str,
)
def test_options(llama: Pair, options: dict[str, Any]) -> None:
    pytest.importorskip("accelerate")
    loaded = assert_same(llama, **options)
    if "dtype" in options and options["dtype"] != "auto":
        assert loaded.dtype == getattr(torch, options["dtype"])


def test_loading_info(llama: Pair) -> None:
    auto, original, packed = llama
    _, theirs = auto.from_pretrained(original, output_loading_info=True)
    _, ours = auto.from_pretrained(packed, output_loading_info=True)
    assert ours == theirs


def test_the_model_without_its_head(models: Callable[..., Pair]) -> None:
    assert_same(models("llama_tied"), transformers.AutoModel)


def test_dtypes_that_only_the_file_tells(llama: Pair, tmp_path: Path) -> None:
    """Without a dtype in the configuration, transformers looks at the tensors."""
    folders = []
    for folder in llama[1:]:
        folders.append(tmp_path / folder.name)
        shutil.copytree(folder, folders[-1])
        config = json.loads((folder / "config.json").read_text())
        config.pop("dtype", None)
        (folders[-1] / "config.json").write_text(json.dumps(config))
    assert assert_same((llama[0], *folders)).dtype == torch.bfloat16


DISK = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk", "model.layers.2": "disk", "model.norm": "cpu"}
DISK |= {"model.rotary_emb": "cpu", "lm_head": "cpu"}


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_layers_on_disk(models: Callable[..., Pair], name: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    auto, original, packed = models(name)
    expected = auto.from_pretrained(original)
    loaded = auto.from_pretrained(packed, device_map=DISK, offload_folder=tmp_path / "offload")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu", "meta"}
    assert torch.equal(logits(loaded), logits(expected))
    ids = inputs(name)["input_ids"]
    assert torch.equal(*(model.generate(ids, max_new_tokens=4, do_sample=False) for model in (loaded, expected)))


@pytest.mark.parametrize("name", ["llama", "llama_tied", "mixtral"])
def test_what_is_saved_is_the_original(models: Callable[..., Pair], name: str, tmp_path: Path) -> None:
    auto, original, packed = models(name)
    auto.from_pretrained(packed).save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == (original / "model.safetensors").read_bytes()


def test_parameters_are_the_memory_that_was_decoded_into(llama: Pair) -> None:
    """torch's own memory could be resized, and a tensor that was copied on the way would be in it."""
    for parameter in llama[0].from_pretrained(llama[2]).parameters():
        assert not parameter.untyped_storage().resizable()
        assert parameter.data_ptr() % 64 == 0


def test_a_loaded_model_can_be_trained(llama: Pair) -> None:
    model = llama[0].from_pretrained(llama[2]).train()
    ids = inputs("llama")["input_ids"]
    model(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_several_tensors_at_a_time_with_transformers_progress(
    llama: Pair, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from bigsmall.torch import LazyTensor

    decode, threads = LazyTensor.__getitem__, set()

    def watched(tensor: LazyTensor, index: Any) -> Any:
        threads.add(threading.get_ident())
        return decode(tensor, index)

    monkeypatch.setattr(LazyTensor, "__getitem__", watched)
    transformers.logging.enable_progress_bar()
    llama[0].from_pretrained(llama[2])
    assert threading.get_ident() not in threads
    assert "Loading weights: 100%" in capfd.readouterr().err


def test_adapters_on_a_packed_base(llama: Pair, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    auto, original, packed = llama
    adapted = peft.get_peft_model(auto.from_pretrained(original), peft.LoraConfig(r=4, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter")
    bigsmall.compress(tmp_path / "adapter", tmp_path / "adapter-bs")
    results = []
    for base, adapter in ((original, "adapter"), (packed, "adapter"), (packed, "adapter-bs")):
        loaded = auto.from_pretrained(base)
        loaded.load_adapter(str(tmp_path / adapter))
        results.append(logits(loaded))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], logits(auto.from_pretrained(original)))
    theirs, ours = (peft.PeftModel.from_pretrained(auto.from_pretrained(base), tmp_path / "adapter") for base in (original, packed))
    assert torch.equal(logits(ours), logits(theirs))


def quantised(folder: Path, original: Path) -> Path:
    """The model with its projections in F8_E4M3 and a scale for each block, as checkpoints in that format have them."""
    from safetensors.torch import load_file, save_file

    tensors = {}
    for name, tensor in load_file(original / "model.safetensors").items():
        if not name.endswith("_proj.weight"):
            tensors[name] = tensor
            continue
        blocks = tensor.float().unfold(0, 32, 32).unfold(1, 32, 32)
        scales = blocks.abs().amax(dim=(2, 3)) / 448
        tensors[name] = (tensor.float() / scales.repeat_interleave(32, 0).repeat_interleave(32, 1)).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scales
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((original / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [32, 32], "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_model_with_a_quantisation_of_its_own(llama: Pair, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("transformers.integrations.finegrained_fp8", exc_type=ImportError, reason="this version's own wants triton")
    auto, original, _ = llama
    folder = quantised(tmp_path / "fp8", original)
    bigsmall.compress(folder, tmp_path / "fp8-bs")
    loaded = assert_same((auto, folder, tmp_path / "fp8-bs"))
    assert not torch.equal(logits(loaded), logits(auto.from_pretrained(original)))
    assert state(bigsmall.load_model(tmp_path / "fp8-bs")) == state(loaded)


def test_a_variant(llama: Pair, tmp_path: Path) -> None:
    auto, original, packed = llama
    theirs = tmp_path / "theirs"
    shutil.copytree(original, theirs)
    (theirs / "model.safetensors").rename(theirs / "model.fp16.safetensors")
    ours = tmp_path / "ours"
    shutil.copytree(theirs, ours)
    (ours / "model.fp16.safetensors").unlink()
    shutil.copy(packed / "model.bs", ours / "model.fp16.bs")
    assert_same((auto, theirs, ours), variant="fp16")


def test_shards_compressed_one_by_one_beside_their_index(models: Callable[..., Pair], tmp_path: Path) -> None:
    auto, original, packed = models("llama", sharded=True)
    folder = tmp_path / "mixed"
    shutil.copytree(packed, folder)
    (folder / "bigsmall.index.json").unlink()
    shutil.copy(original / "model.safetensors.index.json", folder)
    assert_same((auto, original, folder))


def test_a_subfolder(llama: Pair, tmp_path: Path) -> None:
    auto, original, packed = llama
    for name, folder in (("theirs", original), ("ours", packed)):
        shutil.copytree(folder, tmp_path / name / "part")
    assert_same((auto, tmp_path / "theirs", tmp_path / "ours"), subfolder="part")


def test_a_folder_with_a_single_file_of_another_name(llama: Pair, tmp_path: Path) -> None:
    auto, original, packed = llama
    shutil.copytree(packed, tmp_path / "named")
    (tmp_path / "named" / "bigsmall.index.json").unlink()
    (tmp_path / "named" / "model.bs").rename(tmp_path / "named" / "llama.bs")
    assert_same((auto, original, tmp_path / "named"))


def test_complete_safetensors_models_are_read_as_ever(llama: Pair, tmp_path: Path) -> None:
    auto, original, packed = llama
    shutil.copytree(original, tmp_path / "both")
    damaged = tmp_path / "both" / "model.bs"
    damaged.write_bytes((packed / "model.bs").read_bytes()[:100])
    assert state(auto.from_pretrained(tmp_path / "both")) == state(auto.from_pretrained(packed))


@pytest.mark.parametrize("sharded", [False, True])
def test_hub_repositories(models: Callable[..., Pair], hub: Hub, sharded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    auto, original, packed = models("llama", sharded=sharded)
    repo = f"hooked/llama{'-sharded' * sharded}"
    hub.add_folder(repo, packed)
    expected = state(auto.from_pretrained(original))
    assert state(auto.from_pretrained(repo)) == expected
    assert {name for name in hub.downloads() if name.endswith(".bs")} == {path.name for path in packed.glob("*.bs")}
    hub.reset()
    assert state(auto.from_pretrained(repo, local_files_only=True)) == expected
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert state(auto.from_pretrained(repo)) == expected
    assert hub.requests == []


def test_hub_repositories_of_safetensors(llama: Pair, hub: Hub) -> None:
    hub.add_folder("hooked/plain", llama[1])
    assert state(llama[0].from_pretrained("hooked/plain")) == state(llama[0].from_pretrained(llama[1]))


def test_hub_repositories_without_an_index(llama: Pair, hub: Hub) -> None:
    auto, original, packed = llama
    hub.add("hooked/single", {path.name: path.read_bytes() for path in packed.iterdir() if path.name != "bigsmall.index.json"})
    assert state(auto.from_pretrained("hooked/single")) == state(auto.from_pretrained(original))


def test_without_weights(llama: Pair, tmp_path: Path, hub: Hub) -> None:
    config = (llama[1] / "config.json").read_bytes()
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        llama[0].from_pretrained(tmp_path)
    hub.add("hooked/empty", {"config.json": config})
    with pytest.raises(OSError, match=r"does not appear to have a file named"):
        llama[0].from_pretrained("hooked/empty")
    for place in (tmp_path, "hooked/empty"):
        for load in (bigsmall.load_model, bigsmall.from_pretrained):
            with pytest.raises(FileNotFoundError, match=r"neither \.bs nor \.safetensors"):
                load(place)


@pytest.mark.parametrize("load", ["hook", "load_model"])
def test_bad_shards(models: Callable[..., Pair], tmp_path: Path, load: str) -> None:
    auto, _, packed = models("llama", sharded=True)
    folder = tmp_path / "bad"

    def attempt() -> None:
        auto.from_pretrained(folder) if load == "hook" else bigsmall.load_model(folder, auto)

    shards = sorted(path.name for path in packed.glob("*.bs"))
    shutil.copytree(packed, folder)
    good = (folder / shards[1]).read_bytes()
    (folder / shards[1]).unlink()
    with pytest.raises(FileNotFoundError) as missing:
        attempt()
    assert missing.value.filename == str(folder / shards[1])
    (folder / shards[1]).write_bytes(good[:-1])
    with pytest.raises(bigsmall.FormatError, match=shards[1]):
        attempt()
    flipped = bytearray(good)
    flipped[-100] ^= 4
    (folder / shards[1]).write_bytes(flipped)
    with pytest.raises(bigsmall.CorruptError, match=shards[1]) as corrupt:
        attempt()
    assert corrupt.value.tensor is not None
    (folder / shards[1]).write_bytes(good)
    (folder / "bigsmall.index.json").write_text('{"weight_map": {"x": "../x.bs"}}')
    with pytest.raises(bigsmall.FormatError, match=r"bigsmall\.index\.json"):
        attempt()


def test_a_file_apart_from_its_configuration(llama: Pair, tmp_path: Path) -> None:
    from bigsmall.integrations import huggingface

    auto, original, packed = llama
    shutil.copy(packed / "model.bs", tmp_path / "weights.bs")
    bigsmall.uninstall_hook()
    expected = state(auto.from_pretrained(original))
    assert state(huggingface.from_pretrained(tmp_path / "weights.bs", model_class=auto, config_dir=original)) == expected
    assert state(huggingface.from_pretrained(tmp_path / "weights.bs", transformers.LlamaForCausalLM, config_dir=original)) == expected
    assert state(bigsmall.load_model(original)) == expected
    with pytest.raises(FileNotFoundError, match="config_dir") as missing:
        bigsmall.load_model(tmp_path / "weights.bs")
    assert missing.value.filename == str(tmp_path / "config.json")
