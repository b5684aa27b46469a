//! Indices of fixed widths as bits, component after component.

use crate::error::{Error, Result};
use crate::kv::allocate::MAX_WIDTH;
use rayon::prelude::*;

/// Bytes of all components: each one's rows are filled up to a multiple of 8.
///
/// # Errors
/// `Option` for a width above 16.
pub fn packed_bytes(widths: &[u8], n_rows: usize) -> Result<usize> {
    if widths.iter().any(|&b| b as usize > MAX_WIDTH) {
        return Err(Error::option(format!("an index has at most {MAX_WIDTH} bits")));
    }
    Ok(widths.iter().map(|&b| b as usize * n_rows.div_ceil(8)).sum())
}

/// Packs `[components, rows]` indices.
///
/// # Errors
/// `Option` if there are not as many indices, or one does not fit its width.
pub fn pack(indices: &[u16], widths: &[u8], n_rows: usize) -> Result<Vec<u8>> {
    if indices.len() != widths.len() * n_rows {
        return Err(Error::option("there are not as many indices as components and rows say"));
    }
    let mut out = vec![0; packed_bytes(widths, n_rows)?];
    if n_rows == 0 {
        return Ok(out);
    }
    let mut jobs = Vec::with_capacity(widths.len());
    let mut rest = &mut out[..];
    for (&width, rows) in widths.iter().zip(indices.chunks_exact(n_rows)) {
        let (part, next) = rest.split_at_mut(width as usize * n_rows.div_ceil(8));
        rest = next;
        jobs.push((width as usize, rows, part));
    }
    jobs.into_par_iter().with_min_len(64).try_for_each(|(width, rows, out)| {
        if rows.iter().any(|&q| q as u32 >> width != 0) {
            return Err(Error::option(format!("an index does not fit {width} bits")));
        }
        // Eight rows of `width` bits are `width` bytes.
        for (eight, bytes) in rows.chunks(8).zip(out.chunks_exact_mut(width.max(1))) {
            let bits = eight.iter().rev().fold(0u128, |bits, &q| bits << width | q as u128);
            bytes.copy_from_slice(&bits.to_le_bytes()[..width]);
        }
        Ok(())
    })?;
    Ok(out)
}

/// The indices, `[components, rows]`, written to `out`.
///
/// # Errors
/// `Corrupt` if the length does not fit, or filling is not zero.
pub fn unpack(packed: &[u8], widths: &[u8], n_rows: usize, out: &mut [u16]) -> Result<()> {
    if packed.len() != packed_bytes(widths, n_rows)? || out.len() != widths.len() * n_rows {
        return Err(Error::corrupt("packed indices have not the length that widths and rows say"));
    }
    if n_rows == 0 {
        return Ok(());
    }
    let mut jobs = Vec::with_capacity(widths.len());
    let mut rest = packed;
    for (&width, rows) in widths.iter().zip(out.chunks_exact_mut(n_rows)) {
        let (part, next) = rest.split_at(width as usize * n_rows.div_ceil(8));
        rest = next;
        jobs.push((width as usize, rows, part));
    }
    jobs.into_par_iter().with_min_len(64).try_for_each(|(width, rows, packed)| {
        if width == 0 {
            rows.fill(0);
            return Ok(());
        }
        let mask = (1u128 << width) - 1;
        for (eight, bytes) in rows.chunks_mut(8).zip(packed.chunks_exact(width)) {
            let mut stored = [0; 16];
            stored[..width].copy_from_slice(bytes);
            let mut bits = u128::from_le_bytes(stored);
            for q in eight {
                *q = (bits & mask) as u16;
                bits >>= width;
            }
            if bits != 0 {
                return Err(Error::corrupt("the filling of packed indices is not zero"));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn indices_come_back(widths in prop::collection::vec(0u8..=16, 0..12), n_rows in 0usize..40, seed in any::<u64>()) {
            let mut state = seed | 1;
            let indices: Vec<u16> = widths.iter().flat_map(|&b| std::iter::repeat_n(b, n_rows)).map(|b| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                ((state >> 40) & ((1 << b) - 1)) as u16
            }).collect();
            let packed = pack(&indices, &widths, n_rows).unwrap();
            let mut out = vec![0xFFFF; indices.len()];
            unpack(&packed, &widths, n_rows, &mut out).unwrap();
            prop_assert_eq!(out, indices);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(pack(&[4], &[2], 1).is_err());
        assert!(pack(&[0], &[17], 1).is_err());
        assert!(pack(&[0, 0], &[1], 1).is_err());
        assert!(unpack(&[0, 0], &[1], 1, &mut [0]).is_err());
        // Row 1 of a stretch of one row.
        assert!(unpack(&[2], &[1], 1, &mut [0]).is_err());
    }
}
