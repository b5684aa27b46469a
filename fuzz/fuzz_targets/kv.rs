//! Saved caches, exact words, coded and packed indices: any bytes are read or refused.
#![no_main]

use bigsmall::kv::coder::IndexCoder;
use bigsmall::kv::file::CacheReader;
use bigsmall::kv::table::IndexTable;
use bigsmall::kv::{pack, words};
use bigsmall::{Dtype, Isa};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&what, data)) = data.split_first() else { return };
    match what % 4 {
        0 => {
            // The checksum is the target's own work; what lies behind it is not.
            let mut file = data.to_vec();
            if let Some(end) = sealed(&mut file) {
                let Ok(reader) = CacheReader::open(file) else { return };
                assert!(end > 0);
                (0..reader.sections().len()).for_each(|i| drop(reader.body(i)));
            }
        }
        1 => {
            let isa = Isa::current().expect("there is always one");
            let n_words = u64::from(data.first().copied().unwrap_or(0)) * 40;
            for dtype in [Dtype::BF16, Dtype::F32] {
                let _ = words::decode(data, dtype, n_words, isa);
            }
        }
        2 => {
            let tables: Vec<IndexTable> = (0..3).map(|i| IndexTable::fit(&[i, 3, 100, 40, 2 * i])).collect();
            let n_rows = usize::from(data.first().copied().unwrap_or(0));
            let mut out = vec![0; 3 * n_rows];
            let coder = IndexCoder::new(&tables);
            if coder.decode(data, n_rows, &mut out).is_ok() {
                assert_eq!(coder.encode(&out, n_rows).expect("what was decoded is coded"), data);
            }
        }
        _ => {
            let Some((&n_rows, data)) = data.split_first() else { return };
            let (widths, packed) = data.split_at(data.len().min(5));
            let n_rows = usize::from(n_rows);
            let mut out = vec![0; widths.len() * n_rows];
            if pack::unpack(packed, widths, n_rows, &mut out).is_ok() {
                assert_eq!(pack::pack(&out, widths, n_rows).expect("what was unpacked fits"), packed);
            }
        }
    }
});

/// Puts the checksum where a file that says how long its header and records are has it. Its place, if that lies in the file.
fn sealed(file: &mut [u8]) -> Option<usize> {
    let field = |at: usize| Some(u32::from_le_bytes(file.get(at..at + 4)?.try_into().ok()?) as usize);
    let end = 16usize.checked_add(field(8)?)?.checked_add(field(12)?.checked_mul(24)?)?;
    let crc = crc32fast::hash(file.get(..end)?);
    file.get_mut(end..end.checked_add(4)?)?.copy_from_slice(&crc.to_le_bytes());
    Some(end)
}
