"""The reader of `tests/reference`: by hand-made bytes, by files of its own small writer, and by files that the compiled core wrote."""

import hashlib
import importlib
import itertools
import json
import re
import struct
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "reference"))

import bs_chunks  # noqa: E402
import bs_context  # noqa: E402
import bs_cursor  # noqa: E402
import bs_reader  # noqa: E402
import bs_streams  # noqa: E402
import bs_writer  # noqa: E402
from bs_checkpoints import (  # noqa: E402
    CHECKPOINTS,
    Tensor,
    large_and_pruned,
    normal,
    palette,
    seeded,
    sequential,
    source_file,
    sparse,
)
from bs_cursor import Cursor, FormatError  # noqa: E402
from bs_layouts import BITS, LAYOUT_OF  # noqa: E402

WEIGHTS = ROOT.parent / "shared" / "weights"
GOLDEN = ROOT / "tests" / "golden"
MODES = ["balanced", "storage", "inference"]


# The pages, by bytes worked out by hand.


def bit_string(*fields: str) -> bytes:
    bits = "".join(fields)
    return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def test_table_by_hand() -> None:
    # Symbols 5 to 7, one mantissa bit. 6 has 2^10: b = 11, d = 11, zigzag 22. 7 has 3·2^8: b = 10, d = -1, zigzag 1.
    cursor = Cursor(bytes([5, 2, 5, 1]) + bit_string("1" * 22 + "0", "0", "10", "1"))
    table = bs_streams.read_table(cursor)
    cursor.end()
    assert [table.symbol.count(symbol) for symbol in (5, 6, 7)] == [4096 - 1024 - 768, 1024, 768]
    assert [table.symbol.index(symbol) for symbol in (5, 6, 7)] == [0, 2304, 3328]


def test_rans_by_hand() -> None:
    # Backwards from the final state 2^16 + 5, coding symbol 9 of frequency 64 three times: 1024 << 12 | 5 = 2^22 + 5;
    # 2^16 << 12 | 5 = 2^28 + 5, which is at least 64 << 20, so its low half 5 becomes a word and leaves 2^12; 64 << 12 = 2^18.
    table = bs_streams.Table({9: 64, 10: 4032})
    assert bs_streams.rans(table, [1 << 18], [5], 3) == ([9, 9, 9], [5])


def test_short_stream_by_hand() -> None:
    # From the final state 2^16 back: 0 of frequency 1024 gives 64 << 12 = 262144 = 85 * 3072 + 1024; 1 of frequency 3072 gives
    # 85 << 12 | 1024, plus the 1024 below it.
    table = bs_streams.Table({0: 1024, 1: 3072})
    assert bs_streams.short_stream(Cursor(b"\x00" + struct.pack("<I", (85 << 12) + 2048)), table, 2) == [1, 0]


@pytest.mark.parametrize(
    ("w", "stored", "values"),
    [
        (8, b"\x07\x09", [7, 9]),
        (4, b"\x31\x02", [1, 2, 3]),
        (2, b"\x1d\x02", [1, 2, 3, 0, 1]),
        (1, b"\x13\x0a", [1, 0, 1, 1, 0, 0, 0, 1, 1]),
    ],
)
def test_bit_plane_by_hand(w: int, stored: bytes, values: list[int]) -> None:
    assert bs_chunks.bit_plane(Cursor(stored), len(values), w) == values


def test_block_by_hand() -> None:
    # 0x3F80 turns into t = 0x7F00: key 0x1FC, raw 0. 0xBF81 into 0x7F03: the same key, raw 3. 0x0001 is patched: t = 2, key 0, raw 2.
    # Raw planes: [0, 0, 0] in 4 bits each, two bytes; [0, 3, 2] in 2 bits each, one byte, 0b101100.
    data = struct.pack("<I", 1) + b"\x00\x00\x2c\x00" + struct.pack("<HH", 2, 0)
    assert bs_chunks.block(data, 3, LAYOUT_OF["BF16"], 0x1FB, [1]) == [0x3F80, 0xBF81, 0x0001]


@pytest.mark.parametrize(
    ("dtype", "shape", "rows"),
    [
        ("F32", [], (1, 1)),
        ("F32", [7], (7, 1)),
        ("F32", [7, 1, 1], (7, 1)),
        ("F32", [7, 1, 9], (1, 9)),
        ("F32", [8, 5, 32, 32], (5, 1024)),
        ("F32", [8, 5, 5, 205], (1025, 1)),
        ("C64", [8, 5, 512], (5, 1024)),
        ("C64", [8, 1], (2, 1)),
        ("C64", [3], (6, 1)),
        ("C64", [], (1, 1)),
    ],
)
def test_context_rows_by_hand(dtype: str, shape: list[int], rows: tuple[int, int]) -> None:
    (part,) = bs_context.cut([(dtype, shape)], 0, 1)
    assert (part.columns, part.positions) == rows


def test_context_parts_by_hand() -> None:
    tensors = [("F16", [10, 3]), ("F16", [0, 4]), ("F16", [4, 2, 3, 3])]
    assert list(bs_context.cut(tensors, 10, 50)) == [(3, 1, 10, 20), (2, 9, 0, 20)]
    assert list(bs_context.cut(tensors, 40, 41)) == [(2, 9, 10, 1)]


def context_words(code: bytes, raw: bytes, words: int = 1) -> list[int]:
    """BF16 words of a tensor of one dimension."""
    body = bs_writer.varint(words) + bs_writer.varint(len(code)) + code + raw
    return bs_context.decode(body, LAYOUT_OF["BF16"], bs_context.cut([("BF16", [words])], 0, words))


# C stays 0, so that every decision is a 1: the row has zeros, and its words are such.
ZERO_CODE, ZERO_RAW = b"", b"\x00\x00"
# C stays as close to R as it can, so that every decision is a 0: no low bits are zero in all words, nor are words; the exponent is one less
# than the expected 0x7F, the top of the mantissa 0. The raw bits are the base, that the sign is the usual one, and the low mantissa 0b1010.
ONE_CODE, ONE_RAW, ONE_WORD = b"\xff\xff\xff\xfe", b"\xf0\x07" + bit_string("1", "0101"), 0x7E << 7 | 0b1010


def test_context_by_hand() -> None:
    assert context_words(ZERO_CODE, ZERO_RAW, 5) == [0] * 5
    assert context_words(ONE_CODE, ONE_RAW) == [ONE_WORD]


@pytest.mark.parametrize(
    ("code", "raw", "message"),
    [
        (b"\xff\xff\xff\xff", ONE_RAW, "no writer makes"),
        (ONE_CODE + b"\x00", ONE_RAW, "zeros at the end"),
        (ONE_CODE + b"\xff" * 9, ONE_RAW, "code left over"),
        (ONE_CODE, ONE_RAW[:2], "too early"),
        (ONE_CODE, ONE_RAW[:2] + b"\x35", "padding"),
        (ONE_CODE, ONE_RAW + b"\x00", "left over"),
    ],
)
def test_lying_context(code: bytes, raw: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        context_words(code, raw)


def test_context_is_for_floats() -> None:
    with pytest.raises(FormatError, match="not floats"):
        bs_context.decode(b"\x01\x00\x00\x00", LAYOUT_OF["I16"], [])


def test_order_by_hand() -> None:
    # Rows o of columns i of positions k: words 0 to 7 are at oik = 000, 001, 010, 011, 100, 101, 110, 111.
    stored = {"iok": [0, 1, 4, 5, 2, 3, 6, 7], "koi": [0, 2, 4, 6, 1, 3, 5, 7], "kio": [0, 4, 2, 6, 1, 5, 3, 7]}
    for order, words in stored.items():
        assert bs_reader.in_source_order({"dtype": "U8", "shape": [2, 2, 2], "order": order}, bytes(words)) == bytes(range(8))
        assert bs_writer.ordered(range(8), order, 2, 2, 2) == words


def test_container_by_hand(tmp_path: Path) -> None:
    data = struct.pack("<3f", 1, 2, 3)
    header = (
        '{"format":"fp32","mode":"balanced","data_offset":320,"metadata":{"k":"\\u0001ü\\""},"tensors":[{"name":"a","dtype":"F32","shape":[3],'
        f'"codec":"stored","bytes":16,"md5":"{hashlib.md5(data).hexdigest()}"}}]}}'
    ).encode()
    front = b"BGSM\x10\x00" + struct.pack("<I", len(header)) + header
    content = (front + hashlib.md5(front).digest()).ljust(320, b"\x00") + bs_writer.with_crc(data)
    path = tmp_path / "a.bs"
    path.write_bytes(content)
    expected = b'{"__metadata__":{"k":"\\u0001\xc3\xbc\\""},"a":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    assert bs_reader.read(path) == {"a": ("F32", (3,), data)}
    assert bs_reader.source(path) == struct.pack("<Q", 96) + expected.ljust(96) + data


# The reader and the small writer.


def entry(name: str, dtype: str, shape: list[int], data: bytes, codec: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "dtype": dtype, "shape": shape, "md5": hashlib.md5(data).hexdigest(), "codec": codec, **fields}


def restored(tmp_path: Path, content: bytes) -> bytes:
    path = tmp_path / "model.bs"
    path.write_bytes(content)
    return bs_reader.source(path)


def chunked(codec: str, data: bytes, dtype: str, pools: bs_writer.Pools | None = None, **options: Any) -> bytes:
    return bs_writer.chunked(getattr(bs_writer, codec), data, dtype, pools or {}, **options)


def one_tensor(codec: str, dtype: str, data: bytes, *pools: bs_writer.Pool, **options: Any) -> tuple[bytes, bytes]:
    """A file of one tensor in a chunked codec, and its source."""
    blob = chunked(codec, data, dtype, {pool.layout.id: pool for pool in pools}, **options)
    shape = [len(data) * 8 // BITS[dtype]]
    tables = bs_writer.tables_blob(pools) if pools else b""
    content = bs_writer.container([entry("w", dtype, shape, data, codec)], [blob], tables=tables)
    return content, source_file({"w": (dtype, shape, data)})


def pool_for(dtype: str, data: bytes, base: int) -> bs_writer.Pool:
    """Two tables for the keys of `data`: one that fits, one that does not."""
    layout = LAYOUT_OF[dtype]
    pool = bs_writer.Pool(layout, base, [])
    keys, _, _ = bs_writer.split(bs_writer.unpack_words(data, layout.size), layout)
    symbols = [symbol for symbol in map(pool.symbol, keys) if symbol is not None]
    pool.tables = [bs_writer.Table(symbols), bs_writer.Table(symbols[:5], mantissa=0)]
    return pool


@pytest.mark.parametrize("dtype", list(LAYOUT_OF))
@pytest.mark.parametrize("codec", ["planes", "palette", "sparse", "row_delta", "zstd"])
def test_chunked(tmp_path: Path, codec: str, dtype: str) -> None:
    data = {"palette": palette(dtype, 384, 9), "sparse": sparse(dtype, 384)}.get(codec) or normal(dtype, 384)
    options = {"row_words": 24} if codec == "row_delta" else {}
    content, source = one_tensor(codec, dtype, data, chunk_words=200, **options)
    assert restored(tmp_path, content) == source


WITH_POOL = ["U8", "F8_E4M3", "BF16", "F16", "F32", "F64", "I16", "I64"]


def with_pool_and_classes(dtype: str) -> tuple[bytes, bytes]:
    data = normal(dtype, 700) + bytes(70 * LAYOUT_OF[dtype].size)
    base = {"BF16": 0x1A0, "F32": 0x1A0, "F64": 0x1EE0}.get(dtype, 0)
    pool = pool_for(dtype, data, base)
    unit_classes = [seeded(dtype).randrange(4) for _ in range(8)] + [4, 0]
    return one_tensor("planes", dtype, data, pool, unit_words=77, unit_classes=unit_classes, tables=(0, 1, None, 0, None))


@pytest.mark.parametrize("dtype", WITH_POOL)
def test_planes_with_pool_and_classes(tmp_path: Path, dtype: str) -> None:
    content, source = with_pool_and_classes(dtype)
    assert restored(tmp_path, content) == source


@pytest.mark.parametrize("n", [1, 31, 33, 65536 + 3])
def test_planes_of_all_lengths(tmp_path: Path, n: int) -> None:
    content, source = one_tensor("planes", "BF16", normal("BF16", n), pool_for("BF16", normal("BF16", 1000), 0x1A0), tables=(0,))
    assert restored(tmp_path, content) == source


def small_file(**fields: Any) -> tuple[bytes, bytes]:
    """A file of every codec, and its source."""
    bf16, f32 = normal("BF16", 48), normal("F32", 10)
    tensors: dict[str, Tensor] = {}
    entries: list[dict[str, Any]] = []
    blobs: list[bytes] = []

    def add(name: str, dtype: str, shape: list[int], data: bytes, codec: str, blob: bytes = b"", **fields: Any) -> None:
        tensors[name] = (dtype, shape, data)
        entries.append(entry(name, dtype, shape, data, codec, **fields))
        blobs.append(blob)

    rows, few, zeros = sequential("I32", 12), palette("F16", 14, 3), bytes(60) + normal("F32", 1)
    add("empty", "F64", [0, 3], b"", "empty")
    add("ones", "F16", [2, 2], b"\x00\x3c" * 4, "constant", value="003c")
    add("scalar", "C64", [], b"\x00\x00\x80\x3f" * 2, "constant", value="0000803f")
    add("normal", "BF16", [6, 8], bf16, "planes", chunked("planes", bf16, "BF16", chunk_words=32))
    add("tied", "BF16", [48], bf16, "tied", tied_to=3)
    add("norm.weight", "F32", [5], f32[:20], "packed", pack=0)
    add("positions", "I32", [12], rows, "row_delta", chunked("row_delta", rows, "I32", row_words=1))
    add("norm.bias", "F32", [5], f32[20:], "packed", pack=0)
    add("few", "F16", [14], few, "palette", chunked("palette", few, "F16"))
    add("zeros", "F32", [16], zeros, "sparse", chunked("sparse", zeros, "F32"))
    add("frame", "U8", [5], b"frame", "zstd", chunked("zstd", b"frame", "U8"))
    add("bits", "F4", [6], b"abc", "stored", bs_writer.stored(b"abc"))
    for order in ("iok", "koi", "kio"):
        moved = bytes(bs_writer.ordered(range(24), order, 2, 3, 4))
        add(order, "I8", [2, 3, 2, 2], bytes(range(24)), "stored", bs_writer.stored(moved), order=order)
    pair = sequential("U16", 6)
    moved_pair = bs_writer.ordered(bs_writer.unpack_words(pair, 2), "iok", 2, 3, 1)
    add("packed.iok", "U16", [2, 3], pair, "packed", pack=1, order="iok")
    body = b"\x01\x04" + ONE_CODE + ONE_RAW
    learned = bs_writer.chunk_blob(1, [bs_writer.framed(body)])
    add("learned", "BF16", [], ONE_WORD.to_bytes(2, "little"), "context", learned)
    packs = [{"dtype": "F32", "words": 10, "codec": "planes"}, {"dtype": "U16", "words": 6, "codec": "stored"}]
    pack_blobs = [chunked("planes", f32, "F32"), bs_writer.stored(bs_writer.pack_words(moved_pair, 2))]
    return bs_writer.container(entries, blobs, packs=packs, pack_blobs=pack_blobs, **fields), source_file(tensors)


def test_every_codec_in_one_file(tmp_path: Path) -> None:
    content, source = small_file()
    assert restored(tmp_path, content) == source


def zstd_frame(data: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.compress(data)
    import zstandard

    return zstandard.compress(data)


@pytest.mark.parametrize("compress", [bs_writer.raw_frame, zstd_frame])
def test_compressed_header(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    content, source = small_file(compress=compress)
    assert restored(tmp_path, content) == source


def test_zstd_frames_that_lie() -> None:
    abc = bs_writer.raw_frame(b"abc")
    assert bs_cursor.unzstd(abc, 3) == b"abc"
    # Magic number, no content size, a window of 128 KiB; blocks of one byte repeated 2^17 times (RFC 8878, 3.1.1).
    bomb = bytes.fromhex("28b52ffd0038") + (1 << 20 | 2).to_bytes(3, "little").ljust(4, b"\x00") * 10_000
    for frame, message in [(bomb, "too much"), (abc + b"d", "after"), (abc[:-1], "too early"), (b"abcdefgh", "zstd")]:
        with pytest.raises(FormatError, match=message):
            bs_cursor.unzstd(frame, 1 << 20)


def test_every_flipped_byte_is_noticed() -> None:
    content, _ = small_file()
    for i in range(len(content)):
        with pytest.raises(FormatError):
            bs_reader.BsFile(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :])


def test_every_truncation_is_noticed() -> None:
    content, _ = small_file()
    for n in range(len(content)):
        with pytest.raises(FormatError):
            bs_reader.BsFile(content[:n])
    with pytest.raises(FormatError, match="left over"):
        bs_reader.BsFile(content + b"\x00")


SCALAR = entry("w", "U8", [], b"\x07", "constant", value="07")


def lying(*entries: dict[str, Any], blob: bytes = b"", **fields: Any) -> bytes:
    return bs_writer.container(entries, [blob] * len(entries), **fields)


def without(entry: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != key}


def at_data_offset(value: bytes) -> Callable[[bytes], bytes]:
    return lambda header: re.sub(rb'(?<="data_offset": )\d+', value, header)


EMPTY = entry("a", "U8", [0], b"", "empty")
EMPTY_HEADER = '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"b":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'
LONG_DATA = bytes((1 << 22) + 1)
LONG = entry("w", "U8", [1, len(LONG_DATA)], LONG_DATA, "stored", order="iok")
PACK = {"dtype": "U8", "words": 1, "codec": "stored"}
ZERO_CHUNK = bs_writer.framed(b"\x01\x00" + ZERO_CODE + ZERO_RAW)

LIES = [
    (lying(SCALAR | {"md5": "0" * 32}), "MD5 of the data"),
    (lying(SCALAR, SCALAR), "two tensors named"),
    (lying(SCALAR | {"name": "__metadata__"}), "two tensors named"),
    (lying(SCALAR | {"codec": "middle_out"}), "codec 'middle_out' is not known"),
    (lying(SCALAR | {"dtype": "F12"}), "dtype 'F12' is not known"),
    (lying(SCALAR | {"shape": [-1]}), "shape"),
    (lying(SCALAR | {"shape": [1 << 62, 4]}), "size that cannot be"),
    (lying(SCALAR | {"shape": [1 << 61]}), "size that cannot be"),
    (lying(EMPTY | {"shape": [1 << 32, 1 << 32, 0]}), "size that cannot be"),
    (lying(SCALAR | {"shape": [1] * 65}), "shape that cannot be"),
    (lying(*(SCALAR | {"name": name, "shape": [1 << 60]} for name in "abcdefgh")), "larger than any file"),
    (lying(SCALAR | {"dtype": "F4", "shape": [3]}), "size that cannot be"),
    (lying(SCALAR | {"value": "0700"}), "not one word"),
    (lying(SCALAR | {"value": "0A"}), "not one word"),
    (lying(without(SCALAR, "value")), "'value' is missing"),
    (lying(SCALAR | {"order": "iok"}), "an order for the codec"),
    (lying(SCALAR | {"codec": "stored", "order": "oik"}, blob=bs_writer.stored(b"\x07")), "an order that cannot be"),
    (lying(LONG, blob=bs_writer.stored(LONG_DATA)), "an order that cannot be"),
    (lying(SCALAR | {"codec": "empty"}), "not as many bytes"),
    (lying(SCALAR | {"codec": "tied", "tied_to": 0}), "tied to a tensor"),
    (lying(SCALAR, SCALAR | {"name": "v", "codec": "tied", "tied_to": 2}), "tied to a tensor"),
    (lying(SCALAR, SCALAR | {"name": "v", "codec": "tied", "tied_to": 0, "dtype": "I8"}), "another dtype"),
    (lying(SCALAR | {"codec": "packed", "pack": 0}), "a pack that is not there"),
    (lying(SCALAR, blob=b"blob"), "a blob for the codec"),
    (lying(SCALAR, packs=[PACK], pack_blobs=[bs_writer.stored(b"p")]), "do not add up"),
    (lying(SCALAR, packs=[PACK | {"words": (1 << 22) + 1}], pack_blobs=[b""]), "more than 2\\^22 words"),
    (lying(SCALAR, packs=[PACK], pack_blobs=[b"p"], compress=lambda text: text.replace(b'"bytes": 1', b'"size": 1')), "'bytes' is missing"),
    (lying(SCALAR | {"codec": "packed", "pack": 0}, packs=[PACK | {"dtype": "I8"}], pack_blobs=[bs_writer.stored(b"p")]), "several dtypes"),
    (lying(SCALAR, tables=bytes((9 << 18) + 1)), "tables of more than"),
    (lying(SCALAR, tables=bs_writer.with_crc(b"\x01\x03\x01\x00\x00")), "window beyond the keys"),
    (lying(SCALAR, tables=bs_writer.with_crc(b"\x01\x09\x00\x00\x00")), "pools out of order"),
    (lying(SCALAR | {"codec": "zstd"}, blob=bs_writer.chunk_blob(0, [])), "chunks of no words"),
    (lying(SCALAR | {"codec": "zstd"}, blob=bs_writer.chunk_blob((1 << 24) + 1, [(b"", b"")])), "or of too many"),
    (lying(SCALAR | {"codec": "zstd"}, blob=bs_writer.chunk_blob(1, [bs_writer.framed(bs_writer.raw_frame(b""))])), "too early"),
    (lying(SCALAR | {"codec": "zstd"}, blob=bs_writer.chunk_blob(1, [bs_writer.framed(bs_writer.raw_frame(b"abc"))])), "too much"),
    (lying(SCALAR | {"codec": "context"}, blob=bs_writer.chunk_blob(1, [ZERO_CHUNK])), "not floats"),
    (lying(SCALAR, source_header="[]"), "not an object"),
    (lying(SCALAR, source_header="{}"), "describes other tensors"),
    (lying(EMPTY | {"name": "b"}, EMPTY, source_header=EMPTY_HEADER), "not in the order"),
    (lying(SCALAR, source_header='{"w":{"dtype":"U8","shape":[],"data_offsets":[0,2]}}'), "describes other tensors"),
    (lying(SCALAR, metadata={"k": 1}), "not strings"),
    (lying(SCALAR | {"name": "\ud800"}), "surrogate"),
    (lying(compress=lambda _: b"{}"), "'data_offset' is missing"),
    (lying(compress=lambda _: b"[]"), "not made of objects"),
    (lying(compress=lambda _: b"{"), "not JSON"),
    (lying(compress=lambda _: b'"\xff"'), "not JSON"),
    (lying(compress=lambda text: text.replace(b'"mode"', b'"made"')), "'mode' is missing"),
    (lying(SCALAR, compress=at_data_offset(b"63")), "data_offset cannot be"),
    (lying(SCALAR, compress=at_data_offset(b"0")), "data_offset cannot be"),
    (lying(SCALAR, compress=at_data_offset(b"-64")), "'data_offset' is missing or wrong"),
    (b"BGSM\x02\x00" + bytes(64), "version 2"),
    (b"PK\x03\x04" + bytes(64), "not a .bs file"),
    (b"BGSM\x10\x00" + struct.pack("<I", 100_000_001), "100,000,000 bytes"),
    (b"", "too early"),
]


@pytest.mark.parametrize(("content", "message"), LIES, ids=[message for _, message in LIES])
def test_lying_file(content: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        bs_reader.BsFile(content)


@pytest.mark.parametrize("stored", [b"", b"\x80", b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x00"])
def test_lying_varint(stored: bytes) -> None:
    assert Cursor(b"\xff" * 9 + b"\x01").varint() == (1 << 64) - 1
    with pytest.raises(FormatError):
        Cursor(stored).varint()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (bytes([250, 10, 250, 0]) + bit_string("1" * 22 + "0", "0" * 9), "table that cannot be"),
        (bytes([3, 1, 5, 0]) + bit_string("1" * 22 + "0"), "table that cannot be"),
        (bytes([3, 1, 3, 14]) + bit_string("1" * 22 + "0", "0" * 10), "table that cannot be"),
        (bytes([3, 1, 3, 0]) + bit_string("1" * 22 + "0", "1"), "padding"),
        (bytes([3, 1, 3, 0]) + bit_string("1" * 26 + "0"), "out of range"),
        (bytes([3, 1, 3, 0]) + bit_string("10"), "out of range"),
        (bytes([3, 2, 3, 0]) + bit_string("1" * 24 + "0", "0"), "wrong sum"),
        (bytes([3, 1, 3, 0]) + bit_string("0"), "wrong sum"),
        (bytes([3, 0, 3, 0]), "wrong sum"),
        (bytes([3, 1, 3, 0]) + b"\xff", "too early"),
    ],
)
def test_lying_table(stored: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        bs_streams.read_table(Cursor(stored))


# Three words coded with symbols of half the slots each: a state doubles from 2^16 to 2^17, and the upper symbol adds 2048.
STATES = (1 << 17, (1 << 17) + 2048, 1 << 17) + (1 << 16,) * 29


def f16_block(
    *,
    states: tuple[int, ...] = STATES,
    words: tuple[int, ...] = (),
    raw: bytes = b"\x01\x02\x03\x00",
    patches: tuple[tuple[int, int], ...] = ((1, 0x77),),
    tail: bytes = b"",
) -> list[int]:
    table = bs_streams.Table({0x50: 2048, 0x51: 2048})
    head = struct.pack("<II32I", len(words), len(patches), *states) + bs_writer.padded(bs_writer.pack_words(words, 2), 4)
    places = bs_writer.pack_words([position for position, _ in patches] + [key for _, key in patches], 2)
    return bs_chunks.block(head + raw + places + tail, 3, LAYOUT_OF["F16"], 0, [table])


def test_block_with_a_patch() -> None:
    assert bs_writer.split(f16_block(), LAYOUT_OF["F16"]) == ([0x50, 0x77, 0x50], [1, 2, 3], [])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"states": (1 << 18, *STATES[1:])}, "wrong state"),
        ({"states": (*STATES[:31], 1 << 16 | 1)}, "wrong state"),
        ({"states": (*STATES[:31], 1)}, "below its bound"),
        ({"states": (1 << 16, *STATES[1:])}, "too early"),
        ({"words": (1,)}, "words left over"),
        ({"raw": b"\x01\x02\x03\x04"}, "padding"),
        ({"raw": b""}, "too early"),
        ({"patches": ((1, 0), (1, 0))}, "out of order"),
        ({"patches": ((3, 0),)}, "out of order"),
        ({"patches": ((0, 256),)}, "key that is too large"),
        ({"tail": bytes(4)}, "left over"),
    ],
)
def test_lying_block(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message):
        f16_block(**fields)


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, source = small_file()
    packed, out = tmp_path / "model.bs", tmp_path / "model.safetensors"
    packed.write_bytes(content)
    bs_reader.main([str(packed)])
    assert "norm.weight" in capsys.readouterr().out
    bs_reader.main([str(packed), str(out)])
    assert out.read_bytes() == source
    packed.write_bytes(content[:-1])
    with pytest.raises(SystemExit, match="too early"):
        bs_reader.main([str(packed)])


# The reader and the compiled core.


@pytest.fixture(scope="module")
def bigsmall() -> ModuleType:
    pytest.importorskip("bigsmall._core", reason="the compiled core is not installed")
    return importlib.import_module("bigsmall")


def compressed(bigsmall: ModuleType, tmp_path: Path, content: bytes, mode: str) -> Path:
    source, packed = tmp_path / "model.safetensors", tmp_path / "model.bs"
    source.write_bytes(content)
    bigsmall.compress(source, packed, mode=mode)
    return packed


def restored_by_core(bigsmall: ModuleType, tmp_path: Path, content: bytes) -> bytes:
    packed, source = tmp_path / "model.bs", tmp_path / "model.safetensors"
    packed.write_bytes(content)
    bigsmall.decompress(packed, source)
    return source.read_bytes()


@pytest.mark.parametrize("line", (GOLDEN / "MANIFEST").read_text().splitlines(), ids=lambda line: line.split()[2])
def test_pages_describe_files_written_before(line: str) -> None:
    packed, source, name = line.split()
    assert hashlib.md5((GOLDEN / name).read_bytes()).hexdigest() == packed
    assert hashlib.md5(bs_reader.source(GOLDEN / name)).hexdigest() == source


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_core_writes_what_the_pages_say(bigsmall: ModuleType, tmp_path: Path, kind: str, mode: str) -> None:
    tensors = CHECKPOINTS[kind]()
    content = source_file(tensors, {"format": "pt"})
    packed = compressed(bigsmall, tmp_path, content, mode)
    assert bs_reader.read(packed) == {name: (dtype, tuple(shape), data) for name, (dtype, shape, data) in tensors.items()}
    assert bs_reader.source(packed) == content


def test_core_uses_every_codec_and_order(bigsmall: ModuleType, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "format" / "container.md").read_text("utf-8")
    _, table = page.split("| codec | the words of the tensor are |\n|---|---|\n")
    codecs = set(re.findall(r"^\| `(\w+)` \|", table.partition("\n\n")[0], re.MULTILINE))
    used, orders = set(), set()
    for i, (kind, mode) in enumerate(itertools.product(CHECKPOINTS, MODES)):
        directory = tmp_path / str(i)
        directory.mkdir()
        packed = compressed(bigsmall, directory, source_file(CHECKPOINTS[kind]()), mode)
        header = bs_reader.read_header(Cursor(packed.read_bytes()))
        used |= {tensor["codec"] for tensor in header["tensors"]}
        orders |= {tensor["order"] for tensor in header["tensors"] if "order" in tensor}
    # Patches are read in tests of their own.
    assert used == codecs - {"delta"}
    assert orders == {"iok", "koi", "kio"}


def test_core_uses_tables_in_large_chunks(bigsmall: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_symbol, symbols = bs_context.Coder.symbol, Counter[int]()

    def symbol(coder: bs_context.Coder, starts: Sequence[int]) -> int:
        s = read_symbol(coder, starts)
        symbols[s] += 1
        return s

    monkeypatch.setattr(bs_context.Coder, "symbol", symbol)
    content = source_file(large_and_pruned())
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "storage")) == content
    assert len(symbols) > 20


def test_core_reads_every_codec(bigsmall: ModuleType, tmp_path: Path) -> None:
    content, source = small_file()
    assert restored_by_core(bigsmall, tmp_path, content) == source


@pytest.mark.parametrize("dtype", WITH_POOL)
def test_core_reads_pool_and_classes(bigsmall: ModuleType, tmp_path: Path, dtype: str) -> None:
    content, source = with_pool_and_classes(dtype)
    assert restored_by_core(bigsmall, tmp_path, content) == source


@pytest.mark.parametrize(("content", "message"), LIES, ids=[message for _, message in LIES])
def test_core_refuses_what_the_pages_refuse(bigsmall: ModuleType, tmp_path: Path, content: bytes, message: str) -> None:
    packed = tmp_path / "model.bs"
    packed.write_bytes(content)
    with pytest.raises(bigsmall.BigSmallError):
        bigsmall.decompress(packed, tmp_path / "model.safetensors")


A, B = '"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}', '"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}'


@pytest.mark.parametrize(
    "header",
    [
        f"{{{B},{A}}}",
        f"{{{A}, {B}}}",
        f'{{{A},{B},"__metadata__":{{}}}}',
        f"{{{A},{B}}}".replace('"a"', '"\\u0061"'),
        f"{{{A},{B}}}".replace('"dtype":"U8","shape":[3]', '"shape":[3],"dtype":"U8"'),
        f"{{{A},{B}}}".replace('"shape":[3]', '"shape":[3],"strides":[1]'),
        f"{{{A},{B}}}".ljust(200),
        f"{{{A},{B}}}",
    ],
    ids=["other order", "a blank", "metadata last", "escape", "keys in other order", "another key", "more filling", "no filling"],
)
def test_core_keeps_unusual_source_headers(bigsmall: ModuleType, tmp_path: Path, header: str) -> None:
    content = struct.pack("<Q", len(header)) + header.encode() + b"abcde"
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content


def test_core_keeps_names_and_metadata(bigsmall: ModuleType, tmp_path: Path) -> None:
    names = ['"quoted"', "back\\slash", "\x01\t\n\x7f", "名前 🙂", ""]
    tensors: dict[str, Tensor] = {name: ("U8", [1], bytes([i])) for i, name in enumerate(names)}
    content = source_file(tensors, {"z": "last first", "a": '"\\\b\f\r\x1f/'})
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content


def first_tensors(content: bytes, words: int) -> bytes:
    """A checkpoint of the first tensors of another one, as many of them as together have up to `words` words."""
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    tensors: dict[str, Tensor] = {}
    for name, info in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, end = info["data_offsets"]
        words -= (end - start) // LAYOUT_OF[info["dtype"]].size
        if words < 0:
            break
        tensors[name] = (info["dtype"], info["shape"], content[8 + size + start : 8 + size + end])
    return source_file(tensors)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["lora_sd15_disney_inpaint_f16", "retsim_v1_bf16"])
def test_core_on_real_weights(bigsmall: ModuleType, tmp_path: Path, name: str, mode: str) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        pytest.skip("../shared/weights is absent")
    content = path.read_bytes()
    if mode == "storage":
        content = first_tensors(content, 40_000)
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, mode)) == content


# Patches.

PATCHES = ROOT / "tests" / "golden_patches"


def test_a_golden_patch_is_read_on_its_base() -> None:
    digests = {name: digest for digest, name in (line.split() for line in (PATCHES / "MANIFEST").read_text().splitlines())}
    base = bs_reader.read(PATCHES / "base.bs")
    tuned = bs_reader.source(PATCHES / "patch.bs", base)
    assert hashlib.md5(tuned).hexdigest() == digests["tuned.safetensors"]
    with pytest.raises(FormatError, match="without its base"):
        bs_reader.read(PATCHES / "patch.bs")
    name, (dtype, shape, data) = next(iter(base.items()))
    with pytest.raises(FormatError, match="another base"):
        bs_reader.read(PATCHES / "patch.bs", {**base, name: (dtype, shape, bytes([data[0] ^ 1]) + data[1:])})


@pytest.mark.parametrize("stride", [1, 7, 1000])
def test_patches_of_the_core_are_read(bigsmall: ModuleType, tmp_path: Path, stride: int) -> None:
    """Every `stride`th word of tensors of several layouts moves, by more and more."""
    tensors: dict[str, Tensor] = {
        dtype: (dtype, [40, 100], normal(dtype, 4000)) for dtype in ("BF16", "F16", "F32", "F64", "F8_E4M3", "I32")
    }
    moved: dict[str, Tensor] = {}
    for name, (dtype, shape, data) in tensors.items():
        size = LAYOUT_OF[dtype].size
        words = [int.from_bytes(data[at : at + size], "little") for at in range(0, len(data), size)]
        words = [(word + (at % 50 if at % stride == 0 else 0)) % (1 << 8 * size) for at, word in enumerate(words)]
        moved[name] = (dtype, shape, b"".join(word.to_bytes(size, "little") for word in words))
    (tmp_path / "base.safetensors").write_bytes(source_file(tensors))
    (tmp_path / "tuned.safetensors").write_bytes(source_file(moved))
    bigsmall.compress(tmp_path / "tuned.safetensors", tmp_path / "patch.bs", delta_from=tmp_path / "base.safetensors")
    bigsmall.compress(tmp_path / "base.safetensors", tmp_path / "base.bs")
    base = bs_reader.read(tmp_path / "base.bs")
    assert bs_reader.source(tmp_path / "patch.bs", base) == (tmp_path / "tuned.safetensors").read_bytes()
