"""Other compressors, for `benchmark --against`: each tensor's bytes in memory, one thread, at their usual settings."""

import importlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from .outcome import CommandError, Exit

ZIPNN_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F8_E4M3": "float8_e4m3fn"}
WORD_BYTES = {"64": 8, "32": 4, "16": 2}

Step = Callable[[bytes], bytes]


class Pair(NamedTuple):
    """A compressor for the bytes of a tensor, and its inverse."""

    compress: Step
    decompress: Step


class Rival(NamedTuple):
    """`of` makes the pair for a dtype, as safetensors names it, or None for one that the package does not take."""

    package: str
    setting: str
    of: Callable[[ModuleType, str], Pair | None]


def _zstd(zstandard: ModuleType, _dtype: str) -> Pair:
    return Pair(zstandard.ZstdCompressor(level=3).compress, zstandard.ZstdDecompressor().decompress)


def _blosc2(blosc2: ModuleType, dtype: str) -> Pair:
    typesize = next((size for bits, size in WORD_BYTES.items() if dtype.endswith(bits)), 1)
    options = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": 5,
        "typesize": typesize,
        "filters": [blosc2.Filter.BITSHUFFLE],
        "filters_meta": [0],
        "nthreads": 1,
    }
    return Pair(lambda data: blosc2.compress2(data, **options), lambda data: blosc2.decompress2(data, nthreads=1))


def _zipnn(zipnn: ModuleType, dtype: str) -> Pair | None:
    if dtype not in ZIPNN_DTYPES:
        return None
    codec = zipnn.ZipNN(input_format="byte", bytearray_dtype=ZIPNN_DTYPES[dtype], threads=1)
    # It reorders the bytes of its input in place.
    return Pair(lambda data: codec.compress(bytearray(data)), lambda data: codec.decompress(data))


def _standard(module: ModuleType, _dtype: str) -> Pair:
    return Pair(module.compress, module.decompress)


def _lz4(frame: ModuleType, _dtype: str) -> Pair:
    return Pair(frame.compress, frame.decompress)


RIVALS = {
    "zstd": Rival("zstandard", "level 3", _zstd),
    "zipnn": Rival("zipnn", "by dtype", _zipnn),
    "blosc2": Rival("blosc2", "bitshuffle and zstd, level 5", _blosc2),
    "lz4": Rival("lz4.frame", "default", _lz4),
    "zlib": Rival("zlib", "default", _standard),
    "lzma": Rival("lzma", "default", _standard),
}


def named(text: str) -> dict[str, ModuleType]:
    """The packages of a list of rivals separated by commas. Raises CommandError for one that is not known or not installed."""
    modules = {}
    for name in filter(None, text.split(",")):
        rival = RIVALS.get(name)
        if rival is None:
            raise CommandError(f"no rival {name!r}: known are {', '.join(RIVALS)}", Exit.USAGE)
        try:
            modules[name] = importlib.import_module(rival.package)
        except ImportError as error:
            raise CommandError(f"{name} is not installed: pip install {rival.package.partition('.')[0]}") from error
    return modules


def measure(name: str, module: ModuleType, source: Path) -> dict[str, Any]:
    """Compress and decompress every tensor of a file or directory. Bytes that a rival does not take count as they are."""
    raw_bytes = compressed_bytes = left_out_bytes = 0
    compress_s = decompress_s = 0.0
    rival = RIVALS[name]
    for dtype, data in _tensors(source):
        raw_bytes += len(data)
        pair = rival.of(module, dtype) if data else None
        if pair is None:
            compressed_bytes += len(data)
            left_out_bytes += len(data)
            continue
        started = time.perf_counter()
        packed = pair.compress(data)
        between = time.perf_counter()
        back = pair.decompress(packed)
        decompress_s += time.perf_counter() - between
        compress_s += between - started
        compressed_bytes += len(packed)
        if bytes(back) != data:
            raise CommandError(f"{source}: {name} does not give the bytes back", Exit.FAILED)
    return {
        "setting": rival.setting,
        "raw_bytes": raw_bytes,
        "compressed_bytes": compressed_bytes,
        "ratio_pct": 100 * compressed_bytes / raw_bytes if raw_bytes else None,
        "left_out_bytes": left_out_bytes,
        "compress": {"elapsed_s": compress_s, "bytes_per_s": raw_bytes / compress_s if compress_s else None},
        "decompress": {"elapsed_s": decompress_s, "bytes_per_s": raw_bytes / decompress_s if decompress_s else None},
    }


def _tensors(source: Path) -> Iterator[tuple[str, bytes]]:
    """Dtype and bytes of each tensor of files that have been compressed already, so that they are valid."""
    files = sorted(source.glob("*.safetensors")) if source.is_dir() else [source]
    for path in files:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(header_bytes))
            for name, tensor in header.items():
                if name == "__metadata__" or tensor is None:
                    continue
                start, stop = tensor["data_offsets"]
                file.seek(8 + header_bytes + start)
                yield tensor["dtype"], file.read(stop - start)
