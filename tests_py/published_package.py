"""What the tests let a release of the published package do, in that release's own environment."""

import hashlib
import inspect
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

# Or each import asks the package index for the newest version.
os.environ["BIGSMALL_DISABLE_VERSION_CHECK"] = "1"

Told = dict[str, list[Any]]


def decompressed(path: str) -> Told:
    """Shape and sha256 of every tensor of a file; the package's own check must be content as well."""
    import bigsmall

    if not bigsmall.verify(path):
        raise ValueError(f"{path} does not pass verify")
    return told((name, array.shape, array.tobytes()) for name, array in bigsmall.decompress(path).items())


def loaded(directory: str) -> dict[str, Told]:
    """The same of a model directory, by way of torch: of all its tensors at once, and of each shard's one by one."""
    import bigsmall

    state = bigsmall.from_pretrained(directory, show_progress=False)
    read = {"": told_of_torch(state)}
    for shard in sorted(Path(directory).glob("*.bs")):
        with bigsmall.StreamingLoader(shard, device="cpu") as loader:
            read[shard.name] = told_of_torch({name: loader.load_tensor(name) for name in loader.tensor_names()})
    return read


def compress(source: str, target: str) -> Told:
    import bigsmall

    quiet = {"progress": False} if "progress" in inspect.signature(bigsmall.compress).parameters else {}
    bigsmall.compress(source, target, workers=1, **quiet)
    return {}


def compress_directory(source: str, target: str) -> Told:
    import bigsmall

    bigsmall.compress_for_hub(source, target, workers=1)
    return {}


def told_of_torch(tensors: Mapping[str, Any]) -> Told:
    import torch

    return told((name, tensor.shape, tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()) for name, tensor in tensors.items())


def told(tensors: Iterable[tuple[str, Iterable[int], bytes]]) -> Told:
    return {name: [list(shape), hashlib.sha256(data).hexdigest()] for name, shape, data in tensors}
