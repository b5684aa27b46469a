"""Models from and to the Hub."""

import errno
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from .._core import packed_files
from ..files import COMPRESSED_SUFFIX, Mode, StrPath, compress
from ..model_files import INDEX
from ..progress import ProgressOption
from ..repository import BESIDE_WEIGHTS, SAFETENSORS
from .client import client, hub_errors

LICENCES = ("LICENSE*", "README*", "NOTICE*")


def compress_for_hub(
    source: StrPath,
    output_dir: StrPath,
    *,
    mode: Mode = "balanced",
    force: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    cache_dir: StrPath | None = None,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Path:
    """Compress a model into a folder that can be uploaded: shards, index, and the small files that the model needs beside them.

    Args:
        source: a model directory, or a Hub repository, which is downloaded into the Hub's cache.
        output_dir: the folder to write.
        mode: `balanced`, `storage` or `inference`, see `bigsmall.compress`.
        force: replace a compressed model that is there.
        token, revision, cache_dir: for the Hub.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        the folder.

    Raises:
        FileNotFoundError: no such path or repository, or it holds no safetensors files.
        SourceError, OptionError, OSError: as `bigsmall.compress`; of the Hub also PermissionError and ConnectionError.
        ModuleNotFoundError: huggingface_hub is not installed, which a repository needs.
    """
    folder = Path(source) if Path(source).exists() else download_source(str(source), token=token, revision=revision, cache_dir=cache_dir)
    compress(folder, output_dir, mode=mode, force=force, threads=threads, progress=progress)
    return Path(output_dir)


def compress_from_hub(
    repo_id: str,
    output_path: StrPath,
    *,
    mode: Mode = "balanced",
    force: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    cache_dir: StrPath | None = None,
    threads: int = 0,
    progress: ProgressOption = None,
) -> Path:
    """Compress a model of the Hub without keeping the original: it is downloaded beside the output and deleted afterwards.

    Args:
        repo_id: the repository, such as `user/model`.
        output_path: a `.bs` file, which holds the weights of all shards, or a folder as `compress_for_hub` writes it.
        cache_dir: keep the download, in this cache.
        mode, force, token, revision, threads, progress: as for `compress_for_hub`.

    Returns:
        the file or folder.

    Raises: as `compress_for_hub`.
    """
    output = Path(output_path)
    with tempfile.TemporaryDirectory(dir=output.resolve().parent, prefix=f".{output.name}-") as scratch:
        local_dir = None if cache_dir is not None else Path(scratch, "source")
        folder = download_source(repo_id, token=token, revision=revision, cache_dir=cache_dir, local_dir=local_dir)
        compress(folder, output, mode=mode, force=force, threads=threads, progress=progress)
    return output


def upload_to_hub(
    folder: StrPath,
    repo_id: str,
    *,
    private: bool = False,
    commit_message: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a compressed model. The repository is made if there is none; files that it has already are not sent again.

    Args:
        folder: as `compress_for_hub` or `bigsmall.compress` writes it.
        repo_id: the repository, such as `user/model-bigsmall`.
        private: for a new repository.
        commit_message: by default one that names the folder.
        revision: the branch.
        token: by default the one that is logged in.

    Returns:
        the address of the repository.

    Raises:
        FileNotFoundError: the folder, or a shard that its index names, is missing.
        FormatError: the folder holds no compressed model.
        PermissionError, ConnectionError, OSError: the Hub refuses, cannot be reached, or answers wrongly.
        ModuleNotFoundError: huggingface_hub is not installed.
    """
    path = checked(folder)
    api = client().HfApi(token=token)
    with hub_errors(repo_id):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id, folder_path=path, commit_message=commit_message or message_for(path), revision=revision, ignore_patterns=[".*"]
        )
    return str(url)


def upload_to_hub_lfs(
    folder: StrPath,
    repo_id: str,
    *,
    private: bool = False,
    commit_message: str | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
) -> str:
    """Upload a compressed model file by file, each in a commit of its own, the index last.

    An upload that breaks off goes on with the first file that the repository lacks; until it is through, nobody who reads the repository
    by its index sees half a model. Arguments, result and errors are those of `upload_to_hub`.
    """
    path = checked(folder)
    hub = client()
    api = hub.HfApi(token=token)
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
    files.sort(key=lambda file: file.name == INDEX)
    with hub_errors(repo_id):
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        for file in files:
            name = file.relative_to(path).as_posix()
            addition = hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=file)
            there = api.get_paths_info(repo_id, [name], revision=revision)
            if there and _is_same(there[0], addition):
                continue
            message = f"{commit_message or message_for(path)}: {name}"
            api.create_commit(repo_id, [addition], commit_message=message, revision=revision)
    return str(url)


def _is_same(there: Any, addition: Any) -> bool:
    """Whether a file of the repository is the one that would be added."""
    if there.lfs is not None:
        return bool(there.lfs.sha256 == addition.upload_info.sha256.hex())
    # Of small files the Hub tells git's digest only.
    with addition.as_file() as file:
        data = file.read()
    return bool(there.blob_id == hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest())


def download_source(
    repo_id: str,
    *,
    token: str | bool | None = None,
    revision: str | None = None,
    cache_dir: StrPath | None = None,
    local_dir: StrPath | None = None,
) -> Path:
    """The folder with a repository's safetensors files and the small files beside them. Raises FileNotFoundError and other OSErrors."""
    hub = client()
    with hub_errors(repo_id):
        folder = Path(
            hub.snapshot_download(
                repo_id,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_dir=local_dir,
                allow_patterns=[*SAFETENSORS, *BESIDE_WEIGHTS, *LICENCES],
            )
        )
    if not folder.is_dir() or not any(folder.glob(SAFETENSORS[0])):
        raise FileNotFoundError(errno.ENOENT, "the repository holds no safetensors files", repo_id)
    return folder


def checked(folder: StrPath) -> Path:
    """The folder, if it holds a compressed model with all its shards."""
    path = Path(folder)
    if path.is_file():
        raise NotADirectoryError(errno.ENOTDIR, f"it is a file, not a folder with {COMPRESSED_SUFFIX} files", str(path))
    packed_files(path)
    return path


def message_for(folder: Path) -> str:
    return f"Compressed weights of {folder.resolve().name}"
