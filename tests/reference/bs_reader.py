"""Reads `.bs` files of versions 16 and 17. Written from `docs/format/` alone, to prove that the pages are enough.

    python bs_reader.py FILE.bs [OUT.safetensors [BASE.bs]]

lists the tensors of FILE.bs, or restores the safetensors file, of a patch with its base. This file follows `container.md`, those that
it imports follow `streams.md` and `delta.md`. They are meant to be read beside the pages and are slow: a second for some hundred thousand
words, for ten thousand of `context`. Needs Python 3.14, or an older one with the `zstandard` package.
"""

import hashlib
import itertools
import json
import math
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bs_chunks import decode_blob
from bs_context import rows
from bs_cursor import Cursor, Data, FormatError, check, unzstd
from bs_layouts import BITS, LAYOUT_OF
from bs_streams import read_pools

T = TypeVar("T")
Entry = dict[str, Any]
Base = Mapping[str, tuple[str, tuple[int, ...], bytes]]


def field(entry: object, key: str, kind: type[T], *default: T) -> T:
    """`entry[key]`, which is a `kind`; integers are not negative."""
    if not isinstance(entry, dict):
        raise FormatError("a header that is not made of objects")
    value = entry.get(key, *default)
    if type(value) is not kind or (isinstance(value, int) and not 0 <= value < 1 << 64):
        raise FormatError(f"the header's {key!r} is missing or wrong")
    return value


def parse_json(text: Data) -> Any:
    try:
        return json.loads(str(text, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"not JSON: {error}") from None


def read_header(file: Cursor) -> Entry:
    """The header, with `file` left at the first blob."""
    check(bytes(file.take(4)) == b"BGSM", "not a .bs file")
    version = file.u16()
    check(version in (16, 17), f"version {version} is neither 16 nor 17")
    size = file.u32()
    check(size <= 100_000_000, "a header of more than 100,000,000 bytes")
    stored = file.take(size)
    check(file.take(16) == hashlib.md5(file.data[: 10 + size]).digest(), "the header's MD5 differs")
    header: Entry = parse_json(unzstd(stored, 1 << 28) if bytes(stored[:4]) == b"\x28\xb5\x2f\xfd" else stored)
    data_offset = field(header, "data_offset", int)
    check(data_offset % 64 == 0 and data_offset >= file.at, "data_offset cannot be")
    file.zeros(data_offset - file.at)
    field(header, "format", str)
    field(header, "mode", str)
    has_base = any("base" in tensor for tensor in field(header, "tensors", list))
    check(has_base == (version == 17) == ("base" in header), "a base without tensors, or tensors without a base")
    return header


def byte_size(tensor: Entry) -> int:
    """Bytes of a tensor's data in the source file."""
    dtype, shape = field(tensor, "dtype", str), field(tensor, "shape", list)
    check(dtype in BITS, f"the dtype {dtype!r} is not known")
    check(len(shape) <= 64 and all(type(d) is int and d >= 0 for d in shape), "a shape that cannot be")
    check(math.prod(max(d, 1) for d in shape) * BITS[dtype] < 1 << 64, "a tensor of a size that cannot be")
    bits = math.prod(shape) * BITS[dtype]
    check(bits % 8 == 0, "a tensor of a size that cannot be")
    return bits // 8


def n_words(tensor: Entry) -> int:
    return byte_size(tensor) // LAYOUT_OF[tensor["dtype"]].size


def in_source_order(tensor: Entry, stored: bytes) -> bytes:
    """The words of a tensor, from what its blob or pack has of them."""
    if "order" not in tensor:
        return stored
    order, words, size = field(tensor, "order", str), n_words(tensor), LAYOUT_OF[tensor["dtype"]].size
    check(order in ("iok", "koi", "kio") and words <= 1 << 22, "an order that cannot be")
    if not words:
        return stored
    columns, positions = rows(tensor["dtype"], tensor["shape"])
    lengths = {"o": words // (columns * positions), "i": columns, "k": positions}
    strides = {"o": columns * positions, "i": positions, "k": 1}
    offsets = ([i * strides[axis] for i in range(lengths[axis])] for axis in order)
    out = bytearray(len(stored))
    for at, place in enumerate(map(sum, itertools.product(*offsets))):
        out[place * size : (place + 1) * size] = stored[at * size : (at + 1) * size]
    return bytes(out)


class BsFile:
    """A `.bs` file of which everything is decoded and checked. `data` holds each tensor's bytes; `base` is what a patch was made from."""

    def __init__(self, content: bytes, base: Base | None = None) -> None:
        file = Cursor(content)
        header = read_header(file)
        self.base = {} if base is None else base
        self.tensors, self.packs = field(header, "tensors", list), field(header, "packs", list, [])
        self.source_header = source_header(header)
        if "base" in header:
            check(base is not None, "a patch without its base")
            wanted = field(header["base"], "fingerprint", str)
            check(wanted == fingerprint(self.base, {t["base"] for t in self.tensors if "base" in t}), "another base than the patch's")
        tables = field(header, "tables", int, 0)
        check(tables <= 9 << 18, "tables of more than 9 · 2^18 bytes")
        self.pools = read_pools(take_blob(file, tables))
        pack_blobs = [take_blob(file, field(pack, "bytes", int)) for pack in self.packs]
        blobs = [take_blob(file, field(tensor, "bytes", int, 0)) for tensor in self.tensors]
        file.end()
        self.packed = [self.decode_pack(index, blob) for index, blob in enumerate(pack_blobs)]
        self.data: list[bytes] = []
        for tensor, blob in zip(self.tensors, blobs, strict=True):
            try:
                self.data.append(self.decode_tensor(tensor, blob))
            except FormatError as error:
                raise FormatError(f"tensor {tensor.get('name')!r}: {error}") from None

    def decode_pack(self, index: int, blob: Data) -> Cursor:
        pack = self.packs[index]
        dtype, words, codec = field(pack, "dtype", str), field(pack, "words", int), field(pack, "codec", str)
        check(dtype in LAYOUT_OF, f"the dtype {dtype!r} is not known")
        check(words <= 1 << 22, "a pack of more than 2^22 words")
        members = [tensor for tensor in self.tensors if tensor.get("codec") == "packed" and field(tensor, "pack", int) == index]
        check(all(tensor["dtype"] == dtype for tensor in members), "a pack of several dtypes")
        check(sum(map(n_words, members)) == words, "members that do not add up to their pack")
        check(all(("base" in member) == (codec == "delta") for member in members), "a base that is not needed, or none")
        base = b"".join(map(self.base_words, members)) if codec == "delta" else None
        return Cursor(decode_blob(codec, blob, words, LAYOUT_OF[dtype], self.pools, [(t["dtype"], t["shape"]) for t in members], base))

    def base_words(self, tensor: Entry) -> bytes:
        """As many bytes as the tensor has."""
        dtype, _, data = self.base[field(tensor, "base", str)]
        check(dtype == tensor["dtype"] and "order" not in tensor, "a base tensor of another dtype, or an order")
        size = byte_size(tensor)
        return data[:size].ljust(size, b"\0")

    def decode_tensor(self, tensor: Entry, blob: Data) -> bytes:
        size, codec = byte_size(tensor), field(tensor, "codec", str)
        dtype, layout = tensor["dtype"], LAYOUT_OF[tensor["dtype"]]
        check(not blob or codec not in ("empty", "constant", "tied", "packed"), f"a blob for the codec {codec!r}")
        check("order" not in tensor or codec not in ("empty", "constant", "tied"), f"an order for the codec {codec!r}")
        if codec == "empty":
            data = b""
        elif codec == "constant":
            value = field(tensor, "value", str)
            check(len(value) == 2 * layout.size and set(value) <= set("0123456789abcdef"), "a value that is not one word")
            data = bytes.fromhex(value) * (size // layout.size)
        elif codec == "tied":
            index = field(tensor, "tied_to", int)
            check(index < len(self.data) and self.tensors[index]["codec"] != "tied", "tied to a tensor that cannot be")
            check(self.tensors[index]["dtype"] == dtype, "tied to another dtype")
            data = self.data[index]
        elif codec == "packed":
            index = field(tensor, "pack", int)
            check(index < len(self.packs), "in a pack that is not there")
            data = in_source_order(tensor, bytes(self.packed[index].take(size)))
        else:
            check(("base" in tensor) == (codec == "delta"), "a base that is not needed, or none")
            base = self.base_words(tensor) if codec == "delta" else None
            words = decode_blob(codec, blob, n_words(tensor), layout, self.pools, [(dtype, tensor["shape"])], base)
            data = in_source_order(tensor, words)
        check(len(data) == size, "not as many bytes as dtype and shape ask for")
        check(field(tensor, "md5", str) == hashlib.md5(data).hexdigest(), "the MD5 of the data differs")
        return data


def take_blob(file: Cursor, size: int) -> memoryview:
    if size:
        file.align(64)
    return file.take(size)


def described(tensors: Sequence[Entry]) -> Entry:
    """What a source header says of the tensors."""
    entries: Entry = {}
    offset = 0
    for tensor in tensors:
        end = offset + byte_size(tensor)
        name = field(tensor, "name", str)
        check(name not in entries and name != "__metadata__", f"two tensors named {name!r}, or a name that is none")
        entries[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": [offset, end]}
        offset = end
    check(offset < 1 << 63, "tensors larger than any file")
    return entries


def source_header(header: Entry) -> bytes:
    metadata = header.get("metadata")
    check_metadata(metadata)
    entries = described(header["tensors"])
    if "source_header" in header:
        text = field(header, "source_header", str)
        check_source_header(parse_json(text.encode("utf-8", "surrogatepass")), entries)
    else:
        text = json.dumps(({} if metadata is None else {"__metadata__": metadata}) | entries, ensure_ascii=False, separators=(",", ":"))
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("a header with half a surrogate pair") from None
    return encoded if "source_header" in header else encoded + b" " * (-len(encoded) % 8)


def check_metadata(metadata: object) -> None:
    is_object = type(metadata) is dict and all(type(value) is str for value in metadata.values())
    check(metadata is None or is_object, "metadata that are not strings")


def check_source_header(parsed: object, entries: Entry) -> None:
    """`parsed` says of the tensors what `entries` does, and these are in the order of their data."""
    if not isinstance(parsed, dict):
        raise FormatError("a source header that is not an object")
    check_metadata(parsed.pop("__metadata__", None))
    kinds: dict[str, type[Any]] = {"dtype": str, "shape": list, "data_offsets": list}
    told = {name: {key: field(info, key, kind) for key, kind in kinds.items()} for name, info in parsed.items()}
    check(told == entries, "a source header that describes other tensors")
    check(sorted(told, key=lambda name: told[name]["data_offsets"]) == list(entries), "tensors that are not in the order of their data")


def fingerprint(base: Base, used: set[str]) -> str:
    """The digest of these tensors of a base."""
    lines = b""
    for name in sorted(used, key=str.encode):
        check(name in base, f"no tensor {name!r} in the base")
        dtype, shape, data = base[name]
        line = [name, dtype, list(shape), hashlib.md5(data).hexdigest()]
        lines += json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    return hashlib.md5(lines).hexdigest()


def read(path: str | Path, base: Base | None = None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Each tensor of the file at `path`, in the order of their data: name to `(dtype, shape, bytes)`. Raises `FormatError`, `OSError`."""
    file = BsFile(Path(path).read_bytes(), base)
    return {t["name"]: (t["dtype"], tuple(t["shape"]), data) for t, data in zip(file.tensors, file.data, strict=True)}


def source(path: str | Path, base: Base | None = None) -> bytes:
    """The safetensors file that the `.bs` file at `path` was made from. Raises `FormatError`, `OSError`."""
    file = BsFile(Path(path).read_bytes(), base)
    return struct.pack("<Q", len(file.source_header)) + file.source_header + b"".join(file.data)


def main(arguments: Sequence[str]) -> None:
    if len(arguments) not in (1, 2, 3):
        sys.exit(__doc__)
    try:
        if len(arguments) > 1:
            restored = source(arguments[0], read(arguments[2]) if len(arguments) == 3 else None)
            with Path(arguments[1]).open("xb") as out:
                out.write(restored)
        else:
            for name, (dtype, shape, data) in read(arguments[0]).items():
                print(f"{dtype:12} {len(data):12} {list(shape)} {name}")
    except (FormatError, OSError) as error:
        sys.exit(f"{arguments[0]}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
