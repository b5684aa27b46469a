//! The codec of most tensors: keys entropy coded by row class, raw bits as planes, low bytes raw, constant or coded.
//!
//! Rows of a tensor differ in scale, and coding a mixture of scales with one table costs some tenths of a percent. So units of rows are
//! sorted into classes, each class is coded as its own run of blocks with one table, and the inner loop never changes tables.

pub mod assign;
pub mod decode;
pub mod encode;
pub mod head;
pub mod pool;
pub mod units;

pub use pool::{Pool, Pools};

#[cfg(test)]
mod tests {
    use super::encode::Plan;
    use super::*;
    use crate::float::Layout;
    use crate::simd::Isa;
    use proptest::prelude::*;

    /// Words of many kinds: skewed, constant, random, with zeros, rows of different scales.
    fn words(layout: Layout, n: usize, kind: u32, seed: u64) -> Vec<u8> {
        let mut x = seed | 1;
        let mut next = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        let width = layout.word_bytes();
        let mut out = Vec::with_capacity(n * width);
        for i in 0..n {
            let r = next();
            let scale = [0, 3, 9, 1][i / 300 % 4] * (kind & 1) as i32;
            let value = ((r >> 40) as f32 / (1 << 23) as f32 - 1.0) * (2.0f32).powi(-(r as i32 & 7) - scale);
            let bits = match kind % 6 {
                0 | 1 => value.to_bits() as u64,
                2 => r,
                3 => 0x3F80_0000,
                4 => value.to_bits() as u64 * (r >> 20 & 1),
                _ => (value.to_bits() & [0xFFFF_0000, 0xFFFF_E000, !0, 0xFF00_FF00][i / 500 % 4]) as u64,
            };
            let bytes = match (layout, kind % 6) {
                (_, 2) => bits.to_le_bytes(),
                (Layout::F64, _) => (f32::from_bits(bits as u32) as f64).to_le_bytes(),
                (Layout::Bf16, _) => (bits >> 16).to_le_bytes(),
                (Layout::F16, _) => (bits >> 13 & 0xFFFF).to_le_bytes(),
                (Layout::F8, _) => (bits >> 20 & 0xFF).to_le_bytes(),
                _ => bits.to_le_bytes(),
            };
            out.extend_from_slice(&bytes[..width]);
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn chunks_come_back_whole_and_in_part(id in 0u8..9, n in prop_oneof![0usize..40, 0usize..3000, 60_000usize..140_000], kind in 0u32..12, seed: u64, row_words in 0usize..700, cut in any::<(u32, u32)>()) {
            let layout = Layout::from_id(id).unwrap();
            let words = words(layout, n, kind, seed);
            let base = if layout.is_windowed() { (127u16 << 2) - 200 } else { 0 };
            let mut symbols = vec![0; n];
            crate::float::kernel::symbols(Isa::SCALAR, layout, base, &words, &mut symbols);
            let tables = assign::train(Isa::SCALAR, &units::count(&symbols, 300), 8, 0);
            let pool = Pool::new(layout, base, tables);
            let mut first = None;
            for isa in Isa::available() {
                let plan = Plan { pool: &pool, row_words, may_sort: kind < 9, isa, spare: &Default::default() };
                let coded = encode::encode(&plan, &words);
                let decoder = decode::Decoder::new(isa, &pool, &coded.head, n, coded.body.len()).unwrap();
                let decode = |range: std::ops::Range<usize>| {
                    let mut out = vec![0xEE; range.len() * layout.word_bytes()];
                    let blocks: Vec<_> = decoder.blocks_of(&range).into_iter().map(|block| (block, &coded.body[decoder.block_bytes(block)])).collect();
                    decoder.decode(&blocks, &range, &mut out).unwrap();
                    out
                };
                prop_assert_eq!(&decode(0..n), &words);
                let (a, b) = (cut.0 as usize % (n + 1), cut.1 as usize % (n + 1));
                let part = a.min(b)..a.max(b);
                prop_assert_eq!(&decode(part.clone()), &words[part.start * layout.word_bytes()..part.end * layout.word_bytes()]);
                prop_assert_eq!(first.get_or_insert_with(|| encode::encode(&plan, &words)), &coded, "{}", isa);
            }
        }
    }
}
