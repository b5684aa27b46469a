//! How a word is cut into key, raw bits and low bytes.

/// The cut of a word; the rows of the table in `docs/format/streams.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Layout {
    /// One byte that is its own key.
    Byte = 0,
    /// One-byte float with a sign.
    F8 = 1,
    /// bfloat16.
    Bf16 = 2,
    /// IEEE half.
    F16 = 3,
    /// IEEE single.
    F32 = 4,
    /// IEEE double.
    F64 = 5,
    /// 16-bit integer.
    I16 = 6,
    /// 32-bit integer.
    I32 = 7,
    /// 64-bit integer.
    I64 = 8,
}

/// Word bytes, raw bits, low bytes, key bits.
const TABLE: [(usize, u32, usize, u32); 9] = [
    (1, 0, 0, 8),
    (1, 1, 0, 7),
    (2, 6, 0, 10),
    (2, 8, 0, 8),
    (4, 6, 2, 10),
    (8, 3, 6, 13),
    (2, 0, 1, 8),
    (4, 0, 3, 8),
    (8, 0, 7, 8),
];

impl Layout {
    /// All layouts, by id.
    pub const ALL: [Layout; 9] = [
        Layout::Byte,
        Layout::F8,
        Layout::Bf16,
        Layout::F16,
        Layout::F32,
        Layout::F64,
        Layout::I16,
        Layout::I32,
        Layout::I64,
    ];

    /// The layout with that id.
    pub fn from_id(id: u8) -> Option<Layout> {
        Self::ALL.get(id as usize).copied()
    }

    /// Bytes of a word.
    pub const fn word_bytes(self) -> usize {
        TABLE[self as usize].0
    }

    /// Bits below the key in the part that holds the key.
    pub const fn raw_bits(self) -> u32 {
        TABLE[self as usize].1
    }

    /// Bytes below the part that holds the key.
    pub const fn low_bytes(self) -> usize {
        TABLE[self as usize].2
    }

    /// Bits of a key.
    pub const fn key_bits(self) -> u32 {
        TABLE[self as usize].3
    }

    /// Whether symbols see keys through a window, having fewer values.
    pub const fn is_windowed(self) -> bool {
        self.key_bits() > 8
    }

    /// Whether the words are numbers with a sign bit on top, as all float layouts are.
    pub const fn has_sign(self) -> bool {
        self.raw_bits() > 0
    }

    /// The integer layout with words of the same size.
    pub const fn integer(self) -> Layout {
        match self.word_bytes() {
            1 => Layout::Byte,
            2 => Layout::I16,
            4 => Layout::I32,
            _ => Layout::I64,
        }
    }

    /// The last base that keeps the window within the keys.
    pub const fn max_base(self) -> u16 {
        if self.is_windowed() { (1 << self.key_bits()) - 256 } else { 0 }
    }
}

/// The symbol of a key, if the window has one.
pub fn symbol_of(key: u16, base: u16) -> Option<u8> {
    if key == 0 {
        return Some(0);
    }
    key.checked_sub(base).filter(|&s| (1..=255).contains(&s)).map(|s| s as u8)
}

/// The key of a symbol.
pub fn key_of(symbol: u8, base: u16) -> u16 {
    if symbol == 0 { 0 } else { base + symbol as u16 }
}
