"""Loading by path or by Hub repository, without a hook."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._core import packed_files
from .extras import require
from .files import StrPath, load
from .progress import ProgressOption
from .repository import HUB_OPTIONS, SAFETENSORS, has_packed, local_copy

if TYPE_CHECKING:
    import torch

CONFIG = "config.json"


def from_pretrained(
    path_or_repo: StrPath,
    device: "str | int | torch.device" = "cpu",
    *,
    threads: int = 0,
    progress: ProgressOption = None,
    **hub_options: Any,
) -> "dict[str, torch.Tensor]":
    """The state dict of a model: a `.bs` file, a folder, or a Hub repository.

    >>> state_dict = bigsmall.from_pretrained("user/model")

    Args:
        path_or_repo: what to load. A repository or folder without `.bs` files is loaded from its safetensors files.
        device: where the tensors go.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).
        hub_options: `revision`, `token`, `cache_dir`, `local_files_only`, `force_download`, as everywhere around the Hub.

    Returns:
        torch tensors by name, all shards together.

    Raises:
        FileNotFoundError: there is no such path or repository, it holds neither `.bs` nor safetensors files, or a shard is missing.
        FormatError, VersionError, CorruptError, OSError: as `load`.
        ModuleNotFoundError: PyTorch is not installed, or huggingface_hub, which a repository needs.
    """
    require("torch", "torch", "a state dict")
    path = local_copy(path_or_repo, **_only_hub_options(hub_options))
    if has_packed(path):
        return load(path, device, threads=threads, progress=progress)
    load_file = require("safetensors.torch", "hf", "a safetensors file").load_file
    files = sorted(path.glob(SAFETENSORS[0])) if path.is_dir() else [path]
    return {name: tensor for file in files for name, tensor in load_file(file, device=str(device)).items()}


def load_model(path_or_repo: StrPath, model_class: Any = None, *, config_dir: StrPath | None = None, **options: Any) -> Any:
    """A transformers model with the weights of a `.bs` file, a folder or a Hub repository, by transformers' public functions alone.

    >>> model = bigsmall.load_model("llama-bs", transformers.AutoModelForCausalLM)

    Args:
        path_or_repo: what to load.
        model_class: a class of transformers' models or one of its `Auto` classes; by default the one that the configuration names.
        config_dir: the folder or repository of the configuration, where it is not beside the weights.
        options: those of transformers' `from_pretrained`, such as `dtype`, `device_map` and `trust_remote_code`; of these `revision`,
            `token`, `cache_dir`, `local_files_only` and `force_download` also for the Hub.

    Returns:
        the model that `model_class.from_pretrained` gives for the original checkpoint, bit for bit.

    Raises:
        FileNotFoundError, FormatError, VersionError, CorruptError, OSError: as `from_pretrained`; also without a configuration.
        ModuleNotFoundError: PyTorch, transformers or huggingface_hub is not installed.
    """
    require("torch", "torch", "a model")
    transformers = require("transformers", "hf", "a model")
    hub_options = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    path = local_copy(path_or_repo, beside_weights=config_dir is None, **hub_options)
    folder = path if path.is_dir() else path.parent
    config_place = folder if config_dir is None else config_dir
    if "config" not in options and Path(config_place).is_dir() and not Path(config_place, CONFIG).is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no configuration; config_dir may say where it is", str(Path(config_place, CONFIG)))
    remote_code: dict[str, Any] = {name: options[name] for name in ("trust_remote_code", "code_revision") if name in options}
    config = options.pop("config", None) or transformers.AutoConfig.from_pretrained(config_place, **remote_code)
    model_class = _concrete_class(transformers, model_class, config, remote_code)
    if not isinstance(config, model_class.config_class):
        # Of a model that is made of several, only the one that generates text.
        config = config.get_text_config()
    from .torch import lazy_tensors

    files = packed_files(path) if has_packed(path) else None
    if files is None:
        return model_class.from_pretrained(folder, config=config, **options)
    model = model_class.from_pretrained(None, config=config, state_dict=lazy_tensors(files), **options)
    loaded, _ = model if isinstance(model, tuple) else (model, None)
    loaded.name_or_path = loaded.config.name_or_path = str(path_or_repo)
    if loaded.can_generate() and "generation_config" not in options and Path(config_place, "generation_config.json").is_file():
        loaded.generation_config = transformers.GenerationConfig.from_pretrained(config_place)
    return model


def _concrete_class(transformers: Any, model_class: Any, config: Any, remote_code: dict[str, Any]) -> Any:
    """The class of the model itself, where an `Auto` class or nothing is given."""
    if isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel):
        return model_class
    if model_class is None:
        named = getattr(transformers, (config.architectures or ["AutoModel"])[0], transformers.AutoModel)
        return _concrete_class(transformers, named, config, remote_code)
    import torch

    with torch.device("meta"):
        return type(model_class.from_config(config, **remote_code))


def _only_hub_options(options: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in options if name not in HUB_OPTIONS]
    if unknown:
        raise TypeError(f"from_pretrained() got an unexpected keyword argument {unknown[0]!r}")
    return options
