//! Damage under right checksums is refused, or gives back the source; every instruction set decodes it alike.
#![no_main]

#[path = "../../tests/container/seals.rs"]
mod seals;

use bigsmall::{Isa, Reader, decompress_bytes};
use libfuzzer_sys::fuzz_target;
use seals::Seals;
use std::sync::OnceLock;

/// Files whose chunks have one block each, for which checksums can be found.
const FILES: [&[u8]; 5] = [
    include_bytes!("../../tests/golden/every-codec-balanced.bs"),
    include_bytes!("../../tests/golden/every-codec-storage.bs"),
    include_bytes!("../../tests/golden/every-codec-inference.bs"),
    include_bytes!("../../tests/golden/odd-header.bs"),
    include_bytes!("../../tests/golden/patches.bs"),
];

/// A file with its checksums, the start of its blobs, and its source.
struct Intact {
    file: &'static [u8],
    seals: Seals,
    start: usize,
    source: Vec<u8>,
}

fn intact() -> &'static [Intact] {
    static INTACT: OnceLock<Vec<Intact>> = OnceLock::new();
    INTACT.get_or_init(|| {
        let one = |file: &'static [u8]| {
            let seals = Seals::of(file);
            let mut signed = file.to_vec();
            seals.sign(&mut signed);
            assert!(signed == file, "the checksums are where they are looked for");
            let start = Reader::open(file).expect("it is whole").header().tables.start as usize;
            Intact {
                file,
                seals,
                start,
                source: decompress_bytes(file, 1).expect("it is whole"),
            }
        };
        FILES.into_iter().map(one).collect()
    })
}

fuzz_target!(|data: &[u8]| {
    // The first byte names the file; then come places among its blobs, with the bytes to stand there.
    let Some((&which, edits)) = data.split_first() else { return };
    let Intact {
        file,
        seals,
        start,
        source,
    } = &intact()[which as usize % FILES.len()];
    let mut damaged = file.to_vec();
    for edit in edits.as_chunks::<3>().0 {
        let at = u16::from_le_bytes([edit[0], edit[1]]) as usize % (file.len() - start);
        damaged[start + at] = edit[2];
    }
    seals.sign(&mut damaged);
    let read = |isa: Isa| {
        let reader = Reader::open_with(&damaged[..], isa).ok()?;
        let tensor = |(tensor, entry): (usize, &bigsmall::container::header::Entry)| {
            let mut words = vec![0; entry.raw_bytes as usize];
            reader.read_words(tensor, 0..entry.n_words(), &mut words).ok().map(|()| words)
        };
        Some(reader.header().entries.iter().enumerate().map(tensor).collect::<Vec<_>>())
    };
    let first = read(Isa::SCALAR);
    for isa in Isa::available() {
        assert!(read(isa) == first, "{isa} differs");
    }
    if let Ok(back) = decompress_bytes(&damaged, 1) {
        assert!(back == *source, "another file has the digests of this one");
    }
});
