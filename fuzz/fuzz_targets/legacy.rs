//! Any blob of the published package's codecs is decoded or refused, by one thread and by many alike.
#![no_main]

use bigsmall::Threads;
use bigsmall::codec::legacy::{Codec, dual, kv};
use libfuzzer_sys::fuzz_target;

/// An entry of two tensors of at most 2^16 elements: a few bytes can stand for many, and more are too large for a fuzzer.
fn kv_entry(rows: u8, columns: u8, data: &[u8]) -> Vec<u8> {
    let (kinds, blobs) = data.split_at(data.len().min(8));
    let (keys, values) = blobs.split_at(blobs.len() / 2);
    let kind = |i: usize| kinds.get(i).copied().unwrap_or(0);
    let mut entry = vec![3, 0];
    for (i, blob) in [keys, values].into_iter().enumerate() {
        entry.extend([kind(3 * i) % 4, kind(3 * i + 1) % 2, 2, kind(3 * i + 2) % 4]);
        entry.extend([rows, columns].map(|n| (n as u32).to_le_bytes()).concat());
        entry.extend((blob.len() as u32).to_le_bytes());
        entry.extend(blob);
    }
    entry
}

fuzz_target!(|data: &[u8]| {
    // The first byte names the codec, the next two are the number of bytes to be decoded.
    let Some((&[which, low, high], blob)) = data.split_first_chunk() else {
        return;
    };
    let mut out = vec![0; u16::from_le_bytes([low, high]) as usize];
    let n_codecs = Codec::all().count();
    match which as usize % (n_codecs + 2) {
        i if i < n_codecs => {
            let codec = Codec::all().nth(i).expect("there are so many");
            if !codec.fits(out.len() as u64, blob.len() as u64) {
                return;
            }
            let first = codec.decode(blob, Threads::One, &mut out).is_ok();
            let mut again = vec![0; out.len()];
            assert!(codec.decode(blob, Threads::Pool, &mut again).is_ok() == first);
            assert!(!first || again == out, "decoded twice, it differs");
        }
        i if i == n_codecs => {
            out.truncate(out.len() / 2 * 2);
            let (fast, residual) = blob.split_at(blob.len() / 2);
            let _ = dual::decode(fast, residual, Threads::One, &mut out);
            let _ = dual::decode_fast(fast, Threads::One, &mut out);
        }
        _ => {
            let _ = kv::decode(&kv_entry(low, high, blob));
        }
    }
});
