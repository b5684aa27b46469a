"""Words coded with odds learned from the words before: the section `context` of `docs/format/streams.md`, in its terms."""

import math
import operator
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

from bs_cursor import Bits, Cursor, Data, check
from bs_layouts import Layout

FIELDS = {1: (4, 3), 2: (8, 7), 3: (5, 10), 4: (8, 23), 5: (11, 52)}  # E and M, by layout id


def clamp(x: int, a: int, b: int) -> int:
    return a if x < a else min(x, b)


# Reading


class Coder:
    def __init__(self, code: Data, raw: Cursor) -> None:
        self.code, self.raw_bits = iter(code), Bits(raw)
        self.value, self.range = 0, (1 << 32) - 1  # C and R
        for _ in range(4):
            self.next_byte()
        self.check_value()

    def next_byte(self) -> None:
        self.value = self.value << 8 | next(self.code, 0)

    def check_value(self) -> None:
        check(self.value < self.range, "a code that no writer makes")

    def raw(self, n: int) -> int:
        return self.raw_bits.take(n)

    def decide(self, p: int) -> int:
        b = (self.range >> 16) * p
        y = int(self.value < b)
        if y:
            self.range = b
        else:
            self.value -= b
            self.range -= b
        self.fill()
        return y

    def symbol(self, starts: Sequence[int]) -> int:
        """`starts[s]` is the sum of the frequencies of the symbols below `s`."""
        u = self.range >> 16
        s = bisect_right(starts, min(self.value // u, 65535)) - 1
        self.value -= u * starts[s]
        self.range = u * (starts[s + 1] - starts[s])
        self.check_value()
        self.fill()
        return s

    def fill(self) -> None:
        while self.range < 1 << 24:
            self.range <<= 8
            self.next_byte()

    def end(self) -> None:
        check(next(self.code, None) is None, "code left over")
        self.raw_bits.end()


# Learned odds


class Probability:
    __slots__ = ("n", "p")

    def __init__(self) -> None:
        self.p, self.n = 1 << 21, 0

    def learn(self, y: int) -> None:
        self.p += ((y * ((1 << 22) - 1) - self.p) * ((1 << 17) // (2 * self.n + 3))) >> 16
        self.n = min(self.n + 1, 511)


# fmt: off
L = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565, 62428,
    63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
)
# fmt: on


def squash(x: int) -> int:
    i, f = (x + 2048) >> 7, x & 127
    return (L[i] * (128 - f) + L[i + 1] * f + 64) >> 7


SQUASH = [squash(x) for x in range(-2047, 2048)]  # of x at x + 2047
STRETCH = [min(bisect_left(SQUASH, p << 4) - 2047, 2047) for p in range(1 << 12)]


class Odds:
    """Decisions of a chunk, and what is learned of them."""

    def __init__(self, coder: Coder) -> None:
        self.coder = coder
        self.first: defaultdict[tuple[int, int], Probability] = defaultdict(Probability)  # A, by (a, k)
        self.second: defaultdict[tuple[int, int], Probability] = defaultdict(Probability)  # B, by (b, k)
        self.weights: defaultdict[int, tuple[int, int]] = defaultdict(lambda: (40960, 40960))  # v and w, by k

    def plain(self, probability: Probability) -> int:
        y = self.coder.decide(clamp(probability.p >> 6, 32, 65504))
        probability.learn(y)
        return y

    def mix(self, k: int, a: int, b: int) -> int:
        in_a, in_b = self.first[a, k], self.second[b, k]
        v, w = self.weights[k]
        x, y = STRETCH[in_a.p >> 10], STRETCH[in_b.p >> 10]
        p = SQUASH[clamp((v * x + w * y) >> 16, -2047, 2047) + 2047]
        z = self.coder.decide(p)
        d = (z << 16) - p
        self.weights[k] = v + ((x * d) >> 15), w + ((y * d) >> 15)
        in_a.learn(z)
        in_b.learn(z)
        return z


# Order


class Part(NamedTuple):
    """What a chunk has of a tensor: `words` words from number `start` on, in rows of `columns` kernels of `positions` words."""

    columns: int
    positions: int
    start: int
    words: int


Tensors = Sequence[tuple[str, Sequence[int]]]  # dtype and shape of each


def rows(dtype: str, shape: Sequence[int]) -> tuple[int, int]:
    """Columns, and positions of a kernel, of a tensor that has words."""
    dimensions = list(shape)
    if dtype == "C64" and dimensions:
        dimensions[-1] *= 2
    columns, positions = math.prod(dimensions), 1
    if len(dimensions) >= 2 and math.prod(dimensions[1:]) != 1:
        columns, positions = dimensions[1], math.prod(dimensions[2:])
    return (positions, 1) if positions > 1024 else (columns, positions)


def cut(tensors: Tensors, start: int, end: int) -> Iterable[Part]:
    """The parts of the chunk that holds the words `start` … `end - 1` of the tensors."""
    before = 0
    for dtype, shape in tensors:
        words = math.prod(shape) * (2 if dtype == "C64" else 1)
        first, last = max(start, before), min(end, before + words)
        if first < last:
            yield Part(*rows(dtype, shape), first - before, last - first)
        before += words


# Scale


class Factor:
    __slots__ = ("n", "v")

    def __init__(self) -> None:
        self.v = self.n = 0

    def learn(self, g: int, a: int, m: int) -> None:
        self.v = clamp(self.v + ((g * ((1 << 16) // (self.n + a))) >> 16), -(1 << 28), 1 << 28)
        self.n = min(self.n + 1, m)


def exp2(z: int) -> int:
    octaves = z >> 16
    return 24576 if octaves > 2 else min(((1 << 16) + (z & 65535)) << 2 >> (6 - octaves), 24576)


def slope(z: int) -> int:
    return (min(exp2(z), 20480) - 4096) * 16


class Scale:
    """The expected levels `s0` and `s` of the words of a part."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.columns: defaultdict[int, Factor] = defaultdict(Factor)
        self.positions: defaultdict[int, Factor] = defaultdict(Factor)

    def start_row(self) -> None:
        self.row = Factor()

    def start_kernel(self) -> None:
        self.kernel = Factor()

    def expect(self, column: int, position: int) -> None:
        self.column, self.position = self.columns[column & 65535], self.positions[position]
        self.s0 = self.base + self.row.v + self.column.v + self.position.v
        self.s = self.s0 + self.kernel.v

    def learn(self, level: int, has_positions: bool) -> None:
        g = slope(level - self.s0)
        self.row.learn(g, 3, 511)
        self.column.learn(g, 8, 511)
        if has_positions:
            self.position.learn(g, 20, 2047)
            self.kernel.learn(slope(level - self.s), 5, 255)


# Mean


class Mean:
    """The expected values `m` of the words of a part."""

    def __init__(self, has_positions: bool) -> None:
        # Kernels of one word leave X[0 … 15] zero, whose weights then stay zero too.
        self.kernel_words = 16 if has_positions else 0
        self.weights: defaultdict[int, list[int]] = defaultdict(lambda: [0] * (self.kernel_words + 3))
        self.place_mean: defaultdict[int, int] = defaultdict(int)
        self.last: defaultdict[int, int] = defaultdict(int)

    def start_row(self) -> None:
        self.row_mean: defaultdict[int, int] = defaultdict(int)

    def start_kernel(self) -> None:
        self.kernel = [0] * self.kernel_words

    def expect(self, place: int, position: int) -> None:
        self.place, self.kind, self.at = place, min(position, 63), position
        self.x = [*self.kernel, self.place_mean[place] >> 8, self.row_mean[position] >> 8, self.last[place]]
        self.m = clamp(sum(map(operator.mul, self.weights[self.kind], self.x)) >> 14, -1536, 1536)

    def learn(self, x: int, row: int, column: int) -> None:
        d = clamp(x - self.m, -768, 768)
        weights = zip(self.weights[self.kind], self.x, strict=True)
        self.weights[self.kind] = [clamp(w + ((d * value + 256) >> 9), -32768, 32767) for w, value in weights]
        self.place_mean[self.place] += ((256 * x - self.place_mean[self.place]) * ((1 << 16) // (min(row, 255) + 8))) >> 16
        self.row_mean[self.at] += ((256 * x - self.row_mean[self.at]) * ((1 << 16) // (min(column, 255) + 8))) >> 16
        self.last[self.place] = x
        self.kernel = [*self.kernel, x][1:]


# Tables


class Tables:
    def __init__(self, mixed: int) -> None:
        self.number, self.next, self.are_made = 0, mixed, False
        self.counts: defaultdict[int, list[int]] = defaultdict(lambda: [1] + [0] * 176)
        self.starts: defaultdict[int, list[int]] = defaultdict(lambda: [0] + [1 << 16] * 177)

    def start_word(self) -> None:
        if self.number == self.next:
            self.are_made = True
            for table, counts in self.counts.items():
                self.starts[table] = [0, *accumulate(frequencies(counts))]
            self.next += max(1 << 14, self.next // 8)
        self.number += 1


def frequencies(counts: Sequence[int]) -> list[int]:
    total, used = sum(counts), sum(n > 0 for n in counts)
    out = [max(1, n * ((1 << 16) - used) // total) if n else 0 for n in counts]
    out[counts.index(max(counts))] += (1 << 16) - sum(out)
    return out


class Chunk:
    """Reads the words of a chunk."""

    def __init__(self, body: Data, layout: Layout) -> None:
        check(layout.id in FIELDS, "contexts for words that are not floats")
        self.E, self.M = FIELDS[layout.id]
        cursor = Cursor(body)
        self.tables = Tables(cursor.varint())
        code = cursor.take(cursor.varint())
        check(not code or code[-1], "zeros at the end of the code")
        self.raw_bytes = cursor
        self.coder = Coder(code, cursor)
        self.odds = Odds(self.coder)
        self.trails: defaultdict[tuple[int, int], Probability] = defaultdict(Probability)
        self.zero_rows, self.zero = [Probability(), Probability()], [Probability() for _ in range(16)]
        self.trail = self.zeros = 0

    def end(self) -> None:
        self.coder.end()
        self.raw_bytes.end()

    def part(self, part: Part) -> Iterable[int]:
        scale, mean = Scale(self.coder.raw(16) << 12), Mean(part.positions > 1)
        above: defaultdict[int, int] = defaultdict(int)
        row_words, at, row = part.columns * part.positions, part.start, 0
        while at < part.start + part.words:
            place = at % row_words
            n = min(row_words - place, part.start + part.words - at)
            self.start_row()
            scale.start_row()
            mean.start_row()
            before = 0
            for i in range(place, place + n):
                column, position = divmod(i, part.positions)
                if i == place or position == 0:
                    scale.start_kernel()
                    mean.start_kernel()
                self.tables.start_word()
                known_place = i & 65535
                if self.zeros:
                    y = self.odds.plain(self.zero[4 * above[known_place] + before])
                    above[known_place] = (2 * above[known_place] + y) & 3
                    before = (2 * before + y) & 3
                    if y:
                        yield 0
                        continue
                scale.expect(column, position)
                mean.expect(known_place, position)
                word = self.word(scale.s, (mean.m * exp2(-scale.kernel.v)) >> 12)
                yield word
                magnitude = word & (1 << (self.E + self.M)) - 1
                level = (magnitude << 16) >> self.M
                x = exp2(level - scale.s0) >> 4
                mean.learn(-x if word > magnitude else x, row, column)
                scale.learn(level, part.positions > 1)
            at += n
            row += 1

    def start_row(self) -> None:
        t = 1
        for _ in range(6):
            t = 2 * t + self.odds.plain(self.trails[self.trail, t])
        self.trail = min(t - 64, self.M - 3)
        self.zeros = self.odds.plain(self.zero_rows[self.zeros])

    # Word

    def word(self, s: int, m: int) -> int:
        raw, mix = self.coder.raw, self.odds.mix
        o, part, half = s >> 16, (s & 65535) >> 13, (s >> 15) & 255
        q, usual = min(abs(m) >> 5, 15), int(m < 0)
        agree = raw(1) if q == 0 else mix(72 + q, 7 * part, 8 * half)
        sign = usual if agree else 1 - usual
        c = min(q >> 1, 3)
        if c > 0 and not agree:
            c += 3
        a, b = 7 * part + c, 8 * half + c
        e, top = self.exponent_and_top(o, a, b)
        low = raw(self.M - 3 - self.trail) << self.trail
        return sign << (self.E + self.M) | e << self.M | top << (self.M - 3) | low

    def exponent_and_top(self, o: int, a: int, b: int) -> tuple[int, int]:
        table, symbol = (clamp(o, -1, 14) + 1) * 56 + a, 0
        if self.tables.are_made:
            symbol = self.coder.symbol(self.tables.starts[table])
        if symbol:
            e, top = o - 14 + (symbol - 1) // 8, (symbol - 1) % 8
            check(0 <= e < 1 << self.E, "an exponent out of range")
        else:
            e, top = self.decided(o, a, b)
        self.tables.counts[table][1 + 8 * (e - o + 14) + top if -14 <= e - o <= 7 else 0] += 1
        return e, top

    def decided(self, o: int, a: int, b: int) -> tuple[int, int]:
        mix = self.odds.mix
        if mix(15, a, b):
            r = 0
            while r < 8 and mix(16 + r, a, b):
                r += 1
        else:
            r = -1
            while r > -15 and o + r > 0 and mix(15 + r, a, b):
                r -= 1
        e = o + r
        if r in (8, -15) or not 0 <= e < 1 << self.E:
            e = self.coder.raw(self.E)
        k = 5 if e == 0 else clamp(r, -2, 2) + 2
        t = 1
        for _ in range(3):
            t = 2 * t + mix(24 + 8 * k + t, a, b)
        return e, t - 8


def decode(body: Data, layout: Layout, parts: Iterable[Part]) -> list[int]:
    """The words of a chunk that consists of `parts`."""
    chunk = Chunk(body, layout)
    words = [word for part in parts for word in chunk.part(part)]
    chunk.end()
    return words
