"""diffusers: pipelines, their components, and single files of either.

>>> from bigsmall.integrations.diffusion import compress_diffusion, load_pipeline
>>> compress_diffusion("stable-diffusion", "stable-diffusion-bs")
>>> pipeline = load_pipeline("stable-diffusion-bs")

With `bigsmall.install_hook()`, diffusers' own `from_pretrained` does the same.
"""

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .. import files
from .._core import Reader
from ..errors import OptionError
from ..extras import require
from ..files import COMPRESSED_SUFFIX, RESTORED_SUFFIX, Facts, Mode, StrPath
from ..model_files import INDEX, is_packed, packed_name
from ..progress import Progress, ProgressOption, reporting

PIPELINE = "model_index.json"
CONFIG = "config.json"

NAMES = re.compile(
    r"^(down_blocks|up_blocks|mid_block|time_embed(ding)?|time_text_embed|x_embedder|pos_embed|conv_in|conv_out|unet|vae|first_stage_model)\b"
    r"|^model\.diffusion_model\.|controlnet|double_block|joint_block|transformer_block|time_embed"
)
"""What tensors of diffusion models are called, and those of language models are not."""


def is_diffusion_model(path: StrPath) -> bool:
    """Whether this is a diffusion pipeline or a component of one.

    Args:
        path: a folder, which is told by its configuration, or a `.bs` or safetensors file, which is told by its tensors' names.

    Raises OSError; FormatError or safetensors' own error for a file that is neither.
    """
    place = Path(path)
    if place.is_dir():
        if (place / PIPELINE).is_file():
            return True
        config = place / CONFIG
        return config.is_file() and "_diffusers_version" in json.loads(config.read_bytes())
    return any(NAMES.search(name.lower()) for name in _tensor_names(place))


def compress_diffusion(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    mode: Mode = "balanced",
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Facts:
    """Compress a pipeline: a folder with a folder for each component.

    Every safetensors file in it, those of variants among them, becomes a `.bs` file in the same place, and all other files are copied. A
    file, or a folder with the weights of one model, is compressed as by `bigsmall.compress`.

    Args and Returns: see `bigsmall.compress`.
    Raises: as `bigsmall.compress`.
    """
    if not _is_tree(Path(src), RESTORED_SUFFIX):
        return files.compress(src, dst, mode=mode, force=force, threads=threads, progress=progress)
    target = files.compressed_path(src) if dst is None else Path(dst)

    def convert(file: Path, place: Path, progress: Progress) -> Facts | None:
        if file.suffix != RESTORED_SUFFIX:
            return None
        return files.compress(file, place.with_suffix(COMPRESSED_SUFFIX), mode=mode, threads=threads, progress=progress)

    return _convert_tree(Path(src), target, convert, force=force, label="compress", progress=progress)


def decompress_diffusion(
    src: StrPath,
    dst: StrPath | None = None,
    *,
    force: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Any:
    """Undo `compress_diffusion`: the same files again, byte for byte.

    Args: see `bigsmall.decompress`.
    Returns: see `bigsmall.decompress`, which without `dst` gives the arrays of a file; a pipeline goes beside its source then.
    Raises: as `bigsmall.decompress`.
    """
    if not _is_tree(Path(src), COMPRESSED_SUFFIX):
        options: dict[str, Any] = {"force": force, "threads": threads, "progress": progress}
        return files.decompress(src, **options) if dst is None else files.decompress(src, dst, **options)
    target = files.restored_path(src) if dst is None else Path(dst)

    def convert(file: Path, place: Path, progress: Progress) -> Facts | None:
        if file.is_dir():
            # The index of a compressed directory keeps what its files do not.
            return files.decompress(file, place, threads=threads, progress=progress) if (file / INDEX).is_file() else None
        if file.suffix != COMPRESSED_SUFFIX:
            return None
        return files.decompress(file, place.with_suffix(RESTORED_SUFFIX), threads=threads, progress=progress)

    return _convert_tree(Path(src), target, convert, force=force, label="decompress", progress=progress)


def load_pipeline(
    path_or_repo: StrPath,
    pipeline_class: Any = None,
    *,
    config_dir: StrPath | None = None,
    component: str | None = None,
    **options: Any,
) -> Any:
    """A diffusers pipeline with the weights of `.bs` files.

    Args:
        path_or_repo: the folder of a compressed pipeline or its Hub repository; or the `.bs` file of one component.
        pipeline_class: by default the one that the pipeline names.
        config_dir: for the file of a component, the folder of the pipeline that it belongs to, whose other weights are used.
        component: for the file of a component, which one, such as `unet`; by default the one that the file is named after.
        options: those of diffusers' `from_pretrained`, such as `torch_dtype`.

    Raises:
        ModuleNotFoundError: diffusers is not installed.
        OptionError: a component's file without the pipeline it belongs to, or one that the pipeline has not.
        FormatError, CorruptError, OSError: as `bigsmall.load`.
    """
    from ..hooks.registry import hooked

    diffusers = require("diffusers", "diffusion", "a pipeline")
    pipeline_class = pipeline_class or diffusers.DiffusionPipeline
    with hooked():
        if not Path(path_or_repo).is_file():
            return pipeline_class.from_pretrained(path_or_repo, **options)
        if config_dir is None:
            raise OptionError(f"{path_or_repo}: this is the file of a component; config_dir says where the pipeline is")
        name = component or Path(path_or_repo).name.partition(".")[0]
        components = json.loads(Path(config_dir, PIPELINE).read_bytes())
        if name.startswith("_") or not isinstance(components.get(name), list):
            known = ", ".join(sorted(key for key, value in components.items() if isinstance(value, list)))
            raise OptionError(f"{path_or_repo}: the pipeline has no component {name!r}; component names one of {known}")
        part = _load_component(components[name], Path(config_dir, name), Path(path_or_repo), options)
        return pipeline_class.from_pretrained(config_dir, **{name: part}, **options)


def _load_component(library_and_class: list[str], folder: Path, weights: Path, options: dict[str, Any]) -> Any:
    """The component whose configuration is in `folder`, with these weights."""
    library, class_name = library_and_class
    model_class = getattr(require(library, "diffusion", "a pipeline"), class_name)
    file_name = "model.safetensors" if library == "transformers" else "diffusion_pytorch_model.safetensors"
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(folder / CONFIG, scratch)
        Path(scratch, packed_name(file_name)).symlink_to(weights.resolve())
        dtype = {"torch_dtype": options["torch_dtype"]} if "torch_dtype" in options else {}
        return model_class.from_pretrained(scratch, **dtype)


def _tensor_names(file: Path) -> list[str]:
    if is_packed(file):
        return Reader(file).keys()
    with require("safetensors", "diffusion", "a safetensors file").safe_open(file, framework="numpy") as opened:
        return list(opened.keys())


def _is_tree(src: Path, suffix: str) -> bool:
    """Whether there are weights in folders of this one."""
    return src.is_dir() and any(len(file.relative_to(src).parts) > 1 for file in src.rglob(f"*{suffix}"))


Convert = Callable[[Path, Path, Progress], Facts | None]
"""Given a file or folder, where it would go and whom to tell, make what takes its place; None if it is to be copied."""


def _convert_tree(src: Path, dst: Path, convert: Convert, *, force: bool, label: str, progress: ProgressOption) -> Facts:
    """A copy of a tree with the weights converted. It appears at `dst` whole or not at all."""
    if not force and (dst.exists() or dst.is_symlink()):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(dst))
    if dst.exists() and (dst.resolve() == src.resolve() or src.resolve().is_relative_to(dst.resolve())):
        raise OptionError(f"{dst}: the source is the target or lies in it")
    if dst.is_dir() and any(dst.iterdir()) and not any(file.suffix in (COMPRESSED_SUFFIX, RESTORED_SUFFIX) for file in dst.rglob("*")):
        raise OptionError(f"{dst}: a directory without weights is no earlier output and is not replaced")
    facts: Facts = {"source_bytes": 0, "compressed_bytes": 0, "n_tensors": 0, "n_files": 0, "outputs": []}
    total = sum(file.stat().st_size for file in src.rglob("*") if file.is_file())
    done = 0
    with reporting(progress, label) as report, tempfile.TemporaryDirectory(prefix=f".{dst.name}-", dir=dst.parent) as scratch:
        staged = Path(scratch, "new")

        def walk(place: Path) -> None:
            nonlocal done
            target = staged / place.relative_to(src)
            n_bytes = place.stat().st_size if place.is_file() else sum(file.stat().st_size for file in place.rglob("*") if file.is_file())

            def told(part: int, of: int) -> None:
                if report is not None:
                    report(done + (n_bytes * part // of if of else 0), total)

            made = convert(place, target, told)
            if made is not None:
                for key in ("source_bytes", "compressed_bytes", "n_tensors", "n_files"):
                    facts[key] += made[key]
                facts["outputs"] += [os.fspath(dst / Path(output).relative_to(staged)) for output in made["outputs"]]
                done += n_bytes
            elif place.is_dir():
                target.mkdir(parents=True)
                for entry in sorted(place.iterdir()):
                    # What begins with a dot is some tool's own, as for `compress`.
                    if not (entry.is_dir() and entry.name.startswith(".")):
                        walk(entry)
            else:
                shutil.copy(place, target)
                done += n_bytes

        walk(src)
        if dst.exists():
            # The old directory keeps its contents until the new one stands in its place.
            dst.rename(Path(scratch, "old"))
        staged.rename(dst)
    return facts
