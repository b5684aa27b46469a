"""How words are cut: the section "Layouts" of `docs/format/streams.md`."""

from typing import NamedTuple


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
