"""The reader of `tests/reference`: by hand-made bytes, by files of its own small writer, and by files that the compiled core wrote."""

import hashlib
import json
import random
import struct
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "reference"))

import bs_reader  # noqa: E402
import bs_streams  # noqa: E402
import bs_writer  # noqa: E402
from bs_streams import LAYOUT_OF, FormatError, Cursor  # noqa: E402

WEIGHTS = ROOT.parent / "shared" / "weights"
MODES = ["balanced", "storage", "inference"]


# Test data: (dtype, shape, bytes).


def seeded(*key):
    return random.Random(repr(key))


def normal(dtype, count, scale=0.02, seed=0):
    """`count` words of normally distributed values; of random bits where the dtype is no float of 16 bits and more."""
    rng = seeded(dtype, count, scale, seed)
    if dtype == "BF16":
        return b"".join(struct.pack("<f", rng.gauss(0, scale))[2:] for _ in range(count))
    if code := {"F16": "e", "F32": "f", "C64": "f", "F64": "d"}.get(dtype):
        return struct.pack(f"<{count}{code}", *(rng.gauss(0, scale) for _ in range(count)))
    if dtype == "BOOL":
        return bytes(rng.choice([0, 1, 1, 1]) for _ in range(count))
    if dtype.startswith("F8"):
        return b"".join(struct.pack("<e", rng.gauss(0, 1))[1:] for _ in range(count))
    return rng.randbytes(count * LAYOUT_OF[dtype].size)


def every_dtype(count=384):
    """A tensor of each dtype; `count` words divide into elements of all of them."""
    out = {}
    for dtype, bits in bs_streams.BITS.items():
        data = normal(dtype, count)
        out[f"weight.{dtype}"] = (dtype, [4, len(data) * 2 // bits], data)
    return out


def sparse_data(dtype, count):
    size, rng = LAYOUT_OF[dtype].size, seeded("sparse", dtype)
    words = [bytes(size) if rng.random() < 0.9 else normal(dtype, 1, seed=i) for i in range(count)]
    return b"".join(words)


def palette_data(dtype, count, distinct):
    size, rng = LAYOUT_OF[dtype].size, seeded("palette", dtype, count)
    values = [rng.randbytes(size) for _ in range(distinct)]
    return b"".join(rng.choices(values, range(distinct, 0, -1), k=count))


def sequential(dtype, start, count):
    size = LAYOUT_OF[dtype].size
    return b"".join((start + i).to_bytes(size, "little") for i in range(count))


def smooth_rows(code, rows, columns):
    """Rows that resemble the row before, as those of trained position embeddings do."""
    rng = seeded("rows", code)
    row, out = [rng.gauss(0, 0.1) for _ in range(columns)], b""
    for _ in range(rows):
        row = [value + rng.gauss(0, 1e-4) for value in row]
        packed = struct.pack(f"<{columns}f", *row)
        out += packed if code == "f" else b"".join(packed[i + 2 : i + 4] for i in range(0, len(packed), 4))
    return out


def source_file(tensors, metadata=None, header=None):
    """A safetensors file; `header` replaces the canonical one."""
    if header is None:
        entries, offset = {} if metadata is None else {"__metadata__": metadata}, 0
        for name, (dtype, shape, data) in tensors.items():
            entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
            offset += len(data)
        header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + b"".join(data for _, _, data in tensors.values())


# The pages, by bytes worked out by hand.


def bit_string(*fields):
    bits = "".join(fields)
    return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little")


def test_table_by_hand():
    # Symbols 5 to 7, one mantissa bit. 6 has 2^10: b = 11, d = 11, zigzag 22. 7 has 3·2^8: b = 10, d = -1, zigzag 1.
    cursor = Cursor(bytes([5, 2, 5, 1]) + bit_string("1" * 22 + "0", "0", "10", "1"))
    table = bs_streams.read_table(cursor)
    cursor.end()
    assert [table.symbol.count(symbol) for symbol in (5, 6, 7)] == [4096 - 1024 - 768, 1024, 768]
    assert [table.symbol.index(symbol) for symbol in (5, 6, 7)] == [0, 2304, 3328]


def test_rans_by_hand():
    # Backwards from the final state 2^16 + 5, coding symbol 9 of frequency 64 three times: 1024 << 12 | 5 = 2^22 + 5; 2^16 << 12 | 5 = 2^28 + 5,
    # which is at least 64 << 20, so its low half 5 becomes a word and leaves 2^12; 64 << 12 = 2^18.
    table = bs_streams.Table({9: 64, 10: 4032})
    assert bs_streams.rans(table, [1 << 18], [5], 3) == ([9, 9, 9], [5])


def test_short_stream_by_hand():
    # 0 of frequency 1024 last: 64 << 12 = 262144. 1 of frequency 3072 before: 262144 = 85 · 3072 + 1024, so 85 << 12 | 1024, plus 1024 below it.
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
def test_bit_plane_by_hand(w, stored, values):
    assert bs_streams.bit_plane(Cursor(stored), len(values), w) == values


def test_block_by_hand():
    # 0x3F80 turns into t = 0x7F00: key 0x1FC, raw 0. 0xBF81 into 0x7F03: the same key, raw 3. 0x0001 is patched: t = 2, key 0, raw 2.
    # Raw planes: [0, 0, 0] in 4 bits each, two bytes; [0, 3, 2] in 2 bits each, one byte, 0b101100.
    data = struct.pack("<I", 1) + b"\x00\x00\x2c\x00" + struct.pack("<HH", 2, 0)
    assert bs_streams.block(data, 3, LAYOUT_OF["BF16"], 0x1FB, [1]) == [0x3F80, 0xBF81, 0x0001]


def test_container_by_hand(tmp_path):
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


def entry(name, dtype, shape, data, codec, **fields):
    return {"name": name, "dtype": dtype, "shape": shape, "md5": hashlib.md5(data).hexdigest(), "codec": codec, **fields}


def restored(tmp_path, content):
    path = tmp_path / "model.bs"
    path.write_bytes(content)
    return bs_reader.source(path)


def one_tensor(codec, dtype, data, pools=None, **options):
    """A file of one tensor in a chunked codec, and its source."""
    pools = pools or {}
    blob = bs_writer.chunked(getattr(bs_writer, codec), data, dtype, pools, **options)
    shape = [len(data) * 8 // bs_streams.BITS[dtype]]
    tables = bs_writer.tables_blob(list(pools.values())) if pools else b""
    return bs_writer.container([entry("w", dtype, shape, data, codec)], [blob], tables), source_file({"w": (dtype, shape, data)})


def pool_for(dtype, data, base):
    """Two tables for the keys of `data`: one that fits, one that does not."""
    layout = LAYOUT_OF[dtype]
    keys = [bs_writer.split(word, layout)[0] for word in bs_writer.unpack_words(data, layout.size)]
    pool = bs_writer.Pool(layout, base, [])
    symbols = [pool.symbol(key) for key in keys if pool.symbol(key) is not None]
    pool.tables = [bs_writer.Table(symbols), bs_writer.Table(symbols[:5], mantissa=0)]
    return pool


@pytest.mark.parametrize("dtype", list(LAYOUT_OF))
@pytest.mark.parametrize("codec", ["planes", "palette", "sparse", "row_delta", "zstd"])
def test_chunked(tmp_path, codec, dtype):
    data = {"palette": palette_data(dtype, 384, 9), "sparse": sparse_data(dtype, 384)}.get(codec) or normal(dtype, 384)
    options = {"row_words": 24} if codec == "row_delta" else {}
    content, source = one_tensor(codec, dtype, data, chunk_words=200, **options)
    assert restored(tmp_path, content) == source


@pytest.mark.parametrize("dtype", ["U8", "F8_E4M3", "BF16", "F16", "F32", "F64", "I16", "I64"])
def test_planes_with_pool_and_classes(tmp_path, dtype):
    layout, data = LAYOUT_OF[dtype], normal(dtype, 700) + bytes(70 * LAYOUT_OF[dtype].size)
    base = {"BF16": 0x1A0, "F32": 0x1A0, "F64": 0x1EE0}.get(dtype, 0)
    pools = {layout.id: pool_for(dtype, data, base)}
    unit_classes = [seeded(dtype).randrange(4) for _ in range(8)] + [4, 0]
    content, source = one_tensor("planes", dtype, data, pools, unit_words=77, unit_classes=unit_classes, tables=(0, 1, None, 0, None))
    assert restored(tmp_path, content) == source


@pytest.mark.parametrize("n", [1, 31, 33, 65536 + 3])
def test_planes_of_all_lengths(tmp_path, n):
    content, source = one_tensor("planes", "BF16", normal("BF16", n), {2: pool_for("BF16", normal("BF16", 1000), 0x1A0)}, tables=(0,))
    assert restored(tmp_path, content) == source


def small_file(**fields):
    """A file of every codec, and its source."""
    bf16, f32 = normal("BF16", 48), normal("F32", 10)
    tensors, entries, blobs = {}, [], []

    def add(name, dtype, shape, data, codec, blob=b"", **fields):
        tensors[name] = (dtype, shape, data)
        entries.append(entry(name, dtype, shape, data, codec, **fields))
        blobs.append(blob)

    def chunks(codec, dtype, data, **options):
        return bs_writer.chunked(getattr(bs_writer, codec), data, dtype, {}, **options)

    rows, few, zeros = sequential("I32", 1000, 12), palette_data("F16", 14, 3), bytes(60) + normal("F32", 1)
    add("empty", "F64", [0, 3], b"", "empty")
    add("ones", "F16", [2, 2], b"\x00\x3c" * 4, "constant", value="003c")
    add("scalar", "C64", [], b"\x00\x00\x80\x3f" * 2, "constant", value="0000803f")
    add("normal", "BF16", [6, 8], bf16, "planes", chunks("planes", "BF16", bf16, chunk_words=32))
    add("tied", "BF16", [48], bf16, "tied", tied_to=3)
    add("norm.weight", "F32", [5], f32[:20], "packed", pack=0)
    add("positions", "I32", [12], rows, "row_delta", chunks("row_delta", "I32", rows, row_words=1))
    add("norm.bias", "F32", [5], f32[20:], "packed", pack=0)
    add("few", "F16", [14], few, "palette", chunks("palette", "F16", few))
    add("zeros", "F32", [16], zeros, "sparse", chunks("sparse", "F32", zeros))
    add("frame", "U8", [5], b"frame", "zstd", chunks("zstd", "U8", b"frame"))
    add("bits", "F4", [6], b"abc", "stored", bs_writer.stored(b"abc"))
    pack = {"dtype": "F32", "words": 10, "codec": "planes"}
    return bs_writer.container(entries, blobs, packs=[pack], pack_blobs=[chunks("planes", "F32", f32)], **fields), source_file(tensors)


def test_every_codec_in_one_file(tmp_path):
    content, source = small_file()
    assert restored(tmp_path, content) == source


def raw_frame(data):
    return bs_writer.zstd(data, LAYOUT_OF["U8"], {})[1]


def zstd_frame(data):
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.compress(data)
    import zstandard

    return zstandard.compress(data)


@pytest.mark.parametrize("compress", [raw_frame, zstd_frame])
def test_compressed_header(tmp_path, compress):
    content, source = small_file(compress=compress)
    assert restored(tmp_path, content) == source


def test_zstd_frames_that_lie():
    assert bs_streams.unzstd(raw_frame(b"abc"), 3) == b"abc"
    # Magic number, no content size, a window of 128 KiB; blocks of one byte repeated 2^17 times (RFC 8878, 3.1.1).
    bomb = bytes.fromhex("28b52ffd" "00" "38") + (1 << 20 | 2).to_bytes(3, "little").ljust(4, b"\x00") * 10_000
    for frame, message in [(bomb, "too much"), (raw_frame(b"abc") + b"d", "after"), (raw_frame(b"abc")[:-1], "too early"), (b"abcdefgh", "zstd")]:
        with pytest.raises(FormatError, match=message):
            bs_streams.unzstd(frame, 1 << 20)


def test_every_flipped_byte_is_noticed(tmp_path):
    content, _ = small_file()
    for i in range(len(content)):
        with pytest.raises(FormatError):
            bs_reader.BsFile(content[:i] + bytes([content[i] ^ 1 << i % 8]) + content[i + 1 :])


def test_every_truncation_is_noticed(tmp_path):
    content, _ = small_file()
    for n in range(len(content)):
        with pytest.raises(FormatError):
            bs_reader.BsFile(content[:n])
    with pytest.raises(FormatError, match="left over"):
        bs_reader.BsFile(content + b"\x00")


SCALAR = entry("w", "U8", [], b"\x07", "constant", value="07")


def lying(*entries, blobs=(b"",), **fields):
    return bs_writer.container(entries, blobs * len(entries), **fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lying(SCALAR | {"md5": "0" * 32}), "MD5 of the data"),
        (lying(SCALAR, SCALAR), "two tensors named"),
        (lying(SCALAR | {"name": "__metadata__"}), "two tensors named"),
        (lying(SCALAR | {"codec": "middle_out"}), "codec 'middle_out' is not known"),
        (lying(SCALAR | {"dtype": "F12"}), "dtype 'F12' is not known"),
        (lying(SCALAR | {"shape": [-1]}), "shape"),
        (lying(SCALAR | {"shape": [1 << 62, 4]}), "size that cannot be"),
        (lying(SCALAR | {"dtype": "F4", "shape": [3]}), "size that cannot be"),
        (lying(SCALAR | {"value": "0700"}), "not one word"),
        (lying(SCALAR | {"codec": "empty"}), "not as many bytes"),
        (lying(SCALAR | {"codec": "tied", "tied_to": 0}), "tied to a tensor"),
        (lying(SCALAR, SCALAR | {"name": "v", "codec": "tied", "tied_to": 2}), "tied to a tensor"),
        (lying(SCALAR, SCALAR | {"name": "v", "codec": "tied", "tied_to": 0, "dtype": "I8"}), "another dtype"),
        (lying(SCALAR | {"codec": "packed", "pack": 0}), "a pack that cannot be"),
        (lying(SCALAR, blobs=(b"blob",)), "a blob for the codec"),
        (lying(SCALAR, packs=[{"dtype": "U8", "words": 1, "codec": "stored"}], pack_blobs=[bs_writer.stored(b"p")]), "left over"),
        (lying(SCALAR, source_header="{}"), "describes other tensors"),
        (lying(SCALAR, source_header='{"w":{"dtype":"U8","shape":[],"data_offsets":[0,2]}}'), "describes other tensors"),
        (lying(SCALAR, metadata={"k": 1}), "not strings"),
        (lying(SCALAR | {"name": "\ud800"}), "surrogate"),
        (b"BGSM\x02\x00" + bytes(64), "version 2"),
        (b"PK\x03\x04" + bytes(64), "not a .bs file"),
        (b"BGSM\x10\x00" + struct.pack("<I", 100_000_001), "over 100 MB"),
        (b"", "too early"),
    ],
)
def test_lying_header(content, message):
    with pytest.raises(FormatError, match=message):
        bs_reader.BsFile(content)


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
def test_lying_table(stored, message):
    with pytest.raises(FormatError, match=message):
        bs_streams.read_table(Cursor(stored))


def test_lying_block():
    layout, table = LAYOUT_OF["F16"], bs_streams.Table({0x50: 2048, 0x51: 2048})

    def parse(states=(1 << 16,) * 32, words=(), raw=b"\x01\x02\x03\x00", patches=((1, 0x77),), tail=b""):
        head = struct.pack("<II32I", len(words), len(patches), *states) + bs_writer.padded(struct.pack(f"<{len(words)}H", *words), 4)
        places = struct.pack(f"<{2 * len(patches)}H", *(p for p, _ in patches), *(k for _, k in patches))
        return bs_streams.block(head + raw + places + tail, 3, layout, 0, [table])

    # Coding a symbol of half the slots doubles the state: 2^15 of 2048 each is 2^17, plus 2048 for the upper one.
    states = (1 << 17, (1 << 17) + 2048, 1 << 17) + (1 << 16,) * 29
    words = parse(states)
    assert [bs_writer.split(word, layout)[:2] for word in words] == [(0x50, 1), (0x77, 2), (0x50, 3)]
    for message, bad in [
        ("wrong state", {"states": (1 << 18,) + states[1:]}),
        ("wrong state", {"states": states[:31] + (1 << 16 | 1,)}),
        ("below its bound", {"states": states[:31] + (1,)}),
        ("words left over", {"states": states, "words": [1]}),
        ("too early", {"states": (1 << 16,) + states[1:]}),
        ("padding", {"states": states, "raw": b"\x01\x02\x03\x04"}),
        ("out of order", {"states": states, "patches": ((1, 0), (1, 0))}),
        ("out of order", {"states": states, "patches": ((3, 0),)}),
        ("key that is too large", {"states": states, "patches": ((0, 256),)}),
        ("left over", {"states": states, "tail": bytes(4)}),
        ("too early", {"states": states, "raw": b""}),
    ]:
        with pytest.raises(FormatError, match=message):
            parse(**bad)


def test_command_line(tmp_path, capsys):
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


def many_small_tensors():
    rng, out = seeded("many"), {}
    for i in range(120):
        n, dtype = rng.randrange(1, 40), rng.choice(["F32", "BF16", "F16", "I64"])
        out[f"blocks.{i}.bias"] = (dtype, [n], normal(dtype, n, scale=rng.choice([0.01, 0.1, 1]), seed=i))
    return out


def rows_of_different_scale(dtype, rows, columns):
    return b"".join(normal(dtype, columns, scale=2.0 ** (i % 7 - 8), seed=i) for i in range(rows))


def f32_from_bf16(count):
    data = normal("BF16", count)
    return b"".join(b"\x00\x00" + data[i : i + 2] for i in range(0, len(data), 2))


def constants():
    return {
        "zeros": ("F32", [40, 50], bytes(8000)),
        "ones": ("BF16", [3000], b"\x80\x3f" * 3000),
        "scalar": ("F64", [], struct.pack("<d", 0.5)),
        "count": ("I64", [], struct.pack("<q", -3)),
        "flag": ("BOOL", [1], b"\x01"),
        "complex": ("C64", [2, 50], struct.pack("<ff", 1, 1) * 100),
        "empty": ("F16", [0], b""),
        "empty rows": ("F4", [3, 0, 2], b""),
    }


def tied():
    data, short = normal("BF16", 6000), normal("F32", 20)
    return {
        "embed.weight": ("BF16", [60, 100], data),
        "head.weight": ("BF16", [100, 60], data),
        "same bits": ("F16", [6000], data),
        "a.bias": ("F32", [20], short),
        "b.bias": ("F32", [20], short),
    }


CHECKPOINTS = {
    "no tensors": dict,
    "every dtype": every_dtype,
    "every dtype, longer": lambda: every_dtype(3072),
    "constants": constants,
    "sparse": lambda: {dtype: (dtype, [3000], sparse_data(dtype, 3000)) for dtype in ("F32", "BF16", "F16", "U8", "I64")},
    "palette": lambda: {f"{dtype} {n}": (dtype, [3000], palette_data(dtype, 3000, n)) for dtype in ("F32", "F16", "I64") for n in (2, 16, 200)},
    "tied": tied,
    "many small tensors": many_small_tensors,
    "F32 that holds BF16": lambda: {"w": ("F32", [80, 50], f32_from_bf16(4000)), "mixed": ("F32", [4000], f32_from_bf16(2000) + normal("F32", 2000))},
    "random integers": lambda: {dtype: (dtype, [2000], normal(dtype, 2000)) for dtype in ("I8", "U16", "I32", "U64")},
    "sequential integers": lambda: {dtype: (dtype, [1, 512], sequential(dtype, 1 << 10, 512)) for dtype in ("I16", "I32", "U32", "I64")},
    "position embeddings": lambda: {"f32": ("F32", [64, 64], smooth_rows("f", 64, 64)), "bf16": ("BF16", [64, 64], smooth_rows("b", 64, 64))},
    "rows of different scale": lambda: {
        dtype: (dtype, [len(data) // LAYOUT_OF[dtype].size // 128, 128], data)
        for dtype in ("BF16", "F16", "F32")
        for data in [rows_of_different_scale(dtype, 96, 128)]
    },
    "more than one block": lambda: {"w": ("BF16", [70, 1000], normal("BF16", 70_000))},
    "text": lambda: {"tokens": ("U8", [8000], (" ".join(str(i * i) for i in range(2000))).encode()[:8000])},
}


@pytest.fixture(scope="module")
def bigsmall():
    pytest.importorskip("bigsmall._core", reason="the compiled core is not installed")
    return pytest.importorskip("bigsmall")


def compressed(bigsmall, tmp_path, content, mode):
    source, packed = tmp_path / "model.safetensors", tmp_path / "model.bs"
    source.write_bytes(content)
    bigsmall.compress(source, packed, mode=mode)
    return packed


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_core_writes_what_the_pages_say(bigsmall, tmp_path, kind, mode):
    tensors = CHECKPOINTS[kind]()
    content = source_file(tensors, {"format": "pt"})
    packed = compressed(bigsmall, tmp_path, content, mode)
    assert bs_reader.read(packed) == {name: (dtype, tuple(shape), data) for name, (dtype, shape, data) in tensors.items()}
    assert bs_reader.source(packed) == content


def header_bytes(*parts):
    return ("{" + ",".join(parts) + "}").encode()


@pytest.mark.parametrize(
    "header",
    [
        header_bytes('"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}', '"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}'),
        header_bytes('"a":{"shape":[3],"dtype":"U8","data_offsets":[0,3]}', ' "b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}'),
        header_bytes('"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}', '"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}', '"__metadata__":{}'),
        header_bytes('"\\u0061":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}', '"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}'),
    ],
    ids=["other order", "blanks", "metadata last", "escapes"],
)
def test_core_keeps_unusual_source_headers(bigsmall, tmp_path, header):
    content = struct.pack("<Q", len(header)) + header + b"abcde"
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content


def test_core_keeps_names_and_metadata(bigsmall, tmp_path):
    tensors = {name: ("U8", [1], bytes([i])) for i, name in enumerate(['"quoted"', "back\\slash", "\x01\t\n\x7f", "名前 🙂", ""])}
    content = source_file(tensors, {"z": "last first", "a": '"\\\b\f\r\x1f/'})
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content


@pytest.mark.parametrize("name", ["lora_sd15_disney_inpaint_f16", "retsim_v1_bf16"])
def test_core_on_real_weights(bigsmall, tmp_path, name):
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        pytest.skip("shared/weights is not here")
    content = path.read_bytes()
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content
