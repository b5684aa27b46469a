"""`from_pretrained` of transformers for `.bs` files.

transformers finds the files of a checkpoint, makes of each safetensors file a dict of slices that are read when they are indexed, and fills
the model from that dict by several threads: renaming, casting, fusing, placing. Two of its functions are replaced for this, the one that
finds files and the one that makes the dict, and the rest is its own; a third reads the dtypes of a file.
"""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ..model_files import Folder, ModelFiles, find, is_complete, is_packed, only_one
from .patches import Function, Parameters, Patches

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
INDEX_SUFFIX = ".index.json"


def apply(module: ModuleType, patches: Patches) -> None:
    """Hook `transformers.modeling_utils`."""
    patches.function(module, "_get_resolved_checkpoint_files", finding)
    patches.function(module, "load_state_dict", reading)
    patches.method(module.PreTrainedModel, "_load_pretrained_model", lambda original: filling(original, module))


def apply_to_layers(module: ModuleType, patches: Patches) -> None:
    """Hook `transformers.modeling_layers`, which opens the files of a checkpoint itself in versions that know layers beside the model."""
    safe_open = vars(module).get("safe_open")
    if safe_open is not None:
        patches.variable(module, "safe_open", opening(safe_open))


def finding(original: Function) -> Function:
    """`_get_resolved_checkpoint_files`: (paths, index or None), those of `.bs` files where there are any to be taken."""
    parameters = Parameters(original, "pretrained_model_name_or_path", "variant", "gguf_file", "use_safetensors", "download_kwargs")

    def get_resolved_checkpoint_files(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        found = None
        # Whoever forbids safetensors wants pickles.
        if call["pretrained_model_name_or_path"] is not None and call["gguf_file"] is None and call["use_safetensors"] is not False:
            found = _find(call)
        if found is None:
            return original(*args, **kwargs)
        files = [str(file) for file in found.files]
        if len(files) == 1:
            return files, None
        return files, {"weight_map": found.weight_map, "all_checkpoint_keys": list(found.weight_map)}

    return get_resolved_checkpoint_files


def _find(call: dict[str, Any]) -> ModelFiles | None:
    path = Path(call["pretrained_model_name_or_path"])
    options = dict(call["download_kwargs"] or {})
    weights, index = _names(call.get("transformers_explicit_filename"), call["variant"])
    if path.is_file():
        return ModelFiles([path], {}) if is_packed(path) else None
    if path.is_dir():
        place = Path(path, options.get("subfolder") or "")
        if is_complete(place, weights, index):
            return None
        return find(Folder(place), weights, index, variant=call["variant"]) or (only_one(place) if weights == WEIGHTS else None)
    return find(Repository(call["pretrained_model_name_or_path"], options), weights, index, variant=call["variant"])


def _names(explicit: str | None, variant: str | None) -> tuple[str, str]:
    """The names of the safetensors file and of the index that transformers would look for."""
    if explicit is not None:
        weights = explicit.removesuffix(INDEX_SUFFIX)
        return weights, weights + INDEX_SUFFIX
    if variant is None:
        return WEIGHTS, INDEX
    return f"model.{variant}.safetensors", f"model.safetensors.index.{variant}.json"


class Repository:
    """The files of a Hub repository, by transformers' own functions: its cache, token, revision and offline mode."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self._name = name
        self._options = options

    def find(self, name: str) -> Path | None:
        from transformers.utils.hub import cached_file

        file = cached_file(
            self._name,
            name,
            _raise_exceptions_for_gated_repo=False,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            **self._options,
        )
        return None if file is None else Path(file)

    def get(self, names: Sequence[str]) -> list[Path]:
        from transformers.utils.hub import cached_files

        return [Path(file) for file in cached_files(self._name, list(names), **self._options) or []]


def reading(original: Function) -> Function:
    """`load_state_dict`: all tensors of a file, or of what shape and dtype they are."""
    parameters = Parameters(original, "checkpoint_file", "map_location")

    def load_state_dict(*args: Any, **kwargs: Any) -> Any:
        call = parameters.bind(args, kwargs).arguments
        if not is_packed(call["checkpoint_file"]):
            return original(*args, **kwargs)
        from .. import torch

        if str(call["map_location"]) == "meta":
            return {name: tensor.meta() for name, tensor in torch.lazy_tensors([call["checkpoint_file"]]).items()}
        return torch.load(call["checkpoint_file"], call["map_location"])

    return load_state_dict


def filling(original: Function, module: ModuleType) -> Function:
    """`PreTrainedModel._load_pretrained_model`, given the tensors of `.bs` files instead of the files."""
    parameters = Parameters(original, "state_dict", "checkpoint_files")

    def load_pretrained_model(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(args, kwargs)
        call = bound.arguments
        files = call["checkpoint_files"] or []
        packed = [file for file in files if is_packed(file)]
        if call["state_dict"] is None and packed:
            from .. import torch

            tensors: dict[str, Any] = dict(torch.lazy_tensors(packed))
            for file in files:
                if file not in packed:
                    # Of a class that has further files beside its checkpoint.
                    opened = module.safe_open(file, framework="pt", device="cpu")
                    tensors |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no dict
            call["state_dict"], call["checkpoint_files"] = tensors, None
        return original(*bound.args, **bound.kwargs)

    return load_pretrained_model


def opening(original: Any) -> Function:
    """`safetensors.safe_open`, which tells the format by the file's first bytes."""

    def safe_open(filename: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_packed(filename):
            return original(filename, *args, **kwargs)
        from ..reader import safe_open

        return safe_open(filename, *args, **kwargs)

    return safe_open
