//! A damaged file and its damaged sidecar give back what the file was, or an error; and what is no sidecar at all is refused.
#![no_main]

use bigsmall::{protect_bytes, repair_bytes};
use libfuzzer_sys::fuzz_target;
use std::sync::OnceLock;

const FILE: &[u8] = include_bytes!("../../tests/golden/dtypes.bs");

fuzz_target!(|data: &[u8]| {
    static SIDECAR: OnceLock<Vec<u8>> = OnceLock::new();
    let sidecar = SIDECAR.get_or_init(|| protect_bytes(FILE, 14.0).expect("it can be protected"));
    // Anything may come back from a sidecar that somebody else made.
    let _ = repair_bytes(FILE, data);
    let (mut damaged, mut damaged_sidecar) = (FILE.to_vec(), sidecar.clone());
    for edit in data.as_chunks::<6>().0 {
        let [a, b, length, value, which, cut] = *edit;
        let bytes = if which & 1 == 0 { &mut damaged } else { &mut damaged_sidecar };
        let start = u16::from_le_bytes([a, b]) as usize;
        let end = bytes.len().min(start + 1 + length as usize * (1 + (which >> 1) as usize));
        if start < end {
            bytes[start..end].fill(value);
        }
        if cut == 255 {
            bytes.truncate(end);
        }
    }
    if let Ok(back) = repair_bytes(&damaged, &damaged_sidecar) {
        assert!(back == FILE, "another file came back");
    }
});
