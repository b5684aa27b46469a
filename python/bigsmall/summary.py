"""What a compressed model consists of, read from its headers alone."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from ._core import Reader, packed_files
from .layers import layer_of

N_EXTREMES = 5


def stat(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """A dict for every tensor of a `.bs` file or compressed directory, in file order.

    Each has `name`, `dtype`, `shape` (a list), `codec`, `order` (in which its words are stored, None if as in the source), `raw_bytes`,
    `compressed_bytes` (its share where several tensors are packed together: `is_packed`), `ratio_pct` (None for an empty tensor),
    `tied_to` (the tensor that holds the same bytes, or None), `md5` of the original bytes, and `path` of its file.

    Raises FormatError, VersionError or OSError as `decompress` does.
    """
    return [row for file in packed_files(path) for row in _rows(Reader(file))]


def info(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A summary of a `.bs` file or compressed directory that can go into JSON. No tensor is decoded.

    - `path` and `file_count`
    - `version` (of the container), `format`, `mode` and `metadata` (safetensors' own, or None): those of the first file
    - `tensor_count`; `file_size`, `raw_bytes` (of the tensors) and `source_bytes` (of the safetensors files), in bytes;
      `ratio_pct`: compressed files to safetensors files
    - `layer_count`, `largest_layer_raw_bytes`, `non_layer_raw_bytes`, and `streaming_peak_ram_bytes`: what decoding layer by layer
      needs if only one layer and all that is in no layer is held
    - `codecs` and `dtypes`: `tensor_count`, `raw_bytes`, `compressed_bytes` and `ratio_pct` by name, most bytes first
    - `best` and `worst`: up to five tensors as in `stat`, tied and empty ones left out

    Raises FormatError, VersionError or OSError as `decompress` does.
    """
    readers = [Reader(file) for file in packed_files(path)]
    rows = [row for reader in readers for row in _rows(reader)]
    file_size = sum(reader.file_bytes for reader in readers)
    source_bytes = sum(reader.source_bytes for reader in readers)
    ranked = sorted((row for row in rows if row["ratio_pct"] is not None and row["tied_to"] is None), key=lambda row: row["ratio_pct"])
    layers: Counter[str | None] = Counter()
    for row in rows:
        layers[layer_of(row["name"])] += row["raw_bytes"]
    non_layer_bytes = layers.pop(None, 0)
    largest_layer_bytes = max(layers.values(), default=0)
    return {
        "path": os.fspath(path),
        "file_count": len(readers),
        "version": readers[0].version,
        "format": readers[0].format,
        "mode": readers[0].mode,
        "metadata": readers[0].metadata,
        "tensor_count": len(rows),
        "file_size": file_size,
        "raw_bytes": sum(reader.raw_bytes for reader in readers),
        "source_bytes": source_bytes,
        "ratio_pct": ratio_pct(file_size, source_bytes),
        "layer_count": len(layers),
        "largest_layer_raw_bytes": largest_layer_bytes,
        "non_layer_raw_bytes": non_layer_bytes,
        "streaming_peak_ram_bytes": non_layer_bytes + largest_layer_bytes,
        "codecs": totals_by(rows, lambda row: row["codec"]),
        "dtypes": totals_by(rows, lambda row: row["dtype"]),
        "best": ranked[:N_EXTREMES],
        "worst": ranked[: -N_EXTREMES - 1 : -1],
    }


def ratio_pct(compressed_bytes: int, raw_bytes: int) -> float | None:
    """Compressed size as percent of the raw size; None where there is nothing to compress."""
    return 100 * compressed_bytes / raw_bytes if raw_bytes else None


def totals_by(rows: Iterable[dict[str, Any]], key: Callable[[dict[str, Any]], str]) -> dict[str, dict[str, Any]]:
    """The `total` of the rows of `stat` that have the same key, most raw bytes first."""
    groups: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    totals = {name: total(group) for name, group in groups.items()}
    return dict(sorted(totals.items(), key=lambda item: -item[1]["raw_bytes"]))


def total(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """`tensor_count`, `raw_bytes`, `compressed_bytes` and `ratio_pct` of rows of `stat`."""
    raw_bytes, compressed_bytes = (sum(row[key] for row in rows) for key in ("raw_bytes", "compressed_bytes"))
    return {
        "tensor_count": len(rows),
        "raw_bytes": raw_bytes,
        "compressed_bytes": compressed_bytes,
        "ratio_pct": ratio_pct(compressed_bytes, raw_bytes),
    }


def _rows(reader: Reader) -> list[dict[str, Any]]:
    return [
        {**entry, "ratio_pct": ratio_pct(entry["compressed_bytes"], entry["raw_bytes"]), "path": reader.path} for entry in reader.entries()
    ]
