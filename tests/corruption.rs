//! A file that changed after it was written is refused, wherever the change is, and what is still intact can be read.

mod checkpoint;
mod container;

use bigsmall::codec::blob::Index;
use bigsmall::codec::chunk::Decoder;
use bigsmall::codec::planes::Pools;
use bigsmall::container::header::Storage;
use bigsmall::{
    Depth, Dtype, Error, Isa, Kind, Mode, Options, Reader, VerifyOptions, compress_bytes, decompress_bytes, load, no_progress, verify,
};
use checkpoint::values::{Random, Values};
use checkpoint::{Checkpoint, EVERY_CODEC, every_codec};
use container::seals::Seals;
use std::collections::BTreeSet;
use std::ops::Range;

fn compressed(checkpoint: &Checkpoint, mode: Mode) -> (Vec<u8>, Vec<u8>) {
    let source = checkpoint.to_bytes();
    let packed = compress_bytes(
        &source,
        &Options {
            mode,
            threads: 1,
            ..Options::default()
        },
    )
    .unwrap();
    (source, packed)
}

fn fast() -> VerifyOptions {
    VerifyOptions {
        depth: Depth::Fast,
        ..VerifyOptions::default()
    }
}

/// Files that between them use every codec.
fn files() -> Vec<(Vec<u8>, Vec<u8>)> {
    let files: Vec<_> = Mode::ALL.map(|mode| compressed(&every_codec(), mode)).into();
    let mut used = BTreeSet::new();
    for (_, packed) in &files {
        let reader = Reader::open(&packed[..]).unwrap();
        used.extend((0..reader.header().entries.len()).map(|tensor| reader.header().codec_name(tensor)));
    }
    assert_eq!(used.into_iter().collect::<Vec<_>>(), EVERY_CODEC);
    files
}

/// Name and bytes of what has a blob of its own, packs by the name of their first member.
fn blobs(packed: &[u8]) -> Vec<(String, Range<u64>)> {
    let reader = Reader::open(packed).unwrap();
    let header = reader.header();
    let packs = header
        .packs
        .iter()
        .map(|pack| (header.entries[pack.members[0]].name.clone(), pack.blob.range.clone()));
    let tensors = header.entries.iter().filter_map(|entry| match &entry.storage {
        Storage::Blob(blob) => Some((entry.name.clone(), blob.range.clone())),
        _ => None,
    });
    packs.chain(tensors).collect()
}

#[test]
fn every_truncation_is_refused() {
    for (_, packed) in files() {
        for n_bytes in 0..packed.len() {
            let error = Reader::open(&packed[..n_bytes])
                .err()
                .unwrap_or_else(|| panic!("the first {n_bytes} bytes are opened"));
            assert!(matches!(error.kind, Kind::Format), "the first {n_bytes} bytes: {error:?}");
        }
        for more in [1, 64, 4096] {
            let mut longer = packed.clone();
            longer.resize(packed.len() + more, 0);
            assert!(matches!(Reader::open(&longer[..]).err().unwrap().kind, Kind::Format));
        }
    }
}

#[test]
fn every_changed_byte_is_refused() {
    for (which, (_, packed)) in files().into_iter().enumerate() {
        let blobs = blobs(&packed);
        let mut random = Random(9);
        let mut damaged = packed.clone();
        for at in 0..packed.len() {
            // One bit, or several.
            let mask = if which == 0 {
                1 << random.below(8)
            } else {
                1 + random.below(255) as u8
            };
            damaged[at] ^= mask;
            let error = decompress_bytes(&damaged, 1)
                .err()
                .unwrap_or_else(|| panic!("byte {at} ^ {mask:#x} is not noticed"));
            let expected = blobs.iter().find(|(_, range)| range.contains(&(at as u64))).map(|(name, _)| name);
            match at {
                0..4 => assert!(matches!(error.kind, Kind::Format), "{error:?}"),
                4..6 => assert!(matches!(error.kind, Kind::Version), "{error:?}"),
                6..10 => assert!(matches!(error.kind, Kind::Format | Kind::Corrupt), "{error:?}"),
                _ => assert!(matches!(error.kind, Kind::Corrupt), "byte {at}: {error:?}"),
            }
            assert_eq!(error.tensor.as_ref(), expected, "byte {at}: {error:?}");
            damaged[at] = packed[at];
        }
    }
}

/// The tensors whose words lie around byte `at`; all of them if it is none of a blob, so that any may depend on it.
fn tensors_at(file: &[u8], at: usize) -> Vec<usize> {
    let reader = Reader::open(file).unwrap();
    let header = reader.header();
    let is_there = |tensor: &usize| match &header.entries[*tensor].storage {
        Storage::Blob(blob) => blob.range.contains(&(at as u64)),
        Storage::Packed { pack, .. } => header.packs[*pack].blob.range.contains(&(at as u64)),
        _ => false,
    };
    let all = 0..header.entries.len();
    let there: Vec<usize> = all.clone().filter(is_there).collect();
    if there.is_empty() { all.collect() } else { there }
}

/// Reads tensors with every instruction set: all give the same words or all refuse. Returns whether all tensors could be read.
fn read_alike(file: &[u8], tensors: &[usize]) -> bool {
    let read = |isa: Isa| -> Result<Vec<Option<Vec<u8>>>, Error> {
        let reader = Reader::open_with(file, isa)?;
        let entries = tensors.iter().map(|&tensor| (tensor, &reader.header().entries[tensor]));
        Ok(entries
            .map(|(tensor, entry)| {
                let mut words = vec![0; entry.raw_bytes as usize];
                reader.read_words(tensor, 0..entry.n_words(), &mut words).ok().map(|()| words)
            })
            .collect())
    };
    let scalar = read(Isa::SCALAR).ok();
    for isa in Isa::available() {
        assert!(read(isa).ok() == scalar, "{isa} decodes damaged words in another way");
    }
    scalar.is_some_and(|tensors| tensors.iter().all(Option::is_some))
}

/// Whatever a file with right checksums holds, it is refused, or gives back the source.
fn check_signed(damaged: &[u8], tensors: &[usize], source: &[u8], what: &dyn std::fmt::Debug) {
    if read_alike(damaged, tensors) {
        match decompress_bytes(damaged, 1) {
            Ok(back) => assert!(back == source, "{what:?} gave another file"),
            Err(error) => assert!(matches!(error.kind, Kind::Corrupt), "{what:?}: {error:?}"),
        }
    } else {
        let error = decompress_bytes(damaged, 1).expect_err("a tensor cannot be read");
        assert!(matches!(error.kind, Kind::Corrupt), "{what:?}: {error:?}");
    }
}

#[test]
fn changes_under_right_checksums_are_refused() {
    for (source, packed) in files() {
        let seals = Seals::of(&packed);
        let start = Reader::open(&packed[..]).unwrap().header().tables.start as usize;
        let mut random = Random(10);
        for at in start..packed.len() {
            let tensors = tensors_at(&packed, at);
            let mask = 1 + random.below(255) as u8;
            let mut damaged = packed.clone();
            damaged[at] ^= mask;
            seals.sign(&mut damaged);
            check_signed(&damaged, &tensors, &source, &(at, mask));
        }
    }
}

#[test]
fn heaps_of_changes_under_right_checksums_are_refused() {
    // Longer tensors than those of `every_codec`, so that streams, raw bits and low bytes all lie in the blocks.
    let values = |values: Values, dtype, shape: [u64; 2]| values.bytes(dtype, shape[0] * shape[1], shape[1], 11);
    let checkpoint = Checkpoint::default()
        .tensor("bf16", Dtype::BF16, &[40, 200], values(Values::RowScaled, Dtype::BF16, [40, 200]))
        .tensor("f32", Dtype::F32, &[30, 200], values(Values::Widened, Dtype::F32, [30, 200]))
        .tensor("f8", Dtype::F8_E4M3, &[90, 70], values(Values::Normal, Dtype::F8_E4M3, [90, 70]))
        .tensor("f64", Dtype::F64, &[10, 300], values(Values::Sparse, Dtype::F64, [10, 300]))
        .tensor("i32", Dtype::I32, &[60, 80], values(Values::RowsAlike, Dtype::I32, [60, 80]))
        .tensor("f16", Dtype::F16, &[60, 80], values(Values::Palette, Dtype::F16, [60, 80]));
    // One class, so that every chunk has a single block.
    let (source, packed) = compressed(&checkpoint, Mode::Inference);
    let seals = Seals::of(&packed);
    let blobs = blobs(&packed);
    let start = Reader::open(&packed[..]).unwrap().header().tables.start as usize;
    let tensors: Vec<usize> = (0..checkpoint.tensors.len()).collect();
    let mut random = Random(12);
    for round in 0..1500 {
        let mut damaged = packed.clone();
        for _ in 0..1 + random.below(6) {
            // Heads are short, but hold most of what can be wrong.
            let blob = &blobs[random.below(blobs.len())].1;
            let at = match random.below(3) {
                0 => start + random.below(packed.len() - start),
                1 => blob.start as usize + random.below((blob.end - blob.start).min(100) as usize),
                _ => blob.start as usize + random.below((blob.end - blob.start) as usize),
            };
            damaged[at] = random.bits() as u8;
        }
        seals.sign(&mut damaged);
        check_signed(&damaged, &tensors, &source, &round);
    }
}

/// Three tensors of several blocks, in chunks of one class, whose blocks lie in the order of their words.
fn several_blocks(n_words: u64) -> Checkpoint {
    let mut checkpoint = Checkpoint::default();
    for (i, name) in ["a", "b", "c"].into_iter().enumerate() {
        let n = if name == "b" { n_words } else { 70_000 };
        checkpoint = checkpoint.tensor(name, Dtype::BF16, &[n], Values::Normal.bytes(Dtype::BF16, n, 1, i as u64));
    }
    checkpoint
}

/// The place of every block of a tensor of `planes` in the file, as the reader itself finds it.
fn block_places(packed: &[u8], name: &str) -> Vec<Range<usize>> {
    let reader = Reader::open(packed).unwrap();
    let entry = &reader.header().entries[reader.find(name).unwrap()];
    let Storage::Blob(blob) = &entry.storage else {
        panic!("{name} has no blob")
    };
    let tables = &packed[reader.header().tables.start as usize..reader.header().tables.end as usize];
    let pools = Pools::from_bytes(tables).unwrap();
    let bytes = &packed[blob.range.start as usize..blob.range.end as usize];
    let start = bytes[..4].try_into().unwrap();
    let n_chunks = Index::n_chunks(start, entry.dtype.layout(), entry.n_words(), bytes.len() as u64).unwrap();
    let index = Index::parse(&bytes[..Index::bytes(n_chunks)], entry.n_words(), bytes.len() as u64).unwrap();
    let mut places = Vec::new();
    for (chunk, (head, body)) in index.chunks.iter().enumerate() {
        let words = index.words_of(chunk);
        let head = &bytes[head.start as usize..head.end as usize];
        let (words, n_bytes) = (words.start as usize..words.end as usize, (body.end - body.start) as usize);
        let decoder = Decoder::new(Isa::SCALAR, blob.codec, entry.dtype.layout(), &pools, &[], head, words, n_bytes);
        let Ok(Decoder::Planes(planes)) = decoder else {
            panic!("{name} has planes")
        };
        let base = (blob.range.start + body.start) as usize;
        places.extend((0..planes.n_blocks()).map(|block| base + planes.block_bytes(block).start..base + planes.block_bytes(block).end));
    }
    places
}

#[test]
fn a_damaged_block_is_named_and_the_rest_is_loaded() {
    let checkpoint = several_blocks(200_000);
    let (_, packed) = compressed(&checkpoint, Mode::Inference);
    let places = block_places(&packed, "b");
    assert_eq!(places.len(), 4);
    let directory = tempfile::tempdir().unwrap();
    for (block, place) in places.into_iter().enumerate() {
        let mut damaged = packed.clone();
        damaged[(place.start + place.end) / 2] ^= 4;

        let reader = Reader::open(&damaged[..]).unwrap();
        let loaded = load(&reader, &[2, 1, 0], 2, &no_progress).unwrap();
        for (tensor, result) in [2, 1, 0].into_iter().zip(loaded) {
            match result {
                Ok(buffer) => assert!(tensor != 1 && buffer[..] == checkpoint.tensors[tensor].bytes),
                Err(error) => {
                    assert!(matches!(error.kind, Kind::Corrupt));
                    assert_eq!(
                        (tensor, error.tensor.as_deref(), error.block),
                        (1, Some("b"), Some(block as u64)),
                        "{error}"
                    );
                }
            }
        }

        // Words of the other blocks can still be read.
        for other in 0..4 {
            let mut words = vec![0; 2000];
            let start = other * 65_536;
            let result = reader.read_words(1, start..start + 1000, &mut words);
            assert_eq!(result.is_ok(), other != block as u64);
            assert!(result.is_err() || words == checkpoint.tensors[1].bytes[2 * start as usize..][..2000]);
        }

        let path = directory.path().join("model.bs");
        std::fs::write(&path, &damaged).unwrap();
        let found = verify(&path, &VerifyOptions::default(), &no_progress).unwrap();
        let [problem] = &found.problems[..] else {
            panic!("one problem: {:?}", found.problems)
        };
        assert_eq!(
            (&problem.path, problem.tensor.as_deref(), problem.block),
            (&path, Some("b"), Some(block as u64))
        );
        assert_eq!((found.n_tensors, found.n_checked), (3, 3));
        assert!(
            verify(&path, &fast(), &no_progress).unwrap().problems.is_empty(),
            "the structure is intact"
        );

        let error = decompress_bytes(&damaged, 2).unwrap_err();
        assert_eq!((error.tensor.as_deref(), error.block), (Some("b"), Some(block as u64)));
    }
}

#[test]
fn blocks_are_counted_through_all_chunks() {
    let checkpoint = several_blocks((1 << 22) + 70_000);
    let (_, packed) = compressed(&checkpoint, Mode::Inference);
    let places = block_places(&packed, "b");
    assert_eq!(places.len(), 66);
    for block in [0, 63, 64, 65] {
        let mut damaged = packed.clone();
        damaged[places[block].end - 1] ^= 1;
        let reader = Reader::open(&damaged[..]).unwrap();
        let mut loaded = load(&reader, &[1], 2, &no_progress).unwrap();
        let error = loaded.remove(0).err().unwrap();
        assert_eq!((error.tensor.as_deref(), error.block), (Some("b"), Some(block as u64)), "{error}");
    }
}

#[test]
fn verify_tells_all_that_is_wrong() {
    let (_, packed) = files().remove(0);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bs");
    let check = |file: &[u8]| {
        std::fs::write(&path, file).unwrap();
        let found = verify(&path, &VerifyOptions::default(), &no_progress).unwrap();
        found
            .problems
            .into_iter()
            .map(|problem| problem.tensor.unwrap_or_default())
            .collect::<Vec<_>>()
    };
    assert_eq!(check(&packed), [""; 0]);
    let mut damaged = packed.clone();
    for (_, range) in blobs(&packed) {
        damaged[range.end as usize - 1] ^= 0x40;
    }
    // Those that share a pack or a tie are all damaged; what has no blob is not.
    assert_eq!(
        check(&damaged),
        [
            "planes", "tied", "pack.0", "pack.1", "palette", "sparse", "rows", "sequence", "noise"
        ]
    );
    let gap = Reader::open(&packed[..])
        .unwrap()
        .header()
        .gaps
        .iter()
        .find(|gap| !gap.is_empty())
        .unwrap()
        .start as usize;
    let mut damaged = packed.clone();
    damaged[gap] = 1;
    assert_eq!(check(&damaged), [""]);
    assert_eq!(check(&packed[..packed.len() - 1]), [""]);
    assert_eq!(check(b""), [""]);
}

#[test]
fn foreign_files_have_their_own_errors() {
    let (source, packed) = files().remove(0);
    let versioned = |version: u16| [&b"BGSM"[..], &version.to_le_bytes(), &packed[6..]].concat();
    let published = [&b"BGSM\x02\x00"[..], &20u32.to_le_bytes(), br#"{"tensor_count": 0}  "#].concat();
    for (what, file, kind, words) in [
        ("empty", vec![], "Format", "empty"),
        ("short", b"BGS".to_vec(), "Format", "too short"),
        ("a checkpoint", source, "Format", "not a .bs file"),
        ("text", b"hello, this is some text".to_vec(), "Format", "not a .bs file"),
        ("zeros", vec![0; 100], "Format", "not a .bs file"),
        (
            "a header beyond the end",
            b"BGSM\x10\x00\xFF\xFF\x00\x00{}".to_vec(),
            "Format",
            "truncated",
        ),
        (
            "a header beyond all bounds",
            b"BGSM\x10\x00\xFF\xFF\xFF\xFF{}".to_vec(),
            "Format",
            "longer than",
        ),
        ("version 1", versioned(1), "Format", "not what it should be"),
        ("a published file", published, "Format", "not what it should be"),
        ("version 0", versioned(0), "Version", "version 0"),
        ("version 18", versioned(18), "Version", "version 18"),
        ("version 65535", versioned(65535), "Version", "version 65535"),
    ] {
        let error = Reader::open(&file[..]).err().unwrap_or_else(|| panic!("{what} is opened"));
        assert_eq!(format!("{:?}", error.kind), kind, "{what}: {error}");
        assert!(error.message.contains(words), "{what}: {error}");
    }
    let error = compress_bytes(&packed, &Options::default()).unwrap_err();
    assert!(matches!(error.kind, Kind::Source) && error.message.contains("already"), "{error}");
}
