"""Chunks of differences to the words of a base: the section `delta` of `docs/format/delta.md`."""

import itertools
import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bs_cursor import Cursor, Data, FormatError, check, with_crc
from bs_layouts import STRUCT_CODE, Layout
from bs_planes import bit_plane, plane_size
from bs_streams import Table, read_table

SHIFT = {"bf16": (7, 255), "f16": (7, 255), "f32": (23, 255), "f64": (52, 255), "f8": (0, 127)}
NAMES = ["byte", "f8", "bf16", "f16", "f32", "f64", "i16", "i32", "i64"]


class Class(NamedTuple):
    raw_bits: int
    lo: int
    coding: Table | int


def unzigzag(x: int) -> int:
    return x >> 1 ^ -(x & 1)


def widths(raw_bits: int) -> list[int]:
    return [8] * (raw_bits // 8) + [w for w in (4, 2, 1) if raw_bits % 8 & w]


def ordered(x: int, sign: int) -> int:
    return (sign - x) % (2 * sign) if x > sign else x


def decode(stored_head: Data, body: Cursor, n: int, layout: Layout, base: Sequence[int]) -> list[int]:
    """The `n` words of a chunk, from as many base words."""
    head, bits = with_crc(stored_head, "a chunk's head"), 8 * layout.size
    block_log2, zeros, count = head.u8(), head.u8(), head.varint()
    check(12 <= block_log2 <= 18 and 1 <= count <= 16, "blocks or classes that cannot be")
    firsts = [head.u8() for _ in range(count - 1)]
    check(all(a < b for a, b in itertools.pairwise((0, *firsts))), "contexts out of order")
    classes = []
    for _ in range(count):
        raw_bits, lo, coding = head.u8(), unzigzag(head.varint()), head.u8()
        check(zeros + raw_bits < bits and -(1 << bits - 1) <= lo < 1 << bits - 1, "a class that cannot be")
        check(coding in (1, 3), "an unknown coding of symbols")
        classes.append(Class(raw_bits, lo, head.u8() if coding == 1 else read_table(head)))
    out: list[int] = []
    for start in range(0, n, 1 << block_log2):
        base_words = base[start : min(n, start + (1 << block_log2))]
        data = body.take(head.varint() * 4)
        check(not data or head.u32() == zlib.crc32(data), "the checksum of a block differs")
        packed_base = struct.pack(f"<{len(base_words)}{STRUCT_CODE[layout.size]}", *base_words)
        check(head.u32() == zlib.crc32(packed_base), "the words of the base are others")
        out += block(Cursor(data), layout, firsts, classes, zeros, base_words) if data else base_words
    head.end()
    return out


def block(cursor: Cursor, layout: Layout, firsts: Sequence[int], classes: Sequence[Class], zeros: int, base: Sequence[int]) -> list[int]:
    by, mask = SHIFT.get(NAMES[layout.id], (0, 0))
    numbers = [sum((word >> by & mask) >= first for first in firsts) for word in base]
    counts = [numbers.count(c) for c in range(len(classes))]
    n_words, n_patches = cursor.u32(), cursor.u32()
    has_stream = any(count and isinstance(of.coding, Table) for of, count in zip(classes, counts, strict=True))
    check(has_stream or n_words == 0, "words of no stream")
    states = list(cursor.unpack("I", 32)) if has_stream else []
    stream = iter(cursor.unpack("H", n_words))
    cursor.align(4)
    above: list[int] = []
    for of, count in zip(classes, counts, strict=True):
        symbols = decode_symbols(of.coding, states, stream, count) if isinstance(of.coding, Table) else [of.coding] * count
        above += [of.lo + symbol for symbol in symbols]
    check(next(stream, None) is None and all(x >> 16 == 1 for x in states), "a rANS stream ends in a wrong state")

    seed = struct.pack(f"<{len(states)}H", *(x & 0xFFFF for x in states))
    size = sum(plane_size(count, w) for of, count in zip(classes, counts, strict=True) for w in widths(of.raw_bits))
    is_seeded = has_stream and size >= 64
    check(is_seeded or not any(seed), "a rANS stream ends in a wrong state")
    section = Cursor((seed if is_seeded else b"") + bytes(cursor.take(size - 64 if is_seeded else size)))
    cursor.align(4)
    raw: list[int] = []
    for of, count in zip(classes, counts, strict=True):
        fields = [0] * count
        for w in widths(of.raw_bits):
            fields = [high << w | low for high, low in zip(fields, bit_plane(section, count, w), strict=True)]
        raw += fields
    at = 0
    for _ in range(n_patches):
        at += cursor.varint()
        check(at < len(base), "a patch beyond the end")
        above[at] = unzigzag(cursor.varint())
        at += 1
    cursor.align(4)
    cursor.end()

    modulus = 1 << 8 * layout.size
    ends = list(itertools.accumulate(counts))
    places = [end - count for end, count in zip(ends, counts, strict=True)]
    out = []
    for word, number in zip(base, numbers, strict=True):
        at = places[number]
        places[number] += 1
        difference = (above[at] << classes[number].raw_bits | raw[at]) << zeros
        if layout.is_float:
            sign = modulus >> 1
            difference = -difference if word & sign else difference
            out.append(ordered((ordered(word, sign) + difference) % modulus, sign))
        else:
            out.append((word + difference) % modulus)
    return out


def decode_symbols(table: Table, states: list[int], stream: Iterator[int], n: int) -> list[int]:
    """`n` symbols; the states go on from class to class."""
    check(all(x >= 1 << 16 for x in states), "a rANS state below its bound")
    out = []
    for i in range(n):
        x = states[i % 32]
        slot = x & 0xFFF
        x = table.frequency[slot] * (x >> 12) + table.offset[slot]
        if x < 1 << 16:
            word = next(stream, None)
            if word is None:
                raise FormatError("a rANS stream ends too early")
            x = x << 16 | word
        states[i % 32] = x
        out.append(table.symbol[slot])
    return out
