"""sglang.

    python -m sglang.launch_server --model-path folder-with-bs-files

sglang loads this by itself, through the package's entry point in the group `sglang.srt.plugins`, and hooks what it finds weights with and
what it reads them with. There is no load format to be named.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._core import packed_files
from ..extras import require
from ..hooks.patches import Function
from ..model_files import is_packed
from .vllm import PATTERNS, holds_only_packed, iterate

LOADER = "sglang.srt.model_loader.loader.DefaultModelLoader._prepare_weights"
ITERATORS = (
    "sglang.srt.model_loader.weight_utils.safetensors_weights_iterator",
    "sglang.srt.model_loader.weight_utils.buffered_multi_thread_safetensors_weights_iterator",
)


def register() -> None:
    """Have sglang hook its loader. sglang calls this in each of its processes."""
    hooks = require("sglang.srt.plugins.hook_registry", "sglang", "sglang's plug-in")
    around = hooks.HookType.AROUND
    hooks.HookRegistry.register(LOADER, find_weights, around)
    for iterator in ITERATORS:
        hooks.HookRegistry.register(iterator, read_weights, around)


def find_weights(original: Function, loader: Any, model_name_or_path: str, revision: str | None, *args: Any, **kwargs: Any) -> Any:
    """(folder, files, whether they are safetensors): what reads safetensors files is hooked too."""
    if not holds_only_packed(model_name_or_path, revision):
        return original(loader, model_name_or_path, revision, *args, **kwargs)
    folder = Path(model_name_or_path)
    if not folder.is_dir():
        from sglang.srt.model_loader.weight_utils import download_weights_from_hf

        config = loader.load_config
        options = {"ignore_patterns": config.ignore_patterns}
        folder = Path(download_weights_from_hf(model_name_or_path, config.download_dir, PATTERNS, revision, **options))
    return str(folder), packed_files(folder), True


def read_weights(original: Function, hf_weights_files: list[str], *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any]]:
    """(name, tensor) for every tensor of these files."""
    if not all(is_packed(file) for file in hf_weights_files):
        return iter(original(hf_weights_files, *args, **kwargs))
    return iterate(hf_weights_files, lambda _name: True, is_split=_n_tensor_parallel() > 1, show=True)


def _n_tensor_parallel() -> int:
    """How many processes share each tensor; one before sglang has started any."""
    try:
        from sglang.srt.distributed import get_tensor_model_parallel_world_size

        return int(get_tensor_model_parallel_world_size())
    except (ImportError, AssertionError, AttributeError):
        return 1
