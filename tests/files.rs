//! Files on disk: outputs appear whole or not at all, and nothing that stands there is lost.

mod checkpoint;

use bigsmall::{
    Dtype, Error, FileSource, Format, Kind, Mode, Options, Reader, VerifyOptions, compress, decompress, no_progress, scan, verify,
};
use checkpoint::values::Values;
use checkpoint::{Checkpoint, every_codec};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;

const OPTIONS: Options = Options {
    mode: Mode::Balanced,
    format: Format::Current,
    force: false,
    threads: 2,
};
const FORCE: Options = Options { force: true, ..OPTIONS };

/// A directory with a checkpoint in it.
fn directory() -> (TempDir, PathBuf, Vec<u8>) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.safetensors");
    let source = every_codec().to_bytes();
    fs::write(&path, &source).unwrap();
    (directory, path, source)
}

/// The names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn is_io(error: &Error, kind: ErrorKind) -> bool {
    matches!(&error.kind, Kind::Io(error) if error.kind() == kind)
}

#[test]
fn a_file_comes_back() {
    let (directory, path, source) = directory();
    let (packed, back) = (directory.path().join("model.bs"), directory.path().join("back.safetensors"));
    let summary = compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    assert_eq!(
        (summary.source_bytes, summary.n_tensors),
        (source.len() as u64, every_codec().tensors.len())
    );
    assert_eq!(summary.compressed_bytes, fs::metadata(&packed).unwrap().len());
    assert_eq!(summary.outputs, std::slice::from_ref(&packed));
    let summary = decompress(&packed, &back, &OPTIONS, &no_progress).unwrap();
    assert_eq!((summary.source_bytes, summary.outputs), (source.len() as u64, vec![back.clone()]));
    assert!(fs::read(&back).unwrap() == source);
    assert_eq!(names(directory.path()), ["back.safetensors", "model.bs", "model.safetensors"]);
}

#[test]
fn files_that_are_not_held_in_memory_come_back() {
    // Above 64 MiB blobs are written before the header, whose length is then not known. Constants and ties make such a file cheap.
    let weights = Values::RowScaled.bytes(Dtype::BF16, 300 * 400, 400, 1);
    let mut checkpoint = every_codec()
        .tensor("weight", Dtype::BF16, &[300, 400], weights)
        .tensor("zeros", Dtype::F32, &[1 << 24], vec![0; 1 << 26])
        .tensor(
            "noise.large",
            Dtype::U16,
            &[3 << 19],
            Values::Random.bytes(Dtype::U16, 3 << 19, 1, 2),
        );
    for i in 0..50 {
        checkpoint = checkpoint.tensor(&format!("norm.{i}"), Dtype::F16, &[9], Values::Normal.bytes(Dtype::F16, 9, 1, i));
    }
    let source = checkpoint.to_bytes();
    let directory = tempfile::tempdir().unwrap();
    let [path, packed, back] = ["model.safetensors", "model.bs", "back.safetensors"].map(|name| directory.path().join(name));
    fs::write(&path, &source).unwrap();
    let summary = compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    assert_eq!(summary.compressed_bytes, fs::metadata(&packed).unwrap().len());
    decompress(&packed, &back, &OPTIONS, &no_progress).unwrap();
    assert!(fs::read(&back).unwrap() == source);
    assert_eq!(verify(&packed, &VerifyOptions::default(), &no_progress).unwrap().problems, []);
    assert_eq!(names(directory.path()), ["back.safetensors", "model.bs", "model.safetensors"]);
}

#[test]
fn what_does_not_compress_hardly_grows_in_files_that_are_not_held_in_memory() {
    // Room for the longest header of so many tensors would be more than the file may grow.
    const N_TENSORS: usize = 1025;
    const N_BYTES: usize = 1 << 16;
    let noise = Values::Random.bytes(Dtype::F8_E8M0, (N_TENSORS * N_BYTES) as u64, 1, 3);
    let mut checkpoint = Checkpoint::default();
    for (i, bytes) in noise.chunks(N_BYTES).enumerate() {
        checkpoint = checkpoint.tensor(&i.to_string(), Dtype::F8_E8M0, &[N_BYTES as u64], bytes.to_vec());
    }
    let source = checkpoint.to_bytes();
    let directory = tempfile::tempdir().unwrap();
    let [path, packed, back] = ["model.safetensors", "model.bs", "back.safetensors"].map(|name| directory.path().join(name));
    fs::write(&path, &source).unwrap();
    let summary = compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    assert_eq!(summary.compressed_bytes, fs::metadata(&packed).unwrap().len());
    assert!(
        summary.compressed_bytes <= summary.source_bytes + summary.source_bytes / 10_000 + 4096,
        "{summary:?}"
    );
    decompress(&packed, &back, &OPTIONS, &no_progress).unwrap();
    assert!(fs::read(&back).unwrap() == source);
}

#[test]
fn an_existing_output_is_kept_unless_forced() {
    let (directory, path, source) = directory();
    let packed = directory.path().join("model.bs");
    fs::write(&packed, "precious").unwrap();
    let error = compress(&path, &packed, &OPTIONS, &no_progress).unwrap_err();
    assert!(
        is_io(&error, ErrorKind::AlreadyExists) && error.path.as_ref() == Some(&packed),
        "{error:?}"
    );
    assert_eq!(fs::read(&packed).unwrap(), b"precious");
    compress(&path, &packed, &FORCE, &no_progress).unwrap();
    assert!(fs::read(&packed).unwrap().starts_with(b"BGSM"));

    let back = directory.path().join("back.safetensors");
    fs::write(&back, "precious").unwrap();
    let error = decompress(&packed, &back, &OPTIONS, &no_progress).unwrap_err();
    assert!(is_io(&error, ErrorKind::AlreadyExists), "{error:?}");
    assert_eq!(fs::read(&back).unwrap(), b"precious");
    decompress(&packed, &back, &FORCE, &no_progress).unwrap();
    assert!(fs::read(&back).unwrap() == source);
}

#[test]
fn a_forced_output_is_kept_when_its_replacement_fails() {
    let (directory, path, _) = directory();
    let packed = directory.path().join("model.bs");
    compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    let mut damaged = fs::read(&packed).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(&packed, damaged).unwrap();
    let before = fs::read(&path).unwrap();
    let error = decompress(&packed, &path, &FORCE, &no_progress).unwrap_err();
    assert!(
        matches!(error.kind, Kind::Corrupt) && error.path.as_ref() == Some(&packed),
        "{error:?}"
    );
    assert!(fs::read(&path).unwrap() == before);
    assert_eq!(names(directory.path()), ["model.bs", "model.safetensors"]);
}

#[test]
fn nothing_is_left_behind_by_what_fails() {
    let (directory, path, source) = directory();
    let root = directory.path();
    let target = root.join("model.bs");
    let missing = root.join("missing.safetensors");
    let error = compress(&missing, &target, &OPTIONS, &no_progress).unwrap_err();
    assert!(
        is_io(&error, ErrorKind::NotFound) && error.path.as_ref() == Some(&missing),
        "{error:?}"
    );
    let error = compress(&path, &root.join("missing").join("model.bs"), &OPTIONS, &no_progress).unwrap_err();
    assert!(is_io(&error, ErrorKind::NotFound), "{error:?}");
    let error = compress(&path, &path, &FORCE, &no_progress).unwrap_err();
    assert!(matches!(error.kind, Kind::Option), "{error:?}");
    let error = compress(&path, root, &FORCE, &no_progress).unwrap_err();
    assert!(is_io(&error, ErrorKind::IsADirectory), "{error:?}");

    let broken = root.join("broken.safetensors");
    for (what, bytes) in [
        ("an empty file", vec![]),
        ("text", b"no checkpoint".to_vec()),
        ("one byte less", source[..source.len() - 1].to_vec()),
        ("one byte more", [&source[..], b"x"].concat()),
        ("a header beyond the end", [&u64::MAX.to_le_bytes()[..], &source[8..]].concat()),
        ("an unknown dtype", checkpoint_with("\"BF17\"")),
    ] {
        fs::write(&broken, &bytes).unwrap();
        let error = compress(&broken, &target, &OPTIONS, &no_progress).unwrap_err();
        assert!(
            matches!(error.kind, Kind::Source) && error.path.as_ref() == Some(&broken),
            "{what}: {error:?}"
        );
        let error = decompress(&broken, &root.join("back"), &OPTIONS, &no_progress).unwrap_err();
        assert!(
            matches!(error.kind, Kind::Format) && error.path.as_ref() == Some(&broken),
            "{what}: {error:?}"
        );
        assert!(scan(&broken, Mode::Balanced, 1, &no_progress).is_err());
    }
    assert_eq!(names(root), ["broken.safetensors", "model.safetensors"]);
    assert!(fs::read(&path).unwrap() == source);
}

/// A checkpoint whose only tensor has that for a dtype.
fn checkpoint_with(dtype: &str) -> Vec<u8> {
    let header = format!(r#"{{"a":{{"dtype":{dtype},"shape":[2],"data_offsets":[0,4]}}}}"#);
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}

#[test]
fn a_stop_leaves_nothing_behind() {
    let checkpoint = Checkpoint::default().tensor(
        "w",
        Dtype::BF16,
        &[3000, 4096],
        Values::Sequential.bytes(Dtype::BF16, 3000 * 4096, 1, 0),
    );
    let directory = tempfile::tempdir().unwrap();
    let [path, packed, back] = ["model.safetensors", "model.bs", "back.safetensors"].map(|name| directory.path().join(name));
    fs::write(&path, checkpoint.to_bytes()).unwrap();
    let stop = |_, _| false;
    let error = compress(&path, &packed, &OPTIONS, &stop).unwrap_err();
    assert!(matches!(error.kind, Kind::Interrupted), "{error:?}");
    assert_eq!(names(directory.path()), ["model.safetensors"]);
    compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    let error = decompress(&packed, &back, &OPTIONS, &stop).unwrap_err();
    assert!(matches!(error.kind, Kind::Interrupted), "{error:?}");
    assert_eq!(names(directory.path()), ["model.bs", "model.safetensors"]);
}

#[test]
fn progress_ends_with_all_of_it() {
    let (directory, path, _) = directory();
    let raw_bytes: u64 = every_codec().tensors.iter().map(|tensor| tensor.bytes.len() as u64).sum();
    let (done, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let note = |now: u64, of: u64| {
        assert!(now >= done.swap(now, Ordering::Relaxed) && now <= of);
        total.store(of, Ordering::Relaxed);
        true
    };
    compress(&path, &directory.path().join("model.bs"), &OPTIONS, &note).unwrap();
    assert_eq!((done.into_inner(), total.into_inner()), (raw_bytes, raw_bytes));
}

#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    let (directory, path, _) = directory();
    let packed = directory.path().join("model.bs");
    compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    let reader = Reader::open(FileSource::open(&packed).unwrap()).unwrap();
    let file = fs::File::options().write(true).open(&packed).unwrap();
    file.set_len(2000).unwrap();
    let last = reader.header().entries.len() - 1;
    let mut words = vec![0; reader.header().entries[last].raw_bytes as usize];
    let error = reader.read_words(last, 0..words.len() as u64, &mut words).unwrap_err();
    assert!(
        is_io(&error, ErrorKind::UnexpectedEof) && error.tensor.as_deref() == Some("noise"),
        "{error:?}"
    );
}

#[cfg(unix)]
#[test]
fn outputs_have_the_rights_of_new_files() {
    use std::os::unix::fs::PermissionsExt;
    let (directory, path, _) = directory();
    let packed = directory.path().join("model.bs");
    compress(&path, &packed, &OPTIONS, &no_progress).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&packed), mode(&path));
}
