"""Raw bits as planes: a part of the section `planes` of `docs/format/streams.md`."""

from bs_cursor import Cursor, check


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
