"""`from_pretrained` of diffusers for `.bs` files.

diffusers asks for an index and then for a file of a certain name, and reads what it has found by the end of its name. The functions that
find give the compressed file in place of the safetensors one where that is missing, and the one that reads looks at the first bytes. Of a
pipeline on the Hub, the files to be downloaded are chosen by names that a function takes for weights: to these, `.bs` files have the
names of the safetensors files they stand for.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..files import COMPRESSED_SUFFIX, RESTORED_SUFFIX
from ..model_files import INDEX, Folder, Place, find, is_packed, packed_name, read_weight_map
from .patches import Function, Parameters, Patches

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX_SUFFIX = ".index.json"


def apply(module: ModuleType, patches: Patches) -> None:
    """Hook `diffusers.models.modeling_utils`."""
    get_model_file = module._get_model_file
    patches.function(module, "_get_model_file", finding_file)
    patches.function(module, "_fetch_index_file", lambda original: finding_index(original, get_model_file))
    patches.function(module, "_get_checkpoint_shard_files", lambda original: finding_shards(original, get_model_file))
    patches.function(module, "load_state_dict", reading)


def apply_to_pipelines(module: ModuleType, patches: Patches) -> None:
    """Hook `diffusers.pipelines.pipeline_loading_utils`."""
    patches.function(module, "filter_model_files", filtering)
    patches.function(module, "is_safetensors_compatible", renaming)
    patches.function(module, "variant_compatible_siblings", choosing)


class Component:
    """The files of a model on the Hub, by diffusers' own function: its cache, token, revision and offline mode."""

    def __init__(self, get_model_file: Function, repo: str, options: dict[str, Any]) -> None:
        self._get = functools.partial(get_model_file, repo, **options)

    def find(self, name: str) -> Path | None:
        try:
            return Path(self._get(weights_name=name))
        except OSError:
            return None

    def get(self, names: Sequence[str]) -> list[Path]:
        return [Path(self._get(weights_name=name)) for name in names]


HUB_OPTIONS = ("subfolder", "cache_dir", "force_download", "proxies", "local_files_only", "token", "revision", "user_agent", "commit_hash")


def _place(get_model_file: Function, call: dict[str, Any]) -> Place:
    """Where the files of the model are that a call is about."""
    path = call["pretrained_model_name_or_path"]
    if Path(path).is_dir():
        return Folder(Path(path, call.get("subfolder") or ""))
    options = {name: call[name] for name in HUB_OPTIONS if name in call}
    return Component(get_model_file, str(path), {**options, "subfolder": options.get("subfolder") or None})


def finding_file(original: Function) -> Function:
    """`_get_model_file`: the path of a file, or of the `.bs` file in its place."""
    parameters = Parameters(original, "pretrained_model_name_or_path", "weights_name", "subfolder")

    def get_model_file(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        path, name = Path(call["pretrained_model_name_or_path"]), call["weights_name"]
        if not name.endswith(RESTORED_SUFFIX) or path.is_file():
            return original(*args, **kwargs)
        wanted = packed_name(name)
        if not path.is_dir():
            return str(Component(original, str(path), _options(call)).find(wanted) or original(*args, **kwargs))
        folders = [path, *([path / call["subfolder"]] if call["subfolder"] else [])]
        if any((folder / name).is_file() for folder in folders):
            return original(*args, **kwargs)
        return next((str(folder / wanted) for folder in folders if (folder / wanted).is_file()), None) or original(*args, **kwargs)

    return get_model_file


def _options(call: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if name not in ("pretrained_model_name_or_path", "weights_name")}


def finding_index(original: Function, get_model_file: Function) -> Function:
    """`_fetch_index_file`: the path of the index of a sharded model, or of the compressed directory in its place."""
    parameters = Parameters(original, "is_local", "pretrained_model_name_or_path", "subfolder", "use_safetensors", "variant")

    def fetch_index_file(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        if not call["use_safetensors"] or call["variant"] is not None:
            return original(*args, **kwargs)
        place = _place(get_model_file, call)
        if isinstance(place, Folder) and (place.find(WEIGHTS) or place.find(WEIGHTS + INDEX_SUFFIX)):
            return original(*args, **kwargs)
        index = place.find(INDEX)
        if index is None or len(set(read_weight_map(index).values())) == 1:
            return original(*args, **kwargs)
        return index

    return fetch_index_file


def finding_shards(original: Function, get_model_file: Function) -> Function:
    """`_get_checkpoint_shard_files`: the paths of the shards that an index names, and what the index says."""
    parameters = Parameters(original, "pretrained_model_name_or_path", "index_filename")

    def get_checkpoint_shard_files(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        index = Path(call["index_filename"])
        place = _place(get_model_file, call)
        is_ours = index.name == INDEX
        if not is_ours and isinstance(place, Folder) and all(place.find(name) for name in set(read_weight_map(index).values())):
            return original(*args, **kwargs)
        # A safetensors index of a variant names shards like any other; the index of a compressed directory has none.
        found = find(place, WEIGHTS, WEIGHTS + INDEX_SUFFIX if is_ours else index.name, variant=None if is_ours else "")
        if found is None:
            return original(*args, **kwargs)
        metadata = {"all_checkpoint_keys": list(found.weight_map), "weight_map": dict(found.weight_map)}
        return [str(file) for file in found.files], metadata

    return get_checkpoint_shard_files


def reading(original: Function) -> Function:
    """`load_state_dict`: all tensors of a file."""
    parameters = Parameters(original, "checkpoint_file")

    def load_state_dict(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        file = call["checkpoint_file"]
        if isinstance(file, dict) or not is_packed(file):
            return original(*args, **kwargs)
        from .. import torch

        return torch.load(file, call.get("map_location", "cpu"))

    return load_state_dict


def _original_name(name: str) -> str:
    """`unet/model.safetensors` for `unet/model.bs`."""
    return name.removesuffix(COMPRESSED_SUFFIX) + RESTORED_SUFFIX if name.endswith(COMPRESSED_SUFFIX) else name


def renaming(original: Function) -> Function:
    """A function that is told file names."""

    def renamed(filenames: Iterable[str], *args: Any, **kwargs: Any) -> Any:
        return original([_original_name(name) for name in filenames], *args, **kwargs)

    return renamed


def filtering(original: Function) -> Function:
    """`filter_model_files`: those of the names that are weights."""

    def filter_model_files(filenames: Iterable[str]) -> Any:
        names = list(filenames)
        return [*original(names), *(name for name in names if name.endswith(COMPRESSED_SUFFIX))]

    return filter_model_files


def choosing(original: Function) -> Function:
    """`variant_compatible_siblings`: the names to be downloaded, and those of them that are the variant's."""

    def variant_compatible_siblings(filenames: Iterable[str], *args: Any, **kwargs: Any) -> Any:
        # Where both forms of a file are there, the smaller one.
        names = {_original_name(name): name for name in sorted(filenames, key=lambda name: name.endswith(COMPRESSED_SUFFIX))}
        usable, of_variant = original(list(names), *args, **kwargs)
        there: Callable[[Iterable[str]], set[str]] = lambda chosen: {names.get(name, name) for name in chosen}  # noqa: E731
        indices = {name for name in names if Path(name).name == INDEX}
        return there(usable) | indices, there(of_variant)

    return variant_compatible_siblings
