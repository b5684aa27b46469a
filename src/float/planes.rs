//! Bit planes: fields of 8, 4, 2 or 1 bits of many words, packed side by side.
//!
//! A plane of width `w` is packed in groups of `256 / w` words. A group of `m` words takes `h = ⌈m·w / 8⌉` bytes, and word `j` lies in byte
//! `j mod h`, from bit `w · ⌊j / h⌋`. So a whole group is 32 bytes, and 32 neighbouring words are one shift and one mask away from them.

/// The widths that make up `raw_bits`, widest first.
pub fn widths(raw_bits: u32) -> impl Iterator<Item = u32> {
    [8u32, 4, 2, 1].into_iter().filter(move |w| raw_bits & w != 0)
}

/// Words of a whole group.
pub const fn group_words(width: u32) -> usize {
    256 / width as usize
}

/// Bytes of a plane of `n` words.
pub const fn plane_bytes(width: u32, n: usize) -> usize {
    let group = group_words(width);
    n / group * 32 + (n % group * width as usize).div_ceil(8)
}

/// Bytes of all planes of `n` words with `raw_bits` raw bits each.
pub fn raw_bytes(raw_bits: u32, n: usize) -> usize {
    widths(raw_bits).map(|w| plane_bytes(w, n)).sum()
}

/// Packs a plane: `fields[i]` holds the field of word `i` in its low `width` bits, the other bits being zero.
pub fn pack(width: u32, fields: &[u8], plane: &mut [u8]) {
    debug_assert_eq!(plane.len(), plane_bytes(width, fields.len()));
    for (group, bytes) in fields.chunks(group_words(width)).zip(plane.chunks_mut(32)) {
        let h = bytes.len();
        bytes.copy_from_slice(&group[..h]);
        for (k, part) in group.chunks(h).enumerate().skip(1) {
            for (byte, field) in bytes.iter_mut().zip(part) {
                *byte |= field << (k as u32 * width);
            }
        }
    }
}

/// Unpacks a plane into the low bits of `fields`, above what is there shifted left by `width`.
pub fn unpack(width: u32, plane: &[u8], fields: &mut [u8]) {
    debug_assert_eq!(plane.len(), plane_bytes(width, fields.len()));
    let mask = ((1u16 << width) - 1) as u8;
    for (group, bytes) in fields.chunks_mut(group_words(width)).zip(plane.chunks(32)) {
        for (k, part) in group.chunks_mut(bytes.len()).enumerate() {
            for (field, byte) in part.iter_mut().zip(bytes) {
                *field = ((*field as u16) << width) as u8 | (byte >> (k as u32 * width)) & mask;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_come_back_at_every_length() {
        for width in [1u32, 2, 4, 8] {
            for n in (0..70).chain([127, 128, 129, 255, 256, 257, 1000]) {
                let fields: Vec<u8> = (0..n).map(|i| ((i * 37 + i / 7) as u32 & ((1 << width) - 1)) as u8).collect();
                let mut plane = vec![0xAA; plane_bytes(width, n)];
                pack(width, &fields, &mut plane);
                let mut back = vec![0; n];
                unpack(width, &plane, &mut back);
                assert_eq!(back, fields, "width {width}, {n} words");
            }
        }
    }
}
