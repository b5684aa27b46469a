"""The compiled core. Everything here is re-exported, wrapped or documented for users in `bigsmall` itself."""

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, final, type_check_only

__all__ = [
    "FORMAT_VERSION",
    "BigSmallError",
    "CorruptError",
    "FormatError",
    "KvIndexCoder",
    "KvReader",
    "MissingTensorError",
    "OptionError",
    "PatchBaseError",
    "Reader",
    "SourceError",
    "Tensor",
    "VersionError",
    "__version__",
    "closest",
    "codec_speed",
    "compress",
    "compress_bytes",
    "decompress",
    "decompress_bytes",
    "diff",
    "isa",
    "isas",
    "kv_allocate",
    "kv_decode_words",
    "kv_encode_words",
    "kv_file_bytes",
    "kv_fit_tables",
    "kv_pack",
    "kv_to_bytes",
    "kv_unpack",
    "kv_write",
    "migrate",
    "packed_files",
    "protect",
    "published_kv_entry",
    "repair",
    "scan",
    "sidecar_path",
    "verify",
    "xray",
]

__version__: str
FORMAT_VERSION: int

_StrPath = str | os.PathLike[str]
_Progress = Callable[[int, int], object]
"""Called with (raw bytes done, raw bytes in all), at most some ten times a second, from the calling thread."""

class BigSmallError(Exception):
    """Base of the package's own errors. `path`, `tensor`, `block` say where, as far as known."""

    path: str | None
    tensor: str | None
    block: int | None

class FormatError(BigSmallError): ...
class VersionError(FormatError): ...
class CorruptError(BigSmallError): ...
class SourceError(BigSmallError): ...
class PatchBaseError(BigSmallError): ...
class OptionError(BigSmallError, ValueError): ...
class MissingTensorError(BigSmallError, KeyError): ...

@final
class Tensor:
    """A decoded tensor in memory of its own (64-byte aligned, writable), C order. Exports DLPack and the buffer protocol (1-D bytes)."""

    @property
    def dtype(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def nbytes(self) -> int: ...
    def __len__(self) -> int: ...
    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

@type_check_only
class _Source(Protocol):
    """Bytes that are read at offsets, by several threads. What `read_at` raises comes out of the reader as it is.

    A source may also have `read_beside(name)`, which gives the bytes of a small file of the same directory, or None: published shards
    leave out tensors that their index tells of.
    """

    @property
    def path(self) -> str:
        """What messages call it."""
    @property
    def n_bytes(self) -> int: ...
    def read_at(self, offset: int, n_bytes: int, /) -> Any:
        """That many bytes, as any object with the buffer protocol."""

@final
class Reader:
    """One `.bs` file, open. Reading never needs more than the blobs asked for. Threads may share it."""

    def __new__(cls, source: _StrPath | _Source, *, base: _StrPath | None = None) -> Reader: ...
    @property
    def path(self) -> str: ...
    @property
    def version(self) -> int:
        """Of the container."""
    @property
    def mode(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def base_fingerprint(self) -> str | None:
        """Of the base that a patch was made from."""
    @property
    def metadata(self) -> dict[str, str] | None: ...
    @property
    def file_bytes(self) -> int: ...
    @property
    def raw_bytes(self) -> int: ...
    @property
    def source_bytes(self) -> int: ...
    def keys(self) -> list[str]: ...
    def entries(self) -> list[dict[str, Any]]:
        """In file order, a dict each: name, dtype, shape (list), md5, codec, order (of stored words, None if as in the source), is_packed,
        raw_bytes, compressed_bytes (its share of the pack when packed), tied_to (name or None), base (name in the base, or
        None)."""
    def tensor(self, name: str) -> Tensor: ...
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Rows [start, stop) of the first dimension; decodes only the blocks that cover them."""
    def tensors(
        self, names: Sequence[str] | None = None, *, threads: int = 0, progress: _Progress | None = None
    ) -> list[Tensor | BigSmallError]:
        """All named tensors (default: all), in the order asked for, decoded by several threads. A damaged one is returned as its
        error, the others still load."""
    def read_into(self, names: Sequence[str], out: Sequence[Any], *, threads: int = 0) -> list[BigSmallError | None]:
        """Decodes tensors into memory that is there: of CPU arrays with `__dlpack__`, in C order, each of as many bytes as its tensor.
        A damaged one gives its error, and leaves its memory undefined."""
    def stored_ranges(self, names: Sequence[str]) -> list[tuple[int, int]]:
        """Where in the file tensors are stored, as (first byte, one past the last), in order; ranges close together are one."""
    def hold(self, names: Sequence[str]) -> int:
        """Reads what tensors are decoded from and holds it in memory, until it is released. Returns the bytes that this takes more."""
    def release(self, names: Sequence[str]) -> None:
        """Lets go of what was held for the same tensors."""
    @property
    def bytes_read(self) -> int:
        """Bytes read from the file since it was opened."""

def compress(
    src: _StrPath,
    dst: _StrPath,
    *,
    base: _StrPath | None = None,
    mode: str = "balanced",
    format: str = "current",
    force: bool = False,
    threads: int = 0,
    progress: _Progress | None = None,
) -> dict[str, Any]:
    """File or directory. Returns {"source_bytes", "compressed_bytes", "n_tensors", "n_files", "outputs": [paths]}, and with a base
    "matched": {"n_tensors", "n_differences", "looked_bytes", "changed_bytes"}."""

def decompress(
    src: _StrPath,
    dst: _StrPath,
    *,
    base: _StrPath | None = None,
    force: bool = False,
    threads: int = 0,
    progress: _Progress | None = None,
) -> dict[str, Any]:
    """File or directory. Every tensor's md5 is checked before the output gets its name, and a patch's base before anything is written.
    Same keys as `compress` without a base."""

def diff(a: _StrPath, b: _StrPath, *, threads: int = 0, progress: _Progress | None = None) -> dict[str, Any]:
    """Two models, files or directories of either kind. {"is_same", "n_common", "added", "removed", "changed", "identical": [(name in b,
    name in a)]}; tensors are {"name", "dtype", "shape", "raw_bytes"}, changed ones also {"was", "n_words", "n_differing", "distances"}."""

def closest(src: _StrPath, directories: Sequence[_StrPath]) -> str | None:
    """The model in the directories whose tensors are closest to those of `src`; None if none is close."""

def verify(
    src: _StrPath,
    *,
    fast: bool = False,
    sample: float | None = None,
    seed: int = 0,
    source: _StrPath | None = None,
    base: _StrPath | None = None,
    threads: int = 0,
    progress: _Progress | None = None,
) -> dict[str, Any]:
    """File or directory. {"ok", "n_tensors", "n_checked", "raw_bytes", "problems": [{"path", "tensor", "block", "bytes": [start, stop],
    "message"}]}, and of a sample "sample": {"seed", "n_blocks", "n_sampled", "confidence", "found_share"}."""

def migrate(
    src: _StrPath,
    *,
    mode: str = "balanced",
    dry_run: bool = False,
    backup: bool = True,
    force: bool = False,
    threads: int = 0,
    progress: _Progress | None = None,
) -> dict[str, Any]:
    """File or directory of the published package, rewritten in place. {"was_current", "n_tensors", "bytes_before", "bytes_after",
    "backup" (path or None), "recoded": [{"before", "after" (codecs), "n_tensors"}]}."""

def scan(src: _StrPath, *, mode: str = "balanced", threads: int = 0, progress: _Progress | None = None) -> dict[str, Any]:
    """safetensors file or directory, before compression. {"source_bytes", "estimated_bytes", "n_shards", "n_tensors", "tensors":
    [{"name", "dtype", "shape", "raw_bytes", "kind", "estimated_bytes", "tied_to"}], "f32": {"n_tensors", "n_bf16_native",
    "n_f16_native", "bf16_native_bytes", "f16_native_bytes", "raw_bytes"}}."""

def xray(
    src: _StrPath, *, min_elements: int = ..., svd: bool = True, threads: int = 0, progress: _Progress | None = None
) -> dict[str, Any]:
    """Float tensors beside random weights: {"n_tensors", "n_analyzed", "min_elements", "n_matrices", "n_random", "raw_bytes",
    "looks_untrained", "flags": {name: meaning}, "tensors": [...]}; see `bigsmall.xray`."""

def protect(path: _StrPath, *, percent: float = ..., force: bool = False, threads: int = 0, progress: _Progress | None = None) -> int:
    """Writes the sidecar of a file; returns its bytes."""

def repair(
    src: _StrPath, dst: _StrPath, *, force: bool = False, threads: int = 0, progress: _Progress | None = None
) -> list[dict[str, Any]]:
    """A file with a sidecar, or a directory of them. For each {"path", "found_bytes", "file_bytes", "damaged": [[start, stop]],
    "sidecar_damaged", "outputs": [paths]}; CorruptError if any cannot be mended, and nothing is written."""

def sidecar_path(path: _StrPath) -> str: ...
def packed_files(path: _StrPath) -> list[str]:
    """The `.bs` files of a path: itself, or the shards of a directory in the order of its index. FileNotFoundError, FormatError."""

def published_kv_entry(data: Any) -> tuple[Tensor, Tensor]:
    """Keys and values of an entry (bytes) that the published package's KV caches hold, of any of its versions. Raises CorruptError."""

def isas() -> list[str]:
    """Instruction sets this machine can run, best first: of avx512, avx2, neon, scalar."""

def isa() -> str:
    """The one in use: the best, or the one that BIGSMALL_ISA names."""

def codec_speed(
    data: Any, dtype: str, row_words: int, *, base: Any = None, mode: str = "balanced", isa: str | None = None, repeat: int = 5
) -> dict[str, float]:
    """In memory, one thread, no md5, no I/O: {"raw_bytes", "coded_bytes", "encode_bytes_per_s", "decode_bytes_per_s"} (best of
    `repeat`)."""

def compress_bytes(data: Any, *, mode: str = "balanced", format: str = "current", threads: int = 0, isa: str | None = None) -> bytes:
    """A whole safetensors file, in memory, to a whole `.bs` file, in memory."""

def decompress_bytes(data: Any, *, threads: int = 0, isa: str | None = None) -> bytes: ...
def kv_allocate(
    errors: Any, budget: int, *, max_bits: int = 16, method: str = "greedy", measured: bool = False, costs: Sequence[int] | None = None
) -> bytes:
    """Widths of components, a byte each. `errors`: float64 variances `[components]`, or with `measured` errors
    `[components, max_bits + 1]`. `method`: greedy, hull, dp. OptionError."""

def kv_pack(indices: Any, widths: bytes | Sequence[int], n_rows: int) -> bytes:
    """uint16 indices `[components, rows]` as bits. OptionError if one does not fit its width."""

def kv_unpack(packed: Any, widths: bytes | Sequence[int], n_rows: int) -> Tensor:
    """U16 `[components, rows]`. CorruptError."""

def kv_fit_tables(counts: Any, n_components: int) -> tuple[list[list[int]], list[float]]:
    """For uint64 counts `[components, 2R + 1]` of the indices -R ... R: frequencies, and the bits that coding the counts takes."""

@final
class KvIndexCoder:
    """Codes the indices of a group's components. `freqs`: those of -A ... A and of the escape, which sum to 4096. OptionError."""

    def __new__(cls, freqs: Sequence[Sequence[int]]) -> KvIndexCoder: ...
    def encode(self, indices: Any, n_rows: int) -> bytes:
        """int16 indices `[components, rows]`."""
    def decode(self, coded: Any, n_rows: int) -> Tensor:
        """I16 `[components, rows]`. CorruptError."""

def kv_encode_words(data: Any, dtype: str, row_words: int) -> bytes:
    """Words of a dtype, losslessly; at most 5 bytes more than they are."""

def kv_decode_words(coded: Any, dtype: str, shape: Sequence[int]) -> Tensor:
    """The words of `kv_encode_words`. CorruptError."""

_KvRecord = tuple[int, bool, int, int, int, int]

def kv_write(path: _StrPath, header_json: str, records: Sequence[_KvRecord], bodies: Sequence[Any], *, force: bool = False) -> int:
    """Writes a saved cache and returns its bytes. A record: kind of body, is value, layer or group, row, first token, tokens."""

def kv_to_bytes(header_json: str, records: Sequence[_KvRecord], bodies: Sequence[Any]) -> bytes: ...
def kv_file_bytes(header_json: str, body_bytes: Sequence[int]) -> int:
    """Bytes of a saved cache with bodies of these sizes."""

@final
class KvReader:
    """A saved cache, of a path or of bytes. FormatError, VersionError, CorruptError."""

    def __new__(cls, source: _StrPath | bytes) -> KvReader: ...
    @property
    def header(self) -> dict[str, Any]: ...
    def sections(self) -> list[tuple[_KvRecord, int]]:
        """Records, and bytes of bodies."""
    def body(self, section: int) -> bytes:
        """A section's body, its checksum checked. CorruptError."""
