"""The reader of `tests/reference`: by hand-made bytes, by files of its own small writer, and by files that the compiled core wrote."""

import hashlib
import importlib
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "reference"))

import bs_reader  # noqa: E402
import bs_streams  # noqa: E402
import bs_writer  # noqa: E402
from bs_checkpoints import CHECKPOINTS, Tensor, normal, palette, seeded, sequential, source_file, sparse  # noqa: E402
from bs_streams import BITS, LAYOUT_OF, Cursor, FormatError  # noqa: E402

WEIGHTS = ROOT.parent / "shared" / "weights"
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
    assert bs_streams.bit_plane(Cursor(stored), len(values), w) == values


def test_block_by_hand() -> None:
    # 0x3F80 turns into t = 0x7F00: key 0x1FC, raw 0. 0xBF81 into 0x7F03: the same key, raw 3. 0x0001 is patched: t = 2, key 0, raw 2.
    # Raw planes: [0, 0, 0] in 4 bits each, two bytes; [0, 3, 2] in 2 bits each, one byte, 0b101100.
    data = struct.pack("<I", 1) + b"\x00\x00\x2c\x00" + struct.pack("<HH", 2, 0)
    assert bs_streams.block(data, 3, LAYOUT_OF["BF16"], 0x1FB, [1]) == [0x3F80, 0xBF81, 0x0001]


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


@pytest.mark.parametrize("dtype", ["U8", "F8_E4M3", "BF16", "F16", "F32", "F64", "I16", "I64"])
def test_planes_with_pool_and_classes(tmp_path: Path, dtype: str) -> None:
    data = normal(dtype, 700) + bytes(70 * LAYOUT_OF[dtype].size)
    base = {"BF16": 0x1A0, "F32": 0x1A0, "F64": 0x1EE0}.get(dtype, 0)
    pool = pool_for(dtype, data, base)
    unit_classes = [seeded(dtype).randrange(4) for _ in range(8)] + [4, 0]
    content, source = one_tensor("planes", dtype, data, pool, unit_words=77, unit_classes=unit_classes, tables=(0, 1, None, 0, None))
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
    pack = {"dtype": "F32", "words": 10, "codec": "planes"}
    return bs_writer.container(entries, blobs, packs=[pack], pack_blobs=[chunked("planes", f32, "F32")], **fields), source_file(tensors)


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
    assert bs_streams.unzstd(abc, 3) == b"abc"
    # Magic number, no content size, a window of 128 KiB; blocks of one byte repeated 2^17 times (RFC 8878, 3.1.1).
    bomb = bytes.fromhex("28b52ffd0038") + (1 << 20 | 2).to_bytes(3, "little").ljust(4, b"\x00") * 10_000
    for frame, message in [(bomb, "too much"), (abc + b"d", "after"), (abc[:-1], "too early"), (b"abcdefgh", "zstd")]:
        with pytest.raises(FormatError, match=message):
            bs_streams.unzstd(frame, 1 << 20)


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
        (lying(SCALAR, blob=b"blob"), "a blob for the codec"),
        (lying(SCALAR, packs=[{"dtype": "U8", "words": 1, "codec": "stored"}], pack_blobs=[bs_writer.stored(b"p")]), "left over"),
        (lying(SCALAR, source_header="{}"), "describes other tensors"),
        (lying(SCALAR, source_header='{"w":{"dtype":"U8","shape":[],"data_offsets":[0,2]}}'), "describes other tensors"),
        (lying(SCALAR, metadata={"k": 1}), "not strings"),
        (lying(SCALAR | {"name": "\ud800"}), "surrogate"),
        (lying(compress=lambda _: b"{}"), "'data_offset' is missing"),
        (lying(compress=lambda _: b"[]"), "not made of objects"),
        (lying(compress=lambda _: b"{"), "not JSON"),
        (lying(compress=lambda _: b'"\xff"'), "not JSON"),
        (lying(compress=lambda _: b'{"data_offset":63}'), "data_offset cannot be"),
        (lying(compress=lambda _: b'{"data_offset":0}'), "data_offset cannot be"),
        (lying(compress=lambda _: b'{"data_offset":-64}'), "'data_offset' is missing or wrong"),
        (b"BGSM\x02\x00" + bytes(64), "version 2"),
        (b"PK\x03\x04" + bytes(64), "not a .bs file"),
        (b"BGSM\x10\x00" + struct.pack("<I", 100_000_001), "over 100 MB"),
        (b"", "too early"),
    ],
)
def test_lying_header(content: bytes, message: str) -> None:
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
    return bs_streams.block(head + raw + places + tail, 3, LAYOUT_OF["F16"], 0, [table])


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_core_writes_what_the_pages_say(bigsmall: ModuleType, tmp_path: Path, kind: str, mode: str) -> None:
    tensors = CHECKPOINTS[kind]()
    content = source_file(tensors, {"format": "pt"})
    packed = compressed(bigsmall, tmp_path, content, mode)
    assert bs_reader.read(packed) == {name: (dtype, tuple(shape), data) for name, (dtype, shape, data) in tensors.items()}
    assert bs_reader.source(packed) == content


A, B = '"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}', '"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}'


@pytest.mark.parametrize(
    "header",
    [
        f"{{{B},{A}}}",
        f"{{{A}, {B}}}",
        f'{{{A},{B},"__metadata__":{{}}}}',
        f"{{{A},{B}}}".replace('"a"', '"\\u0061"'),
        f"{{{A},{B}}}".replace('"dtype":"U8","shape":[3]', '"shape":[3],"dtype":"U8"'),
        f"{{{A},{B}}}".ljust(200),
        f"{{{A},{B}}}",
    ],
    ids=["other order", "a blank", "metadata last", "escape", "keys in other order", "more filling", "no filling"],
)
def test_core_keeps_unusual_source_headers(bigsmall: ModuleType, tmp_path: Path, header: str) -> None:
    content = struct.pack("<Q", len(header)) + header.encode() + b"abcde"
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content


def test_core_keeps_names_and_metadata(bigsmall: ModuleType, tmp_path: Path) -> None:
    names = ['"quoted"', "back\\slash", "\x01\t\n\x7f", "名前 🙂", ""]
    tensors: dict[str, Tensor] = {name: ("U8", [1], bytes([i])) for i, name in enumerate(names)}
    content = source_file(tensors, {"z": "last first", "a": '"\\\b\f\r\x1f/'})
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content


@pytest.mark.parametrize("name", ["lora_sd15_disney_inpaint_f16", "retsim_v1_bf16"])
def test_core_on_real_weights(bigsmall: ModuleType, tmp_path: Path, name: str) -> None:
    path = WEIGHTS / f"{name}.safetensors"
    if not path.exists():
        pytest.skip("shared/weights is not here")
    content = path.read_bytes()
    assert bs_reader.source(compressed(bigsmall, tmp_path, content, "balanced")) == content
