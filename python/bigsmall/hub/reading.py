"""Tensors from the Hub without a download."""

import errno
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._core import Reader
from ..errors import FormatError, located
from ..files import COMPRESSED_SUFFIX
from ..model_files import INDEX
from ..progress import ProgressOption, reporting
from ..stream.ahead import Ahead
from ..stream.shards import Shards
from .client import hub_errors
from .remote import Listing, listing

if TYPE_CHECKING:
    import torch

BATCH_BYTES = 64 << 20
"""Compressed bytes that are asked for at a time."""


def stream_from_hub(
    repo_id: str,
    device: "str | int | torch.device" = "cpu",
    *,
    dtype: "torch.dtype | None" = None,
    token: str | bool | None = None,
    revision: str | None = None,
    cache: bool = False,
    threads: int = 0,
    progress: ProgressOption = None,
) -> "dict[str, torch.Tensor]":
    """The state dict of a compressed model on the Hub, read over the network as it is decoded: nothing is written to disk.

    At most three times 64 MiB of compressed tensors are in memory beside the result, where single tensors are not larger. A connection that
    breaks is tried again; a file that changes meanwhile makes no difference, since all is read of one commit.

    Args:
        repo_id: the repository, such as `user/model`.
        device: where the tensors go.
        dtype: what floating-point tensors are cast to; by default they stay as they are.
        token: for private repositories; by default the one that is logged in.
        revision: a branch, tag or commit.
        cache: download the files into the Hub's cache instead, and load them from there.
        threads: for decoding; 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        torch tensors by name, all shards together.

    Raises:
        FileNotFoundError: no such repository or revision, it holds no `.bs` files, or lacks one that its index names.
        PermissionError, ConnectionError, OSError: the Hub refuses, cannot be reached, or answers wrongly.
        FormatError, VersionError, CorruptError: as `bigsmall.load`.
        ModuleNotFoundError: PyTorch or huggingface_hub is not installed.
    """

    from ..torch import framework

    place = framework(device).place
    if cache:
        from ..pretrained import from_pretrained

        with hub_errors(repo_id):
            loaded = from_pretrained(repo_id, device, threads=threads, progress=progress, revision=revision, token=token)
        return {name: _cast(tensor, dtype) for name, tensor in loaded.items()}
    shards = remote_shards(listing(repo_id, revision=revision, token=token), token=token)
    total = shards.raw_bytes(shards.entries)
    tensors: dict[str, torch.Tensor] = {}
    done = 0
    with reporting(progress, "stream") as report:
        for batch in _held_batches(shards):
            for name, tensor in shards.tensors(batch, threads=threads).items():
                tensors[name] = _cast(place(framework().wrap(tensor)), dtype)
            shards.release(batch)
            done += shards.raw_bytes(batch)
            if report is not None:
                report(done, total)
    return {name: tensors[name] for name in shards.entries}


def remote_shards(files: Listing, *, token: str | bool | None = None) -> Shards:
    """The `.bs` files at the top of a repository, open. Raises FileNotFoundError where it has none, or lacks one that its index names."""
    names = files.matching(rf"[^/]+{COMPRESSED_SUFFIX}")
    if INDEX in files.sizes:
        names = _named_by_index(files, token)
    if not names:
        raise FileNotFoundError(errno.ENOENT, f"the repository holds no {COMPRESSED_SUFFIX} files", files.repo_id)
    for name in names:
        if name not in files.sizes:
            raise FileNotFoundError(errno.ENOENT, f"the repository lacks {name}, which its index names", files.repo_id)
    return Shards([Reader(files.open(name, token)) for name in names])


def _named_by_index(files: Listing, token: str | bool | None) -> list[str]:
    index = files.open(INDEX, token)
    try:
        return sorted(set(json.loads(index.read_at(0, index.n_bytes))["weight_map"].values()))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise located(FormatError, "this is no index of a model", path=index.path) from error


def _held_batches(shards: Shards) -> Iterator[list[str]]:
    """Names of tensors whose bytes have come, the next ones being on their way."""
    batches: list[list[str]] = []
    n_bytes = 0
    for name, entry in shards.entries.items():
        if not batches or n_bytes + entry["compressed_bytes"] > BATCH_BYTES:
            batches.append([])
            n_bytes = 0
        batches[-1].append(name)
        n_bytes += entry["compressed_bytes"]
    ahead: Ahead[int, int] = Ahead(lambda i: shards.hold(batches[i]), 2)
    try:
        for i, batch in enumerate(batches):
            ahead.take(i)
            ahead.expect(range(i + 1, len(batches)))
            yield batch
    finally:
        ahead.close()


def _cast(tensor: Any, dtype: "torch.dtype | None") -> Any:
    return tensor if dtype is None or not tensor.is_floating_point() else tensor.to(dtype)
