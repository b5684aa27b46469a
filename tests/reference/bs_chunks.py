"""Chunks and their codecs: the sections from "Chunks" on of `docs/format/streams.md`, `context` excepted."""

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

import bs_context
import bs_delta
from bs_cursor import Cursor, Data, check, unzstd, with_crc
from bs_layouts import BYTE, INTEGER, STRUCT_CODE, Layout
from bs_planes import bit_plane, plane_size
from bs_streams import Pool, Pools, Table, rans, read_table, short_stream

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
    mask_head = head.take(head.varint())
    mask_body = Cursor(body.take(head.varint()) if count else body.rest())
    bits = [byte >> i & 1 for byte in planes(mask_head, mask_body, -(-n // 8), BYTE, pools) for i in range(8)]
    mask_body.end()
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


def framed(stored_head: Data, body: Cursor) -> Data:
    """The body of a chunk that has nothing but its checksum in the head."""
    head, content = with_crc(stored_head, "a chunk's head"), body.rest()
    check(head.u32() == zlib.crc32(content), "the checksum of a chunk's body differs")
    head.end()
    return content


def zstd(stored_head: Data, body: Cursor, n: int, layout: Layout, pools: Pools) -> Sequence[int]:
    data = Cursor(unzstd(framed(stored_head, body), n * layout.size))
    words = data.unpack(STRUCT_CODE[layout.size], n)
    data.end()
    return words


# A codec takes the head of a chunk, its body, and the number of words, and returns the words.
ChunkCodec = Callable[[Data, Cursor, int, Layout, Pools], Sequence[int]]
CHUNK_CODECS: dict[str, ChunkCodec] = {"planes": planes, "palette": palette, "sparse": sparse, "row_delta": row_delta, "zstd": zstd}


def decode_blob(
    codec: str, blob: Data, words: int, layout: Layout, pools: Pools, tensors: bs_context.Tensors, base: bytes | None = None
) -> bytes:
    """The bytes of the `words` words of `tensors` from their blob, `stored` or of a chunked codec, and from their base words."""
    cursor, size = Cursor(blob), words * layout.size
    if codec == "stored":
        out = bytes(cursor.take(size))
        for start in range(0, size, 1 << 20):
            check(cursor.u32() == zlib.crc32(out[start : start + (1 << 20)]), f"the checksum of MiB {start >> 20} differs")
        cursor.end()
        return out
    check(codec in CHUNK_CODECS or codec in ("context", "delta"), f"the codec {codec!r} is not known to this reader")
    chunk_words = cursor.u32()
    check(1 <= chunk_words <= min(1 << 24, (1 << 26) // layout.size), "chunks of no words, or of too many")
    sizes = cursor.unpack("I", 2 * -(-words // chunk_words))
    check(zlib.crc32(cursor.data[: cursor.at]) == cursor.u32(), "the checksum of the chunk directory differs")
    parts: list[bytes] = []
    for start, head_size, body_size in zip(range(0, words, chunk_words), sizes[::2], sizes[1::2], strict=True):
        head, body, n = cursor.take(head_size), Cursor(cursor.take(body_size)), min(chunk_words, words - start)
        if codec == "context":
            decoded: Sequence[int] = bs_context.decode(framed(head, body), layout, bs_context.cut(tensors, start, start + n))
        elif codec == "delta":
            check(base is not None, "a patch without its base")
            base_words = struct.unpack(f"<{words}{STRUCT_CODE[layout.size]}", base or b"")
            decoded = bs_delta.decode(head, body, n, layout, base_words[start : start + n])
        else:
            decoded = CHUNK_CODECS[codec](head, body, n, layout, pools)
        body.end()
        parts.append(struct.pack(f"<{n}{STRUCT_CODE[layout.size]}", *decoded))
    cursor.end()
    return b"".join(parts)
