"""Tables and streams: the sections "Frequency tables" and "rANS streams" of `docs/format/streams.md`."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bs_cursor import Bits, Cursor, Data, FormatError, check, with_crc
from bs_layouts import LAYOUTS


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


def read_table(cursor: Cursor) -> Table:
    lo, span, rest, mantissa = cursor.u8(), cursor.u8() + 1, cursor.u8(), cursor.u8()
    check(lo + span <= 256 and lo <= rest < lo + span and mantissa <= 13, "a table that cannot be")
    bits, length, frequencies = Bits(cursor), 0, dict.fromkeys(range(lo, lo + span), 0)
    for symbol in frequencies:
        if symbol == rest:
            continue
        zigzag = 0
        while bits.take(1):
            zigzag += 1
        length += zigzag >> 1 ^ -(zigzag & 1)
        check(0 <= length <= 12, "a table with a frequency out of range")
        if length:
            kept = min(mantissa, length - 1)
            f = 1
            for _ in range(kept):
                f = f << 1 | bits.take(1)
            frequencies[symbol] = f << (length - 1 - kept)
    bits.end()
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
