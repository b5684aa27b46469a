//! Any bytes are a file or are refused, and what decodes has the digests that it names.
#![no_main]

use bigsmall::{Isa, Reader, decompress_bytes_with};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    // A few bytes can stand for many: what is too large for a fuzzer is left out.
    match Reader::open(file) {
        Ok(reader) if reader.header().raw_bytes() > 1 << 24 => return,
        _ => (),
    }
    let first = decompress_bytes_with(file, 1, Isa::SCALAR).ok();
    for isa in Isa::available() {
        assert!(decompress_bytes_with(file, 1, isa).ok() == first, "{isa} differs");
    }
});
