//! Counting symbols.

/// Adds the symbols to `counts`.
pub fn count(symbols: &[u8], counts: &mut [u32; 256]) {
    // Four tables, so that a run of equal symbols does not wait for its own increments.
    let mut parts = [[0u32; 256]; 4];
    let mut quads = symbols.chunks_exact(4);
    for quad in &mut quads {
        for (part, &s) in parts.iter_mut().zip(quad) {
            part[s as usize] += 1;
        }
    }
    for &s in quads.remainder() {
        counts[s as usize] += 1;
    }
    for part in &parts {
        for (sum, n) in counts.iter_mut().zip(part) {
            *sum += n;
        }
    }
}
