"""Tables, streams and chunks: `docs/format/streams.md` in Python, section by section."""

import itertools
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

if sys.version_info >= (3, 14):
    from compression.zstd import ZstdDecompressor, ZstdError
else:
    import zstandard
    from zstandard import ZstdError

    def ZstdDecompressor() -> "zstandard.ZstdDecompressionObj":  # noqa: N802 - the name in the standard library
        return zstandard.ZstdDecompressor().decompressobj()


Data = bytes | memoryview


class FormatError(ValueError):
    """The file is not what the format pages describe."""


def check(holds: object, message: str) -> None:
    if not holds:
        raise FormatError(message)


class Cursor:
    """Little-endian fields of `data`, one after the other. Reading past the end is a `FormatError`."""

    def __init__(self, data: Data) -> None:
        self.data, self.at = memoryview(data), 0

    def take(self, n: int) -> memoryview:
        check(n <= len(self.data) - self.at, "the data ends too early")
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self) -> memoryview:
        return self.take(len(self.data) - self.at)

    def unpack(self, code: str, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}{code}", self.take(count * struct.calcsize("<" + code)))

    def u8(self) -> int:
        return self.take(1)[0]

    def u16(self) -> int:
        return self.unpack("H", 1)[0]

    def u32(self) -> int:
        return self.unpack("I", 1)[0]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                check(value < 1 << 64, "a varint over 64 bits")
                return value
        raise FormatError("a varint of more than ten bytes")

    def zeros(self, n: int) -> None:
        check(not any(self.take(n)), "padding that is not zero")

    def align(self, a: int) -> None:
        self.zeros(-self.at % a)

    def end(self) -> None:
        check(self.at == len(self.data), "bytes left over")


def with_crc(data: Data, what: str) -> Cursor:
    """`data` without the CRC-32 that ends it."""
    cursor = Cursor(data)
    covered = cursor.take(max(len(data) - 4, 0))
    check(cursor.u32() == zlib.crc32(covered), f"the checksum of {what} differs")
    return Cursor(covered)


def unzstd(data: Data, limit: int) -> bytes:
    """The content of the one zstd frame in `data`. Small pieces in, so that `limit` holds whatever the frame claims."""
    source, frame, size = Cursor(data), ZstdDecompressor(), 0
    parts: list[bytes] = []
    try:
        while not frame.eof:
            piece = source.take(min(256, max(len(data) - source.at, 1)))
            parts.append(frame.decompress(piece))
            size += len(parts[-1])
            check(size <= limit, "a zstd frame unpacks to too much")
    except ZstdError as error:
        raise FormatError(f"zstd: {error}") from None
    check(not frame.unused_data, "bytes after the zstd frame")
    source.end()
    return b"".join(parts)


# streams.md: Layouts


class Layout(NamedTuple):
    id: int
    dtypes: str
    size: int  # bytes of a word
    raw: int  # r
    low: int  # L
    key_bits: int

    @property
    def is_float(self) -> bool:
        return 1 <= self.id <= 5

    @property
    def windowed(self) -> bool:
        return self.key_bits > 8


LAYOUTS = [
    Layout(0, "U8 I8 BOOL F8_E8M0 F4 F6_E2M3 F6_E3M2", 1, 0, 0, 8),
    Layout(1, "F8_E4M3 F8_E5M2 F8_E4M3FNUZ F8_E5M2FNUZ", 1, 1, 0, 7),
    Layout(2, "BF16", 2, 6, 0, 10),
    Layout(3, "F16", 2, 8, 0, 8),
    Layout(4, "F32 C64", 4, 6, 2, 10),
    Layout(5, "F64", 8, 3, 6, 13),
    Layout(6, "I16 U16", 2, 0, 1, 8),
    Layout(7, "I32 U32", 4, 0, 3, 8),
    Layout(8, "I64 U64", 8, 0, 7, 8),
]
LAYOUT_OF = {dtype: layout for layout in LAYOUTS for dtype in layout.dtypes.split()}
BYTE = LAYOUTS[0]
INTEGER = {1: LAYOUTS[0], 2: LAYOUTS[6], 4: LAYOUTS[7], 8: LAYOUTS[8]}
BITS = {dtype: 8 * layout.size for dtype, layout in LAYOUT_OF.items()} | {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "C64": 64}
STRUCT_CODE = {1: "B", 2: "H", 4: "I", 8: "Q"}


# streams.md: Frequency tables


class Table:
    """By slot of 0 … 4095: the symbol, its frequency, and the slot less the frequencies below the symbol."""

    def __init__(self, frequencies: Mapping[int, int]) -> None:
        self.symbol: list[int] = []
        self.frequency: list[int] = []
        self.offset: list[int] = []
        for symbol, f in frequencies.items():
            self.symbol += [symbol] * f
            self.frequency += [f] * f
            self.offset += range(f)


class Bits:
    def __init__(self, cursor: Cursor) -> None:
        self.cursor, self.byte, self.left = cursor, 0, 0

    def next(self) -> int:
        if not self.left:
            self.byte, self.left = self.cursor.u8(), 8
        bit = self.byte & 1
        self.byte, self.left = self.byte >> 1, self.left - 1
        return bit


def read_table(cursor: Cursor) -> Table:
    lo, span, rest, mantissa = cursor.u8(), cursor.u8() + 1, cursor.u8(), cursor.u8()
    check(lo + span <= 256 and lo <= rest < lo + span and mantissa <= 13, "a table that cannot be")
    bits, length, frequencies = Bits(cursor), 0, dict.fromkeys(range(lo, lo + span), 0)
    for symbol in frequencies:
        if symbol == rest:
            continue
        zigzag = 0
        while bits.next():
            zigzag += 1
        length += zigzag >> 1 ^ -(zigzag & 1)
        check(0 <= length <= 12, "a table with a frequency out of range")
        if length:
            kept = min(mantissa, length - 1)
            f = 1
            for _ in range(kept):
                f = f << 1 | bits.next()
            frequencies[symbol] = f << (length - 1 - kept)
    check(bits.byte == 0, "padding that is not zero")
    frequencies[rest] = 4096 - sum(frequencies.values())
    check(0 < frequencies[rest] < 4096, "a table with a wrong sum")
    return Table(frequencies)


class Pool(NamedTuple):
    base: int
    tables: list[Table]


Pools = Mapping[int, Pool]  # by layout id


def read_pools(blob: Data) -> Pools:
    pools = {layout.id: Pool(0, []) for layout in LAYOUTS}
    if blob:
        cursor, before = with_crc(blob, "the tables"), -1
        for _ in range(cursor.u8()):
            layout, base = cursor.u8(), cursor.u16()
            check(before < layout < len(LAYOUTS), "table pools out of order")
            key_bits, before = LAYOUTS[layout].key_bits, layout
            check(base <= max((1 << key_bits) - 256, 0), "a window beyond the keys")
            pools[layout] = Pool(base, [read_table(cursor) for _ in range(cursor.u8())])
        cursor.end()
    return pools


# streams.md: rANS streams


def rans(table: Table, start: Sequence[int], words: Sequence[int], n: int) -> tuple[list[int], list[int]]:
    """`n` symbols, and the lower halves of the final states."""
    out, states, unread = [], list(start), iter(words)
    check(all(x >= 1 << 16 for x in states), "a rANS state below its bound")
    try:
        for i in range(n):
            x = states[i % len(states)]
            slot = x & 0xFFF
            x = table.frequency[slot] * (x >> 12) + table.offset[slot]
            if x < 1 << 16:
                x = x << 16 | next(unread)
            states[i % len(states)] = x
            out.append(table.symbol[slot])
    except StopIteration:
        raise FormatError("a rANS stream ends too early") from None
    check(next(unread, None) is None, "words left over in a rANS stream")
    check(all(x >> 16 == 1 for x in states), "a rANS stream ends in a wrong state")
    return out, [x & 0xFFFF for x in states]


def short_stream(cursor: Cursor, table: Table, n: int) -> list[int]:
    count, state = cursor.varint(), cursor.u32()
    symbols, (seed,) = rans(table, [state], cursor.unpack("H", count), n)
    check(seed == 0, "a rANS stream ends in a wrong state")
    return symbols


# streams.md: Chunks. A codec takes the head of a chunk, what it needs of the body, and the number of words, and returns the words.

RAW = None
Coding = Table | int | None  # a table, a constant symbol, or `RAW`


def planes(stored_head: Data, body: Cursor, n: int, layout: Layout, pools: Pools) -> Sequence[int]:
    head, pool = with_crc(stored_head, "a chunk's head"), pools[layout.id]
    count = head.varint()
    check(1 <= count <= 64, "not 1 to 64 classes")
    classes = [[read_coding(head, layout, pool, key) for key in [True] + [False] * layout.low] for _ in range(count)]
    unit_words, unit_classes = n, [0]
    if count > 1:
        unit_words = head.varint()
        check(unit_words >= 1, "units of no words")
        unit_classes = short_stream(head, read_table(head), -(-n // unit_words))
        check(max(unit_classes) < count, "a class that is not there")
    units = [(c, min(unit_words, n - i * unit_words)) for i, c in enumerate(unit_classes)]
    runs: list[Iterator[int]] = []
    for c, codings in enumerate(classes):
        run: list[int] = []
        run_words = sum(size for of, size in units if of == c)
        while len(run) < run_words:
            data, crc = body.take(head.varint() * 4), head.u32()
            check(zlib.crc32(data) == crc, "the checksum of a block differs")
            run += block(data, min(65536, run_words - len(run)), layout, pool.base, codings)
        runs.append(iter(run))
    head.end()
    return [word for c, size in units for word in itertools.islice(runs[c], size)]


def read_coding(head: Cursor, layout: Layout, pool: Pool, key: bool) -> Coding:
    kind = head.u8()
    check(kind <= 3, "an unknown coding of a stream")
    if kind == 0:
        check(not key or (layout.raw == 0 and not layout.windowed), "a raw key stream where none may be")
        return RAW
    if kind == 1:
        return head.u8()
    if kind == 3:
        return read_table(head)
    index = head.u8()
    check(key and index < len(pool.tables), "a table that is not there")
    return pool.tables[index]


def block(data: Data, n: int, layout: Layout, base: int, codings: Sequence[Coding]) -> list[int]:
    cursor = Cursor(data)
    coded = [(i, coding) for i, coding in enumerate(codings) if isinstance(coding, Table)]
    counts = [cursor.u32() for _ in coded]
    patches = cursor.u32() if codings[0] is not RAW else 0
    states = [cursor.unpack("I", 32) for _ in coded]
    words = []
    for count in counts:
        words.append(cursor.unpack("H", count))
        cursor.align(4)

    widths = [w for w in (8, 4, 2, 1) if layout.raw & w]
    raw_size = sum(plane_size(n, w) for w in widths) + n * codings.count(RAW)
    seeded = bool(coded) and raw_size >= 64
    raw = bytes(cursor.take(raw_size - 64 if seeded else raw_size))
    cursor.align(4)
    positions, patch_keys = cursor.unpack("H", patches), cursor.unpack("H", patches)
    cursor.end()

    streams: list[Sequence[int]] = [[coding] * n if isinstance(coding, int) else [] for coding in codings]
    for (i, table), start, stream_words in zip(coded, states, words, strict=True):
        streams[i], seed = rans(table, start, stream_words, n)
        if seeded and i == coded[0][0]:
            raw = struct.pack("<32H", *seed) + raw
        else:
            check(not any(seed), "a rANS stream ends in a wrong state")
    section, raw_bits = Cursor(raw), [0] * n
    for w in widths:
        raw_bits = [high << w | low for high, low in zip(raw_bits, bit_plane(section, n, w), strict=True)]
    for i, coding in enumerate(codings):
        if coding is RAW:
            streams[i] = section.take(n).tolist()

    keys = list(streams[0])
    if layout.windowed:
        keys = [base + symbol if symbol else 0 for symbol in keys]
    check(all(a < b for a, b in itertools.pairwise((-1, *positions, n))), "patches out of order")
    for position, key in zip(positions, patch_keys, strict=True):
        keys[position] = key
    check(max(keys) < 1 << layout.key_bits, "a key that is too large")
    out = [key << layout.raw | bits for key, bits in zip(keys, raw_bits, strict=True)]
    if layout.is_float:
        sign = layout.key_bits + layout.raw - 1
        out = [t >> 1 | (t & 1) << sign for t in out]
    for low in streams[1:]:
        out = [word << 8 | byte for word, byte in zip(out, low, strict=True)]
    return out


def plane_size(n: int, w: int) -> int:
    groups, last = divmod(n, 256 // w)
    return 32 * groups + (last * w + 7) // 8


def bit_plane(section: Cursor, n: int, w: int) -> list[int]:
    out: list[int] = []
    for start in range(0, n, 256 // w):
        m = min(256 // w, n - start)
        group = section.take((m * w + 7) // 8)
        values = [byte >> shift & (1 << w) - 1 for shift in range(0, 8, w) for byte in group]
        check(not any(values[m:]), "padding that is not zero")
        out += values[:m]
    return out


def palette(stored_head: Data, body: Cursor, n: int, layout: Layout, pools: Pools) -> Sequence[int]:
    head = with_crc(stored_head, "a chunk's head")
    values = head.unpack(STRUCT_CODE[layout.size], head.u8() + 1)
    check(all(a < b for a, b in itertools.pairwise(values)), "a palette out of order")
    indices = planes(head.rest(), body, n, BYTE, pools)
    check(max(indices) < len(values), "an index beyond the palette")
    return [values[i] for i in indices]


def sparse(stored_head: Data, body: Cursor, n: int, layout: Layout, pools: Pools) -> Sequence[int]:
    head = with_crc(stored_head, "a chunk's head")
    count = head.varint()
    mask = planes(head.take(head.varint()), body, -(-n // 8), BYTE, pools)
    bits = [byte >> i & 1 for byte in mask for i in range(8)]
    check(not any(bits[n:]) and sum(bits) == count, "a mask that does not fit its words")
    values = iter(planes(head.rest(), body, count, layout, pools) if count else [])
    head.end()
    return [next(values) if bit else 0 for bit in bits[:n]]


def row_delta(stored_head: Data, body: Cursor, n: int, layout: Layout, pools: Pools) -> Sequence[int]:
    head = with_crc(stored_head, "a chunk's head")
    row_words = head.varint()
    check(row_words >= 1, "rows of no words")
    sign = 1 << (8 * layout.size - 1)
    out: list[int] = []
    for i, zigzag in enumerate(planes(head.rest(), body, n, INTEGER[layout.size], pools)):
        above = out[i - row_words] if i >= row_words else 0
        difference = zigzag >> 1 ^ -(zigzag & 1)
        out.append((above + difference) % (2 * sign))
    return [word ^ sign - 1 if word & sign else word for word in out] if layout.is_float else out


def zstd(stored_head: Data, body: Cursor, n: int, layout: Layout, pools: Pools) -> Sequence[int]:
    head, frame = with_crc(stored_head, "a chunk's head"), body.rest()
    check(head.u32() == zlib.crc32(frame), "the checksum of a zstd frame differs")
    head.end()
    data = Cursor(unzstd(frame, n * layout.size))
    words = data.unpack(STRUCT_CODE[layout.size], n)
    data.end()
    return words


ChunkCodec = Callable[[Data, Cursor, int, Layout, Pools], Sequence[int]]
CHUNK_CODECS: dict[str, ChunkCodec] = {"planes": planes, "palette": palette, "sparse": sparse, "row_delta": row_delta, "zstd": zstd}


def decode_blob(codec: str, blob: Data, words: int, layout: Layout, pools: Pools) -> bytes:
    """The bytes of `words` words from the blob of a `stored` or chunked codec."""
    cursor, size = Cursor(blob), words * layout.size
    if codec == "stored":
        out = bytes(cursor.take(size))
        for start in range(0, size, 1 << 20):
            check(cursor.u32() == zlib.crc32(out[start : start + (1 << 20)]), f"the checksum of MiB {start >> 20} differs")
        cursor.end()
        return out
    check(codec in CHUNK_CODECS, f"the codec {codec!r} is not known to this reader")
    chunk_words = cursor.u32()
    check(chunk_words >= 1, "chunks of no words")
    check(min(words, chunk_words) <= min(1 << 24, (1 << 26) // layout.size), "a chunk of too many words")
    sizes = cursor.unpack("I", 2 * -(-words // chunk_words))
    check(zlib.crc32(cursor.data[: cursor.at]) == cursor.u32(), "the checksum of the chunk directory differs")
    parts: list[bytes] = []
    for chunk, (head_size, body_size) in enumerate(zip(sizes[::2], sizes[1::2], strict=True)):
        head, body, n = cursor.take(head_size), Cursor(cursor.take(body_size)), min(chunk_words, words - chunk * chunk_words)
        decoded = CHUNK_CODECS[codec](head, body, n, layout, pools)
        body.end()
        parts.append(struct.pack(f"<{n}{STRUCT_CODE[layout.size]}", *decoded))
    cursor.end()
    return b"".join(parts)
