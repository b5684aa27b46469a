//! Files of the published package: those in `tests/golden/published/`, and all that are beside the repository, if they are there.

mod memory;

use bigsmall::{FileSource, Options, Reader, Weights, decompress_bytes, no_progress};
use md5::{Digest, Md5};
use memory::largest_request;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Memory that opening or decoding a small file may ask for at once, whatever it says.
const SMALL: usize = 4 << 20;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Containers in a directory and those below.
fn containers(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(containers(&path));
        } else if path.extension().is_some_and(|end| end == "bs" || end == "bsr" || end == "bsd") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn golden() -> Vec<PathBuf> {
    let found = containers(&root("tests/golden/published"));
    assert!(!found.is_empty());
    found
}

/// All files there are; those beside the repository are not part of it.
fn all() -> Vec<(PathBuf, Vec<u8>)> {
    let paths = golden().into_iter().chain(containers(&root("../shared/published")));
    paths.map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

fn digest(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the file was made of. Patches are on the model in `delta-base.bs`.
fn source(path: &Path) -> Vec<u8> {
    let packed = fs::read(path).unwrap();
    if !["delta.bs", "delta-of-itself.bs"].contains(&&*name(path)) {
        return decompress_bytes(&packed, 2).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let base = Weights::open(&path.with_file_name("delta-base.bs")).unwrap();
    let reader = Reader::open_on(&packed[..], Arc::new(base)).unwrap();
    let header = &reader.header().source_header;
    let mut source = [&(header.len() as u64).to_le_bytes()[..], header].concat();
    for (tensor, entry) in reader.header().entries.iter().enumerate() {
        let at = source.len();
        source.resize(at + entry.raw_bytes as usize, 0);
        reader.read_words(tensor, 0..entry.n_words(), &mut source[at..]).unwrap();
    }
    source
}

/// The digests of each file and of its source, by its name.
fn manifest() -> BTreeMap<String, [String; 2]> {
    let text = fs::read_to_string(root("tests/golden/published/MANIFEST")).unwrap_or_default();
    let line = |line: &str| {
        let [file, source, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line:?} is not a line of a manifest")
        };
        (name.to_owned(), [file.to_owned(), source.to_owned()])
    };
    text.lines().map(line).collect()
}

fn name(path: &Path) -> String {
    path.strip_prefix(root("tests/golden/published"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

#[test]
fn every_file_is_read() {
    let manifest = manifest();
    for path in golden() {
        let digests = &manifest
            .get(&name(&path))
            .unwrap_or_else(|| panic!("{} is not in the manifest", path.display()));
        assert_eq!(digest(&fs::read(&path).unwrap()), digests[0], "{} was rewritten", path.display());
        assert_eq!(digest(&source(&path)), digests[1], "{}", path.display());
    }
}

#[test]
#[ignore = "adds files that are not in the manifest"]
fn write_manifest() {
    let known = manifest();
    let mut file = fs::File::options()
        .append(true)
        .create(true)
        .open(root("tests/golden/published/MANIFEST"))
        .unwrap();
    for path in golden() {
        if !known.contains_key(&name(&path)) {
            writeln!(
                file,
                "{} {} {}",
                digest(&fs::read(&path).unwrap()),
                digest(&source(&path)),
                name(&path)
            )
            .unwrap();
        }
    }
}

#[test]
fn patches_need_their_base() {
    for (_, packed) in all().into_iter().filter(|(path, _)| path.to_str().unwrap().contains("delta")) {
        let reader = Reader::open(&packed[..]).unwrap();
        let Some(base) = &reader.header().base else { continue };
        let other = Weights::open(&root("tests/golden/published/f16.bs")).unwrap();
        let on_other = Reader::open_on(&packed[..], Arc::new(other)).unwrap();
        for (tensor, entry) in reader.header().entries.iter().enumerate() {
            if reader.header().codec_name(tensor) != "zstd_xor_delta" || entry.raw_bytes == 0 {
                continue;
            }
            let mut words = vec![0; entry.raw_bytes as usize];
            let error = reader.read_words(tensor, 0..entry.n_words(), &mut words).unwrap_err();
            assert!(matches!(error.kind, bigsmall::Kind::Base), "{error}");
            assert!(error.message.contains(base.as_str()), "{error}");
            assert_eq!(error.tensor.as_deref(), Some(&*entry.name));
            let error = on_other.read_words(tensor, 0..entry.n_words(), &mut words).unwrap_err();
            assert!(matches!(error.kind, bigsmall::Kind::Base), "{error}");
        }
    }
}

#[test]
fn patches_are_read_on_their_base() {
    let shared = root("../shared/published");
    let Ok(base) = Weights::open(&shared.join("src/bf16.safetensors")) else {
        println!("skipped: the published package's files are not beside the repository");
        return;
    };
    let base = Arc::new(base);
    for path in containers(&shared)
        .into_iter()
        .filter(|path| path.to_str().unwrap().contains("delta"))
    {
        let reader = Reader::open_on(FileSource::open(&path).unwrap(), base.clone()).unwrap();
        for (tensor, entry) in reader.header().entries.iter().enumerate() {
            let read = reader.read_words(tensor, 0..entry.n_words(), &mut vec![0; entry.raw_bytes as usize]);
            read.unwrap_or_else(|error| panic!("{error}"));
        }
    }
}

#[test]
fn a_base_with_other_words_is_refused() {
    let path = root("tests/golden/published/delta-of-itself.bs");
    let mut base = source(&root("tests/golden/published/delta-base.bs"));
    let last = base.len() - 1;
    base[last] ^= 1;
    let packed = fs::read(&path).unwrap();
    let reader = Reader::open_on(&packed[..], Arc::new(Weights::of_bytes(base).unwrap())).unwrap();
    let tensor = reader.header().entries.len() - 1;
    let entry = &reader.header().entries[tensor];
    let error = reader.read_words(tensor, 0..entry.n_words(), &mut vec![0; entry.raw_bytes as usize]);
    assert!(matches!(error.unwrap_err().kind, bigsmall::Kind::Base));
}

#[test]
fn parts_are_those_of_the_whole() {
    for path in golden() {
        let packed = fs::read(&path).unwrap();
        let reader = Reader::open(&packed[..]).unwrap();
        for (tensor, entry) in reader.header().entries.iter().enumerate() {
            let width = entry.dtype.layout().word_bytes();
            let n = entry.n_words();
            let mut whole = vec![0; entry.raw_bytes as usize];
            if reader.read_words(tensor, 0..n, &mut whole).is_err() {
                assert!(reader.header().base.is_some(), "{}", path.display());
                continue;
            }
            for range in [0..n / 2, n / 3..n, n / 2..n / 2] {
                let mut part = vec![0; (range.end - range.start) as usize * width];
                reader.read_words(tensor, range.clone(), &mut part).unwrap();
                assert!(part == whole[range.start as usize * width..range.end as usize * width]);
            }
        }
    }
}

#[test]
fn directories_have_the_tensors_that_their_shards_leave_out() {
    let directory = root("tests/golden/published/hub");
    let index: serde_json::Value = serde_json::from_slice(&fs::read(directory.join("bigsmall.index.json")).unwrap()).unwrap();
    let named: BTreeSet<&str> = index["weight_map"].as_object().unwrap().keys().map(String::as_str).collect();
    let duplicates = index["metadata"]["duplicate_map"].as_object().unwrap();
    assert!(!duplicates.is_empty());
    let weights = Weights::open(&directory).unwrap();
    assert_eq!(weights.tensors().iter().map(|tensor| &*tensor.name).collect::<BTreeSet<_>>(), named);
    let words = |name: &str| {
        let tensor = weights.named(name).unwrap();
        weights.words(tensor, 0..weights.tensors()[tensor].n_words()).unwrap()
    };
    for (name, master) in duplicates {
        assert!(words(name) == words(master["master"].as_str().unwrap()), "{name}");
    }
    let found = bigsmall::verify(&directory, &bigsmall::VerifyOptions::default(), &no_progress).unwrap();
    assert_eq!((found.problems, found.n_tensors), (vec![], named.len()));
    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("model");
    bigsmall::decompress(&directory, &target, &Options::default(), &no_progress).unwrap();
    let restored = Weights::open(&target).unwrap();
    assert_eq!(restored.tensors().len(), named.len());
    for (tensor, described) in restored.tensors().iter().enumerate() {
        assert!(
            restored.mapped(tensor).unwrap() == &words(&described.name)[..],
            "{}",
            described.name
        );
    }
    let restored: serde_json::Value = serde_json::from_slice(&fs::read(target.join("model.safetensors.index.json")).unwrap()).unwrap();
    for (name, file) in index["weight_map"].as_object().unwrap() {
        let source = file.as_str().unwrap().replace(".bs", ".safetensors");
        assert_eq!(restored["weight_map"][name], source.as_str());
    }
}

/// Where the data begins.
fn data_start(packed: &[u8]) -> usize {
    10 + u32::from_le_bytes(packed[6..10].try_into().unwrap()) as usize
}

/// Places of a file of so many bytes, a different few for each seed.
fn places(n_places: usize, from: usize, to: usize, seed: usize) -> impl Iterator<Item = usize> {
    let mut state = seed as u64 + 1;
    (0..if from < to { n_places } else { 0 }).map(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        from + ((state >> 33) as usize) % (to - from)
    })
}

#[test]
fn truncated_files_are_refused_with_the_tensor_that_is_cut() {
    for (seed, (path, packed)) in all().into_iter().enumerate() {
        let start = data_start(&packed);
        for n_bytes in places(8, 0, start, seed) {
            let (opened, most) = largest_request(|| Reader::open(&packed[..n_bytes]).map(drop));
            assert!(opened.is_err() && most < SMALL, "{}: {n_bytes} bytes", path.display());
        }
        let last = (1..16).map(|n| packed.len().saturating_sub(n)).filter(|&n| n >= start);
        for n_bytes in places(20, start, packed.len(), seed).chain(last) {
            let error = Reader::open(&packed[..n_bytes]).map(drop).unwrap_err();
            assert!(error.tensor.is_some(), "{}: {n_bytes} bytes: {error}", path.display());
        }
    }
}

/// Reads every tensor of a file that may be damaged. Errors must name their tensor; whatever is read without one must be what `intact` has.
fn read_damaged(path: &Path, damaged: &[u8], intact: Option<&BTreeMap<String, Vec<u8>>>) {
    let Ok(reader) = Reader::open(damaged) else { return };
    for (tensor, entry) in reader.header().entries.iter().enumerate() {
        if entry.raw_bytes > SMALL as u64 {
            continue;
        }
        let mut words = vec![0; entry.raw_bytes as usize];
        let (read, most) = largest_request(|| reader.read_words(tensor, 0..entry.n_words(), &mut words));
        assert!(most < SMALL, "{}: {most} bytes of memory", path.display());
        match (read, intact) {
            (Err(error), _) => assert_eq!(error.tensor.as_deref(), Some(&*entry.name), "{}", path.display()),
            (Ok(()), Some(intact)) => assert!(words == intact[&entry.name], "{}: {}", path.display(), entry.name),
            (Ok(()), None) => assert_eq!(digest(&words), entry.md5.to_string()),
        }
    }
}

#[test]
fn flipped_bits_of_blobs_are_found() {
    for (seed, (path, packed)) in all().into_iter().enumerate() {
        let start = data_start(&packed);
        let reader = Reader::open(&packed[..]).unwrap();
        let read = |(tensor, entry): (usize, &bigsmall::container::header::Entry)| {
            let mut words = vec![0; entry.raw_bytes as usize];
            let _ = reader.read_words(tensor, 0..entry.n_words(), &mut words);
            (entry.name.clone(), words)
        };
        let intact: BTreeMap<String, Vec<u8>> = reader.header().entries.iter().enumerate().map(read).collect();
        for (i, at) in places(3, start, packed.len(), seed).enumerate() {
            let mut damaged = packed.clone();
            damaged[at] ^= 1 << (i % 8);
            read_damaged(&path, &damaged, Some(&intact));
        }
        // The first bytes of a blob say how long all others are.
        let blobs: Vec<usize> = (reader.header().entries.iter())
            .filter_map(|entry| match &entry.storage {
                bigsmall::container::header::Storage::Published(stored) => stored.ranges(&reader.header().groups).into_iter().next(),
                _ => None,
            })
            .map(|range| range.start as usize)
            .collect();
        for (i, which) in places(4, 0, blobs.len(), seed).enumerate() {
            let mut damaged = packed.clone();
            let at = (blobs[which] + 7 * i % 23).min(packed.len() - 1);
            damaged[at] ^= 1 << (i % 8);
            read_damaged(&path, &damaged, Some(&intact));
        }
    }
}

#[test]
fn flipped_bits_of_headers_are_refused_or_harmless() {
    for (seed, (path, packed)) in all().into_iter().enumerate() {
        for (i, at) in places(10, 0, data_start(&packed), seed).enumerate() {
            let mut damaged = packed.clone();
            damaged[at] ^= 1 << (i % 8);
            read_damaged(&path, &damaged, None);
        }
    }
}
