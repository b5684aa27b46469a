"""Writes small `.bs` files, any coding of `docs/format/` on request, to test the reader with. It chooses nothing well."""

import hashlib
import itertools
import json
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate

from bs_chunks import RAW
from bs_layouts import INTEGER, LAYOUT_OF, LAYOUTS, STRUCT_CODE, Layout

Chunk = tuple[bytes, bytes]  # head and body


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def padded(data: bytes, a: int) -> bytes:
    return data + bytes(-len(data) % a)


class Table:
    """Frequencies for `symbols`, of which each has one. `stored` is the table as it stands in a file."""

    def __init__(self, symbols: Sequence[int], mantissa: int = 7) -> None:
        counts = Counter(symbols)
        if len(counts) == 1:
            counts[(next(iter(counts)) + 1) % 256] = 1
        rest = max(counts, key=counts.__getitem__)
        lo, hi, total = min(counts), max(counts), sum(counts.values())
        self.frequencies: dict[int, int] = {}
        bits: list[int] = []
        length_before = 0
        for symbol in range(lo, hi + 1):
            if symbol == rest:
                self.frequencies[symbol] = 0
                continue
            f = max(counts[symbol] * 3968 // total, 1) if symbol in counts else 0
            length = f.bit_length()
            dropped = max(length - 1 - mantissa, 0)
            f = f >> dropped << dropped
            self.frequencies[symbol] = f
            difference = length - length_before
            bits += [1] * (2 * difference if difference >= 0 else -2 * difference - 1) + [0]
            bits += [f >> i & 1 for i in range(length - 2, dropped - 1, -1)]
            length_before = length
        self.frequencies[rest] = 4096 - sum(self.frequencies.values())
        packed = sum(bit << i for i, bit in enumerate(bits)).to_bytes(-(-len(bits) // 8), "little")
        self.stored = bytes([lo, hi - lo, rest, mantissa]) + packed

    def encode(self, symbols: Sequence[int], seed: Sequence[int]) -> tuple[list[int], list[int]]:
        """The starting states and the words of the rANS stream that ends with the lower halves `seed`."""
        below: dict[int, int] = {}
        total = 0
        for symbol, f in self.frequencies.items():
            below[symbol], total = total, total + f
        states = [1 << 16 | half for half in seed]
        words: list[int] = []
        for i in reversed(range(len(symbols))):
            x, f = states[i % len(seed)], self.frequencies[symbols[i]]
            if x >= f << 20:
                words.append(x & 0xFFFF)
                x >>= 16
            states[i % len(seed)] = (x // f << 12) + x % f + below[symbols[i]]
        return states, words[::-1]

    def short_stream(self, symbols: Sequence[int]) -> bytes:
        (state,), words = self.encode(symbols, [0])
        return varint(len(words)) + struct.pack(f"<I{len(words)}H", state, *words)


def pack_words(words: Sequence[int], size: int) -> bytes:
    return struct.pack(f"<{len(words)}{STRUCT_CODE[size]}", *words)


def unpack_words(data: bytes, size: int) -> list[int]:
    return list(struct.unpack(f"<{len(data) // size}{STRUCT_CODE[size]}", data))


class Pool:
    """The tables of one layout, and the first key of its window."""

    def __init__(self, layout: Layout, base: int, tables: list[Table]) -> None:
        self.layout, self.base, self.tables = layout, base, tables

    def symbol(self, key: int) -> int | None:
        if not self.layout.windowed or key == 0:
            return key
        return key - self.base if 0 < key - self.base < 256 else None


Pools = Mapping[int, Pool]  # by layout id
Coding = Table | int | None  # a table, a constant symbol, or `RAW`


def tables_blob(pools: Sequence[Pool]) -> bytes:
    out = bytes([len(pools)])
    for pool in pools:
        out += struct.pack("<BHB", pool.layout.id, pool.base, len(pool.tables)) + b"".join(table.stored for table in pool.tables)
    return with_crc(out)


def split(words: Sequence[int], layout: Layout) -> tuple[list[int], list[int], list[list[int]]]:
    """Keys, raw bits, and low bytes from the highest down."""
    low = [[word >> 8 * i & 0xFF for word in words] for i in reversed(range(layout.low))]
    tops, width = [word >> 8 * layout.low for word in words], layout.key_bits + layout.raw
    if layout.is_float:
        tops = [(h << 1 | h >> width - 1) & (1 << width) - 1 for h in tops]
    return [t >> layout.raw for t in tops], [t & (1 << layout.raw) - 1 for t in tops], low


def bit_plane(values: Sequence[int], w: int) -> bytes:
    out = b""
    for start in range(0, len(values), 256 // w):
        group = values[start : start + 256 // w]
        h = -(-len(group) * w // 8)
        packed = bytearray(h)
        for j, value in enumerate(group):
            packed[j % h] |= value << w * (j // h)
        out += packed
    return out


class Class:
    """How the streams of the words `run` are stored. `table` is an index into the pool; without one the key stream gets what it needs."""

    def __init__(self, run: Sequence[int], layout: Layout, pool: Pool, table: int | None = None) -> None:
        self.run, self.layout, self.pool, self.table = run, layout, pool, table
        keys, _, low = split(run, layout)
        common = [symbol for symbol, count in Counter(map(pool.symbol, keys)).items() if symbol is not None and count > 1]
        symbols = [symbol for symbol in map(pool.symbol, keys) if symbol in common]
        may_be_raw = layout.raw == 0 and not layout.windowed
        self.codings = [self.coding(symbols, may_be_raw) if table is None else pool.tables[table]]
        self.codings += [self.coding(stream, True) for stream in low]

    def coding(self, stream: Sequence[int], may_be_raw: bool) -> Coding:
        distinct = set(stream) or {0}
        if len(distinct) == 1:
            return distinct.pop()
        return RAW if may_be_raw and len(distinct) > 100 else Table(stream)

    def stored_codings(self) -> bytes:
        out = b""
        for i, coding in enumerate(self.codings):
            if isinstance(coding, Table):
                out += bytes([2, self.table]) if i == 0 and self.table is not None else b"\x03" + coding.stored
            else:
                out += b"\x00" if coding is RAW else bytes([1, coding])
        return out

    def blocks(self) -> list[bytes]:
        return [self.block(self.run[i : i + 65536]) for i in range(0, len(self.run), 65536)]

    def block(self, words: Sequence[int]) -> bytes:
        keys, raw_bits, low = split(words, self.layout)
        patches = {}
        if self.codings[0] is not RAW:
            held = self.codings[0].frequencies if isinstance(self.codings[0], Table) else {self.codings[0]: 4096}
            for i, key in enumerate(keys):
                symbol = self.pool.symbol(key)
                if symbol is None or not held.get(symbol):
                    patches[i] = key
                    symbol = max(held, key=held.__getitem__)
                keys[i] = symbol
        section, shift = b"", self.layout.raw
        for w in (8, 4, 2, 1):
            if self.layout.raw & w:
                shift -= w
                section += bit_plane([raw >> shift & (1 << w) - 1 for raw in raw_bits], w)
        streams = list(zip(self.codings, [keys, *low], strict=True))
        section += b"".join(bytes(stream) for coding, stream in streams if coding is RAW)
        coded = [(coding, stream) for coding, stream in streams if isinstance(coding, Table)]
        seed: Sequence[int] = [0] * 32
        if coded and len(section) >= 64:
            seed, section = struct.unpack("<32H", section[:64]), section[64:]
        counts, states, stored_words = [], b"", b""
        for table, stream in coded:
            start, stream_words = table.encode(stream, seed)
            counts.append(len(stream_words))
            states += struct.pack("<32I", *start)
            stored_words += padded(pack_words(stream_words, 2), 4)
            seed = [0] * 32
        if self.codings[0] is not RAW:
            counts.append(len(patches))
        places = pack_words([*patches, *patches.values()], 2)
        return struct.pack(f"<{len(counts)}I", *counts) + states + stored_words + padded(section, 4) + places


def planes(
    words: Sequence[int],
    layout: Layout,
    pools: Pools,
    *,
    unit_words: int = 0,
    unit_classes: Sequence[int] = (),
    tables: Sequence[int | None] = (None,),
) -> Chunk:
    """Class `c` is coded by table `tables[c]` of the pool, or by tables of its own. Unit `i` belongs to class `unit_classes[i]`."""
    pool = pools.get(layout.id) or Pool(layout, 0, [])
    runs: list[list[int]] = [[] for _ in tables]
    for i, c in enumerate(unit_classes):
        runs[c] += words[i * unit_words : (i + 1) * unit_words]
    classes = [Class(run, layout, pool, table) for run, table in zip(runs if unit_classes else [words], tables, strict=True)]
    head = varint(len(classes)) + b"".join(c.stored_codings() for c in classes)
    if len(classes) > 1:
        table = Table(unit_classes)
        head += varint(unit_words) + table.stored + table.short_stream(unit_classes)
    blocks = [block for c in classes for block in c.blocks()]
    for block in blocks:
        head += varint(len(block) // 4) + struct.pack("<I", zlib.crc32(block))
    return with_crc(head), b"".join(blocks)


def palette(words: Sequence[int], layout: Layout, pools: Pools) -> Chunk:
    values = sorted(set(words))
    head, body = planes([values.index(word) for word in words], LAYOUTS[0], pools)
    return with_crc(bytes([len(values) - 1]) + pack_words(values, layout.size) + head), body


def sparse(words: Sequence[int], layout: Layout, pools: Pools) -> Chunk:
    values = [word for word in words if word]
    mask = [sum((word != 0) << i for i, word in enumerate(words[start : start + 8])) for start in range(0, len(words), 8)]
    mask_head, mask_body = planes(mask, LAYOUTS[0], pools)
    head = varint(len(values)) + varint(len(mask_head)) + mask_head
    if not values:
        return with_crc(head), mask_body
    values_head, body = planes(values, layout, pools)
    return with_crc(head + varint(len(mask_body)) + values_head), mask_body + body


def row_delta(words: Sequence[int], layout: Layout, pools: Pools, *, row_words: int) -> Chunk:
    bits = 8 * layout.size
    sign = 1 << bits - 1
    if layout.is_float:
        words = [word ^ sign - 1 if word & sign else word for word in words]
    zigzags = []
    for i, word in enumerate(words):
        above = words[i - row_words] if i >= row_words else 0
        d = (word - above + sign) % (2 * sign) - sign
        zigzags.append(d << 1 ^ d >> bits - 1)
    head, body = planes(zigzags, INTEGER[layout.size], pools)
    return with_crc(varint(row_words) + head), body


def raw_frame(data: bytes) -> bytes:
    """A zstd frame of one raw block (RFC 8878, 3.1.1), for up to 128 KiB."""
    return struct.pack("<IBI", 0xFD2FB528, 0xA0, len(data)) + (len(data) << 3 | 1).to_bytes(3, "little") + data


def zstd(words: Sequence[int], layout: Layout, pools: Pools) -> Chunk:
    return framed(raw_frame(pack_words(words, layout.size)))


def framed(body: bytes) -> Chunk:
    return with_crc(struct.pack("<I", zlib.crc32(body))), body


def chunked(
    codec: Callable[Concatenate[Sequence[int], Layout, Pools, ...], Chunk],
    data: bytes,
    dtype: str,
    pools: Pools,
    *,
    chunk_words: int = 1 << 20,
    **options: Any,
) -> bytes:
    layout = LAYOUT_OF[dtype]
    words = unpack_words(data, layout.size)
    return chunk_blob(chunk_words, [codec(words[i : i + chunk_words], layout, pools, **options) for i in range(0, len(words), chunk_words)])


def chunk_blob(chunk_words: int, chunks: Sequence[Chunk]) -> bytes:
    sizes = b"".join(struct.pack("<II", len(head), len(body)) for head, body in chunks)
    return with_crc(struct.pack("<I", chunk_words) + sizes) + b"".join(head + body for head, body in chunks)


def stored(data: bytes) -> bytes:
    return data + b"".join(struct.pack("<I", zlib.crc32(data[i : i + (1 << 20)])) for i in range(0, len(data), 1 << 20))


def ordered(words: Sequence[int], order: str, rows: int, columns: int, positions: int) -> list[int]:
    """The words of a tensor in the order in which a record with that `order` has them stored."""
    places = itertools.product(range(rows), range(columns), range(positions))
    slowest_first = sorted(
        (tuple(dict(zip("oik", place, strict=True))[axis] for axis in order), word) for place, word in zip(places, words, strict=True)
    )
    return [word for _, word in slowest_first]


def container(
    tensors: Sequence[dict[str, Any]],
    blobs: Sequence[bytes],
    *,
    tables: bytes = b"",
    packs: Sequence[dict[str, Any]] = (),
    pack_blobs: Sequence[bytes] = (),
    compress: Callable[[bytes], bytes] = bytes,
    **fields: Any,
) -> bytes:
    """The file. `tensors` and `packs` are header entries without `bytes`; a blob may be empty. `fields` go into the header."""
    header = {"format": "none", "mode": "balanced", "metadata": None, "tables": len(tables), **fields}
    header["packs"] = [pack | {"bytes": len(blob)} for pack, blob in zip(packs, pack_blobs, strict=True)]
    header["tensors"] = [tensor | {"bytes": len(blob)} for tensor, blob in zip(tensors, blobs, strict=True)]
    data_offset = 0
    while True:
        stored_header = compress(json.dumps(header | {"data_offset": data_offset}).encode())
        if 26 + len(stored_header) <= data_offset:
            break
        data_offset += 64
    front = b"BGSM" + struct.pack("<HI", 16, len(stored_header)) + stored_header
    out = (front + hashlib.md5(front).digest()).ljust(data_offset, b"\x00")
    for blob in [tables, *pack_blobs, *blobs]:
        out = padded(out, 64) + blob if blob else out
    return out
