//! Counting symbols.

/// Adds the symbols to `counts`.
pub fn count(symbols: &[u8], counts: &mut [u32; 256]) {
    // Four tables, so that a run of equal symbols does not wait for its own increments.
    let mut parts = [[0u32; 256]; 4];
    let (eights, rest) = symbols.as_chunks::<8>();
    for eight in eights {
        // One load for eight symbols.
        let eight = u64::from_le_bytes(*eight);
        for i in 0..8 {
            parts[i % 4][(eight >> (8 * i) & 0xFF) as usize] += 1;
        }
    }
    for &s in rest {
        counts[s as usize] += 1;
    }
    for part in &parts {
        for (sum, n) in counts.iter_mut().zip(part) {
            *sum += n;
        }
    }
}
