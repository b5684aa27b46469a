"""Reads `.bs` files of version 16. Written from `docs/format/` alone, to prove that the pages are enough.

    python bs_reader.py FILE.bs [OUT.safetensors]

lists the tensors of FILE.bs, or restores the safetensors file. This file follows `container.md`, `bs_streams.py` follows `streams.md`.
They are meant to be read beside the pages and are slow: a second for some hundred thousand words. Needs Python 3.14, or an older one
with the `zstandard` package.
"""

import hashlib
import json
import math
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from bs_streams import BITS, LAYOUT_OF, Cursor, Data, FormatError, check, decode_blob, read_pools, unzstd

T = TypeVar("T")
Entry = dict[str, Any]


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
    check(version == 16, f"version {version} is not 16")
    size = file.u32()
    check(size <= 100_000_000, "a header over 100 MB")
    stored = file.take(size)
    check(file.take(16) == hashlib.md5(file.data[: 10 + size]).digest(), "the header's MD5 differs")
    header: Entry = parse_json(unzstd(stored, 1 << 28) if bytes(stored[:4]) == b"\x28\xb5\x2f\xfd" else stored)
    data_offset = field(header, "data_offset", int)
    check(data_offset % 64 == 0 and data_offset >= file.at, "data_offset cannot be")
    file.zeros(data_offset - file.at)
    return header


def byte_size(tensor: Entry) -> int:
    """Bytes of a tensor's data in the source file."""
    dtype, shape = field(tensor, "dtype", str), field(tensor, "shape", list)
    check(dtype in BITS, f"the dtype {dtype!r} is not known")
    check(all(type(d) is int and d >= 0 for d in shape), "a shape that cannot be")
    bits = math.prod(shape) * BITS[dtype]
    check(bits % 8 == 0 and bits < 1 << 63, "a tensor of a size that cannot be")
    return bits // 8


class BsFile:
    """A `.bs` file of which everything is decoded and checked. `data` holds each tensor's bytes."""

    def __init__(self, content: bytes) -> None:
        file = Cursor(content)
        header = read_header(file)
        self.tensors, self.packs = field(header, "tensors", list), field(header, "packs", list, [])
        self.pools = read_pools(take_blob(file, field(header, "tables", int, 0)))
        pack_blobs = [take_blob(file, field(pack, "bytes", int)) for pack in self.packs]
        blobs = [take_blob(file, field(tensor, "bytes", int, 0)) for tensor in self.tensors]
        file.end()
        self.packed = [self.decode_pack(pack, blob) for pack, blob in zip(self.packs, pack_blobs, strict=True)]
        self.data: list[bytes] = []
        for tensor, blob in zip(self.tensors, blobs, strict=True):
            try:
                self.data.append(self.decode_tensor(tensor, blob))
            except FormatError as error:
                raise FormatError(f"tensor {tensor.get('name')!r}: {error}") from None
        for words in self.packed:
            words.end()
        self.source_header = source_header(header)

    def decode_pack(self, pack: Entry, blob: Data) -> Cursor:
        dtype = field(pack, "dtype", str)
        check(dtype in LAYOUT_OF, f"the dtype {dtype!r} is not known")
        return Cursor(decode_blob(field(pack, "codec", str), blob, field(pack, "words", int), LAYOUT_OF[dtype], self.pools))

    def decode_tensor(self, tensor: Entry, blob: Data) -> bytes:
        size, codec = byte_size(tensor), field(tensor, "codec", str)
        dtype, layout = tensor["dtype"], LAYOUT_OF[tensor["dtype"]]
        check(not blob or codec not in ("empty", "constant", "tied", "packed"), f"a blob for the codec {codec!r}")
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
            check(index < len(self.packs) and self.packs[index]["dtype"] == dtype, "in a pack that cannot be")
            data = bytes(self.packed[index].take(size))
        else:
            data = decode_blob(codec, blob, size // layout.size, layout, self.pools)
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
        check(name not in entries and name != "__metadata__", f"two tensors named {name!r}")
        entries[name] = {"dtype": tensor["dtype"], "shape": tensor["shape"], "data_offsets": [offset, end]}
        offset = end
    return entries


def source_header(header: Entry) -> bytes:
    entries, metadata = described(header["tensors"]), header.get("metadata")
    if metadata is not None:
        field(header, "metadata", dict)
        check(all(type(value) is str for value in metadata.values()), "metadata that are not strings")
    if "source_header" in header:
        text = field(header, "source_header", str)
        parsed = parse_json(text.encode("utf-8", "surrogatepass"))
        check(isinstance(parsed, dict), "a source header that is not an object")
        parsed.pop("__metadata__", None)
        check(parsed == entries, "a source header that describes other tensors")
    else:
        text = json.dumps(({} if metadata is None else {"__metadata__": metadata}) | entries, ensure_ascii=False, separators=(",", ":"))
    try:
        encoded = text.encode("utf-8")
    except UnicodeEncodeError:
        raise FormatError("a header with half a surrogate pair") from None
    return encoded if "source_header" in header else encoded + b" " * (-len(encoded) % 8)


def read(path: str | Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Each tensor of the file at `path`, in the order of their data: name to `(dtype, shape, bytes)`. Raises `FormatError`, `OSError`."""
    file = BsFile(Path(path).read_bytes())
    return {t["name"]: (t["dtype"], tuple(t["shape"]), data) for t, data in zip(file.tensors, file.data, strict=True)}


def source(path: str | Path) -> bytes:
    """The safetensors file that the `.bs` file at `path` was made from. Raises `FormatError`, `OSError`."""
    file = BsFile(Path(path).read_bytes())
    return struct.pack("<Q", len(file.source_header)) + file.source_header + b"".join(file.data)


def main(arguments: Sequence[str]) -> None:
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    try:
        if len(arguments) == 2:
            restored = source(arguments[0])
            with Path(arguments[1]).open("xb") as out:
                out.write(restored)
        else:
            for name, (dtype, shape, data) in read(arguments[0]).items():
                print(f"{dtype:12} {len(data):12} {list(shape)} {name}")
    except (FormatError, OSError) as error:
        sys.exit(f"{arguments[0]}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
