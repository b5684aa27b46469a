//! Bytes of a number in a table.

/// How wide a field is.
#[derive(Clone, Copy)]
pub enum Width {
    /// One byte.
    U8,
    /// Two.
    U16,
}

impl Width {
    /// Appends a number, which fits.
    pub fn put(self, out: &mut Vec<u8>, number: usize) {
        match self {
            Width::U8 => out.push(number as u8),
            Width::U16 => out.extend((number as u16).to_le_bytes()),
        }
    }
}
