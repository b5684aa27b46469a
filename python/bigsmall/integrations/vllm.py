"""vLLM.

    vllm serve folder-with-bs-files --load-format bigsmall

vLLM finds the load format by itself, through the package's entry point in the group `vllm.general_plugins`, and takes it for folders and
repositories that hold `.bs` files and no safetensors files. In a version of vLLM that this does not fit, `decompress_to_temp` makes a
folder that any version reads.
"""

import dataclasses
import functools
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from .. import files
from .._core import Reader, packed_files
from ..errors import FrameworkError
from ..extras import require
from ..files import COMPRESSED_SUFFIX, RESTORED_SUFFIX, StrPath
from ..hooks.patches import Function, Parameters, Patches
from ..model_files import INDEX
from ..repository import local_copy

LOAD_FORMAT = "bigsmall"
PATTERNS = [f"*{COMPRESSED_SUFFIX}", INDEX]
WITHOUT_PLUGIN = "bigsmall.integrations.vllm.decompress_to_temp(path) makes a folder that every version of vLLM reads"


def decompress_to_temp(path_or_repo: StrPath, config_dir: StrPath | None = None, output_dir: StrPath | None = None) -> Path:
    """A folder with the original safetensors files, for whatever reads nothing else.

    Args:
        path_or_repo: a `.bs` file, a compressed directory, or a Hub repository.
        config_dir: where configuration and tokenizer are, if not beside the weights.
        output_dir: the folder to be made; by default one in the system's temporary directory, which is the caller's to remove.

    Returns:
        the folder.

    Raises:
        FileExistsError: `output_dir` exists.
        FormatError, CorruptError, OSError: as `bigsmall.decompress`. No folder is left.
    """
    path = local_copy(path_or_repo, beside_weights=config_dir is None)
    made = None if output_dir is not None else tempfile.mkdtemp(prefix="bigsmall-")
    target = Path(made, "model") if made is not None else Path(output_dir or "")
    try:
        if path.is_dir():
            files.decompress(path, target)
        else:
            target.mkdir()
            files.decompress(path, target / f"model{RESTORED_SUFFIX}")
        beside = config_dir if config_dir is not None else None if path.is_dir() else path.parent
        for file in () if beside is None else Path(beside).iterdir():
            if file.is_file() and file.suffix not in (COMPRESSED_SUFFIX, RESTORED_SUFFIX) and not file.name.endswith(".index.json"):
                shutil.copy(file, target)
    except BaseException:
        if made is not None:
            shutil.rmtree(made, ignore_errors=True)
        raise
    return target


def register() -> None:
    """Make vLLM know the load format `bigsmall`. vLLM calls this in each of its processes; a second call does nothing."""
    loaders = require("vllm.model_executor.model_loader", "vllm", "vLLM's loader")
    if LOAD_FORMAT in loaders._LOAD_FORMAT_TO_MODEL_LOADER:
        return
    patches = Patches()
    try:
        patches.method(require("vllm.engine.arg_utils", "vllm", "vLLM").EngineArgs, "create_model_config", _choosing_format)
        config = require("vllm.transformers_utils.config", "vllm", "vLLM")
        patches.function(config, "_read_safetensors_metadata_in_dir", _describing_folder)
        patches.function(config, "_read_safetensors_metadata_in_repo", _describing_repository)
        loaders.register_model_loader(LOAD_FORMAT)(get_loader_class())
    except (FrameworkError, ImportError, AttributeError) as error:
        patches.undo()
        raise FrameworkError(f"this version of vLLM has no place for a loader: {error}. {WITHOUT_PLUGIN}") from error


@functools.cache
def get_loader_class() -> Any:
    """The class that vLLM loads `.bs` files with: its `DefaultModelLoader`, except in which files it reads and how.

    Raises ModuleNotFoundError if vLLM is not installed, FrameworkError if its own loader is not what it was.
    """
    default_loader = require("vllm.model_executor.model_loader.default_loader", "vllm", "vLLM's loader")
    utils = require("vllm.model_executor.model_loader.weight_utils", "vllm", "vLLM's loader")
    is_foreign_expert = require("vllm.model_executor.model_loader.ep_weight_filter", "vllm", "vLLM's loader").should_skip_weight
    base: Any = default_loader.DefaultModelLoader
    needed = ("model_name_or_path", "subfolder", "revision")
    Parameters(base._prepare_weights, *needed)
    Parameters(base._get_weights_iterator, "source")

    class BigSmallModelLoader(base):  # type: ignore[misc]
        """`.bs` files. Where a model takes further weights from another place, which has none, they are read as ever."""

        counter_before_loading_weights: float

        def _prepare_weights(
            self, model_name_or_path: str, subfolder: str | None, revision: str | None, *others: Any, **options: Any
        ) -> tuple[str, list[str], bool, str]:
            if Path(model_name_or_path).is_dir():
                folder = Path(model_name_or_path)
            else:
                config = self.load_config
                options = {"subfolder": subfolder, "ignore_patterns": config.ignore_patterns}
                folder = Path(utils.download_weights_from_hf(model_name_or_path, config.download_dir, PATTERNS, revision, **options))
            # What is missing is told here, before memory for the model is taken.
            return str(folder), packed_files(folder / (subfolder or "")), True, INDEX

        def _get_weights_iterator(self, source: Any) -> Iterator[tuple[str, Any]]:
            try:
                _, paths, _, _ = self._prepare_weights(source.model_or_path, source.subfolder, source.revision)
            except (FileNotFoundError, RuntimeError):
                if not self._has_other_weights(source):
                    raise
                yield from base(dataclasses.replace(self.load_config, load_format="auto"))._get_weights_iterator(source)
                return
            if self.counter_before_loading_weights == 0.0:
                self.counter_before_loading_weights = time.perf_counter()

            def wanted(name: str) -> bool:
                is_unused = source.is_unused_weight is not None and source.is_unused_weight(name)
                return not is_unused and not is_foreign_expert(name, self.local_expert_ids)

            for name, tensor in iterate(paths, wanted, is_split=_n_tensor_parallel() > 1, show=self.load_config.use_tqdm_on_load):
                yield source.prefix + name, tensor

        def _has_other_weights(self, source: Any) -> bool:
            folder = Path(source.model_or_path, source.subfolder or "")
            return not folder.is_dir() or any(folder.glob(f"*{RESTORED_SUFFIX}"))

    return BigSmallModelLoader


def iterate(paths: list[str], wanted: Callable[[str], bool], *, is_split: bool, show: bool) -> Iterator[tuple[str, Any]]:
    """(name, tensor) for the wanted tensors of `.bs` files.

    Args:
        paths: the files.
        wanted: whether the tensor of that name is.
        is_split: whether each process takes only its part of a tensor, so that tensors are better decoded when it has.
        show: a progress bar by the file, as engines draw it.
    """
    from tqdm.auto import tqdm

    from ..deferred import deferred_weights
    from ..torch import weights

    for path in tqdm(paths, desc="Loading bigsmall checkpoint shards", disable=not show):
        yield from deferred_weights(path, wanted) if is_split else weights(path, wanted)


def _n_tensor_parallel() -> int:
    """How many processes share each tensor; one before vLLM has started any."""
    try:
        from vllm.distributed import get_tensor_model_parallel_world_size

        return int(get_tensor_model_parallel_world_size())
    except (ImportError, AssertionError):
        return 1


def _choosing_format(original: Function) -> Function:
    """`EngineArgs.create_model_config`: models of `.bs` files alone get their load format."""

    def create_model_config(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.load_format == "auto" and holds_only_packed(self.model, self.revision):
            self.load_format = LOAD_FORMAT
        return original(self, *args, **kwargs)

    return create_model_config


def holds_only_packed(model: str, revision: str | None) -> bool:
    """Whether a folder or Hub repository has `.bs` files and no safetensors files."""
    names = [file.name for file in Path(model).iterdir()] if Path(model).is_dir() else _names_in_repository(model, revision)
    return any(name.endswith(COMPRESSED_SUFFIX) for name in names) and not any(name.endswith(RESTORED_SUFFIX) for name in names)


def _names_in_repository(repo: str, revision: str | None) -> list[str]:
    """Names of the files at the top of a repository; those in the cache where the Hub cannot be asked."""
    hub = require("huggingface_hub", "hf", "a Hub repository")
    try:
        return [name for name in hub.HfApi().list_repo_files(repo, revision=revision) if "/" not in name]
    except (OSError, hub.errors.HFValidationError, hub.errors.OfflineModeIsEnabled):
        pass
    try:
        folder = Path(hub.snapshot_download(repo, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        return []
    return [file.name for file in folder.iterdir()]


def _describing_folder(original: Function) -> Function:
    """`_read_safetensors_metadata_in_dir`: dtype and shape of every tensor by name."""

    def read_metadata_in_dir(local_dir: Any) -> Any:
        return original(local_dir) or {
            name: facts for path in sorted(Path(local_dir).glob(f"*{COMPRESSED_SUFFIX}")) for name, facts in _headers(Reader(path))
        }

    return read_metadata_in_dir


def _describing_repository(original: Function) -> Function:
    """`_read_safetensors_metadata_in_repo`, which reads nothing but headers over the network."""

    def read_metadata_in_repo(model: str, *args: Any, **kwargs: Any) -> Any:
        found = original(model, *args, **kwargs)
        if found:
            return found
        revision = kwargs.get("revision")
        names = [name for name in _names_in_repository(model, revision) if name.endswith(COMPRESSED_SUFFIX)]
        if not names:
            return found
        places = require("huggingface_hub", "hf", "a Hub repository").HfFileSystem()
        facts: dict[str, dict[str, Any]] = {}
        for name in names:
            with places.open(f"{model}{'' if revision is None else f'@{revision}'}/{name}", "rb", block_size=1 << 20) as file:
                facts |= dict(_headers(Reader(RemoteFile(file, name))))
        return facts

    return read_metadata_in_repo


class RemoteFile:
    """An open file of the Hub as the bytes that a reader reads."""

    def __init__(self, file: Any, path: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self.path = path
        self.n_bytes = int(file.size)

    def read_at(self, offset: int, n_bytes: int, /) -> bytes:
        with self._lock:
            self._file.seek(offset)
            data: bytes = self._file.read(n_bytes)
            return data


def _headers(reader: Reader) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in reader.entries():
        yield entry["name"], {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": (0, entry["raw_bytes"])}
