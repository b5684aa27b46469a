//! Any file with the magic and version of the published package is read or refused, and what is read has the digest that it names.
#![no_main]

use bigsmall::Reader;
use libfuzzer_sys::fuzz_target;
use md5::{Digest, Md5};

/// The containers there are.
const KINDS: [&[u8]; 4] = [b"BGSM\x01\x00", b"BGSM\x02\x00", b"BGSD\x01\x00", b"BGSD\x02\x00"];

fuzz_target!(|data: &[u8]| {
    // The first byte says which container, the next two how many bytes of the rest are the header.
    let Some((&[which, low, high], rest)) = data.split_first_chunk() else {
        return;
    };
    let (header, blobs) = rest.split_at(rest.len().min(u16::from_le_bytes([low, high]) as usize));
    let file = [
        KINDS[which as usize % KINDS.len()],
        &(header.len() as u32).to_le_bytes(),
        header,
        blobs,
    ]
    .concat();
    let Ok(reader) = Reader::open(&file[..]) else { return };
    for (tensor, entry) in reader.header().entries.iter().enumerate() {
        let _ = reader.check_structure(tensor);
        if entry.raw_bytes > 1 << 20 {
            continue;
        }
        let mut words = vec![0; entry.raw_bytes as usize];
        if reader.read_words(tensor, 0..entry.n_words(), &mut words).is_ok() {
            assert!(Md5::digest(&words)[..] == entry.md5.0, "it has another digest");
        }
    }
});
