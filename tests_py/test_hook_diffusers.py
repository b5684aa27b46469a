"""diffusers opens `.bs` files, with the results that it has from the safetensors files they were made of."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from architectures import state
from bigsmall.integrations.diffusion import compress_diffusion, decompress_diffusion, is_diffusion_model, load_pipeline
from hub_server import Hub
from models import files_of, write_model_dir

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

COMPONENTS = ("unet", "vae", "text_encoder")
NOT_THERE = {"tokenizer": None, "safety_checker": None}


@pytest.fixture(autouse=True)
def hook() -> Iterator[None]:
    bigsmall.install_hook()
    yield
    bigsmall.uninstall_hook()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small Stable Diffusion pipeline, and the same compressed."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 64),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=8,
        attention_head_dim=8,
    )
    vae = diffusers.AutoencoderKL(block_out_channels=(32,), norm_num_groups=8)
    settings = {"hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4, "num_hidden_layers": 2, "vocab_size": 100}
    pipeline = diffusers.StableDiffusionPipeline(
        unet=unet,
        vae=vae,
        text_encoder=transformers.CLIPTextModel(transformers.CLIPTextConfig(**settings)),
        tokenizer=None,
        scheduler=diffusers.DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    folder = tmp_path_factory.mktemp("pipelines")
    pipeline.save_pretrained(folder / "original")
    pipeline.to(torch.float16).save_pretrained(folder / "original", variant="fp16")
    compress_diffusion(folder / "original", folder / "packed")
    assert not list((folder / "packed").rglob("*.safetensors"))
    return folder / "original", folder / "packed"


def states(pipeline: Any) -> dict[str, Any]:
    return {name: state(getattr(pipeline, name)) for name in COMPONENTS}


@pytest.mark.parametrize(
    "options",
    [{}, {"torch_dtype": "float16"}, {"low_cpu_mem_usage": False}, {"use_safetensors": True}, {"device_map": "cpu"}, {"variant": "fp16"}],
    ids=str,
)
def test_pipelines(folders: tuple[Path, Path], options: dict[str, Any]) -> None:
    if "torch_dtype" in options:
        options = {"torch_dtype": torch.float16}
    theirs, ours = (diffusers.DiffusionPipeline.from_pretrained(folder, **NOT_THERE, **options) for folder in folders)
    assert states(ours) == states(theirs)


def test_load_pipeline_leaves_no_hook(folders: tuple[Path, Path]) -> None:
    expected = states(diffusers.DiffusionPipeline.from_pretrained(folders[0], **NOT_THERE))
    bigsmall.uninstall_hook()
    assert states(load_pipeline(folders[1], **NOT_THERE)) == expected
    with pytest.raises(OSError, match="diffusion_pytorch_model"):
        diffusers.UNet2DConditionModel.from_pretrained(folders[1], subfolder="unet")


@pytest.mark.parametrize("component", ["unet", "text_encoder"])
def test_the_file_of_a_component(folders: tuple[Path, Path], component: str, tmp_path: Path) -> None:
    original, packed = folders
    (weights,) = (path for path in (packed / component).glob("*.bs") if "fp16" not in path.name)
    shutil.copy(weights, tmp_path / f"{component}.bs")
    shutil.copy(weights, tmp_path / "weights.bs")
    expected = states(diffusers.DiffusionPipeline.from_pretrained(original, **NOT_THERE))
    for loaded in (
        load_pipeline(tmp_path / f"{component}.bs", config_dir=original, **NOT_THERE),
        load_pipeline(tmp_path / "weights.bs", config_dir=original, component=component, **NOT_THERE),
    ):
        assert states(loaded) == expected
    with pytest.raises(bigsmall.OptionError, match="component names one of"):
        load_pipeline(tmp_path / "weights.bs", config_dir=original)
    with pytest.raises(bigsmall.OptionError, match="config_dir"):
        load_pipeline(tmp_path / "weights.bs")


@pytest.mark.parametrize("way", ["directory", "one by one"])
def test_a_sharded_model(folders: tuple[Path, Path], tmp_path: Path, way: str) -> None:
    unet = diffusers.UNet2DConditionModel.from_pretrained(folders[0], subfolder="unet")
    unet.save_pretrained(tmp_path / "unet", max_shard_size="200KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 2
    (tmp_path / "pipeline").mkdir()
    shutil.copytree(tmp_path / "unet", tmp_path / "pipeline" / "unet")
    if way == "directory":
        (tmp_path / "packed").mkdir()
        bigsmall.compress(tmp_path / "unet", tmp_path / "packed" / "unet")
    else:
        compress_diffusion(tmp_path / "pipeline", tmp_path / "packed")
    for folder, options in ((tmp_path / "packed" / "unet", {}), (tmp_path / "packed", {"subfolder": "unet"})):
        assert state(diffusers.UNet2DConditionModel.from_pretrained(folder, **options)) == state(unet)
    decompress_diffusion(tmp_path / "packed", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "pipeline")
    shard = sorted((tmp_path / "packed" / "unet").glob("*.bs"))[1]
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=shard.name):
        diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "packed" / "unet")


@pytest.mark.parametrize("options", [{}, {"use_safetensors": True}, {"variant": "fp16"}], ids=str)
def test_pipelines_on_the_hub(folders: tuple[Path, Path], hub: Hub, options: dict[str, Any], tmp_path: Path) -> None:
    hub.add_folder("hooked/pipeline", folders[1])
    ours = diffusers.DiffusionPipeline.from_pretrained("hooked/pipeline", cache_dir=tmp_path, **NOT_THERE, **options)
    assert states(ours) == states(diffusers.DiffusionPipeline.from_pretrained(folders[0], **NOT_THERE, **options))
    fetched = [name for name in hub.downloads() if name.endswith(".bs")]
    assert len(fetched) == 3
    assert all(("fp16" in name) == ("variant" in options) for name in fetched)


def test_models_on_the_hub(folders: tuple[Path, Path], hub: Hub, tmp_path: Path) -> None:
    expected = diffusers.UNet2DConditionModel.from_pretrained(folders[0], subfolder="unet")
    hub.add_folder("hooked/pipeline-2", folders[1])
    hub.add_folder("hooked/plain-2", folders[0])
    for repo in ("hooked/pipeline-2", "hooked/plain-2"):
        assert state(diffusers.UNet2DConditionModel.from_pretrained(repo, subfolder="unet", cache_dir=tmp_path)) == state(expected)
    expected.save_pretrained(tmp_path / "unet", max_shard_size="200KB")
    bigsmall.compress(tmp_path / "unet", tmp_path / "unet-bs")
    hub.add_folder("hooked/unet", tmp_path / "unet-bs")
    assert state(diffusers.UNet2DConditionModel.from_pretrained("hooked/unet", cache_dir=tmp_path)) == state(expected)


def test_restored_pipelines_are_the_same_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    original, packed = folders
    facts = decompress_diffusion(packed, tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(original)
    assert facts["n_files"] == len(facts["outputs"]) == len(list(original.rglob("*.safetensors")))
    assert all(Path(output).is_file() for output in facts["outputs"])


def test_outputs_appear_whole_or_not_at_all(folders: tuple[Path, Path], tmp_path: Path) -> None:
    original, _ = folders
    shutil.copytree(original, tmp_path / "damaged")
    weights = tmp_path / "damaged" / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(bigsmall.SourceError):
        compress_diffusion(tmp_path / "damaged", tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"damaged"}
    seen = []
    compress_diffusion(original, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    total = sum(len(data) for data in files_of(original).values())
    assert {of for _, of in seen} == {total}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1][0] <= total
    with pytest.raises(FileExistsError):
        compress_diffusion(original, tmp_path / "out")
    compress_diffusion(original, tmp_path / "out", force=True)
    with pytest.raises(bigsmall.OptionError):
        compress_diffusion(original, original, force=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(bigsmall.OptionError, match="no earlier output"):
        compress_diffusion(original, tmp_path / "mine", force=True)


def test_single_files(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source = folders[0] / "unet" / "diffusion_pytorch_model.safetensors"
    compress_diffusion(source, tmp_path / "unet.bs")
    decompress_diffusion(tmp_path / "unet.bs", tmp_path / "unet.safetensors")
    assert (tmp_path / "unet.safetensors").read_bytes() == source.read_bytes()
    assert set(decompress_diffusion(tmp_path / "unet.bs")) == set(bigsmall.Reader(tmp_path / "unet.bs").keys())


def test_what_is_a_diffusion_model(folders: tuple[Path, Path], tmp_path: Path) -> None:
    write_model_dir(tmp_path / "llama")
    bigsmall.compress(tmp_path / "llama", tmp_path / "llama.bs")
    assert not is_diffusion_model(tmp_path / "llama")
    assert not is_diffusion_model(tmp_path / "llama.bs")
    for folder, suffix in zip(folders, ("safetensors", "bs"), strict=True):
        assert is_diffusion_model(folder)
        assert is_diffusion_model(folder / "unet")
        assert not is_diffusion_model(folder / "text_encoder")
        assert is_diffusion_model(folder / "unet" / f"diffusion_pytorch_model.{suffix}")
        assert not is_diffusion_model(folder / "text_encoder" / f"model.{suffix}")


def test_a_pipeline_without_weights(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[1], tmp_path / "empty")
    for file in (tmp_path / "empty").rglob("*.bs"):
        file.unlink()
    with pytest.raises(OSError, match="no file named"):
        diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "empty", subfolder="unet")


def test_a_damaged_component(folders: tuple[Path, Path], tmp_path: Path) -> None:
    shutil.copytree(folders[1] / "unet", tmp_path / "unet")
    weights = tmp_path / "unet" / "diffusion_pytorch_model.bs"
    data = bytearray(weights.read_bytes())
    data[-200] ^= 1
    weights.write_bytes(data)
    with pytest.raises(bigsmall.CorruptError, match=r"diffusion_pytorch_model\.bs"):
        diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "unet")


def test_what_the_readme_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).resolve().parent.parent / "README.md").read_text()
    (shown,) = (block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "compress_diffusion" in block)
    settings = {"sample_size": 8, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    original = diffusers.DDPMPipeline(unet=diffusers.UNet2DModel(**settings, **blocks), scheduler=diffusers.DDPMScheduler())
    monkeypatch.chdir(tmp_path)
    original.save_pretrained("stable-diffusion")
    names: dict[str, Any] = {}
    exec(shown, names)
    assert type(names["pipeline"]) is diffusers.DDPMPipeline
    assert state(names["pipeline"].unet) == state(original.unet)
