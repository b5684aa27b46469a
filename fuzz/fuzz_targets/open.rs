//! Any header, with the digest that a writer would give it, is opened or refused.
#![no_main]

use bigsmall::Reader;
use libfuzzer_sys::fuzz_target;
use md5::{Digest, Md5};

fuzz_target!(|data: &[u8]| {
    // The first byte says how many bytes of blobs follow the header.
    let Some((&n_blob_bytes, stored)) = data.split_first() else {
        return;
    };
    let mut file = b"BGSM\x10\x00".to_vec();
    file.extend((stored.len() as u32).to_le_bytes());
    file.extend_from_slice(stored);
    let digest = Md5::digest(&file);
    file.extend(digest);
    file.resize(file.len().next_multiple_of(64) + n_blob_bytes as usize, 0);
    let Ok(reader) = Reader::open(&file[..]) else { return };
    let _ = reader.check_gaps();
    for (tensor, entry) in reader.header().entries.iter().enumerate() {
        let _ = reader.check_structure(tensor);
        let n_words = entry.n_words().min(1000);
        let mut words = vec![0; (n_words * entry.dtype.layout().word_bytes() as u64) as usize];
        let _ = reader.read_words(tensor, 0..n_words, &mut words);
    }
});
