//! Files that were written once are read for ever: those in `tests/golden/` are added to and never rewritten.
//!
//! `cargo test --test golden -- --ignored` writes the files of [`sources`] that are missing, and no other.

mod checkpoint;

use bigsmall::{Dtype, Isa, Mode, Options, compress_bytes, decompress_bytes_with};
use checkpoint::values::Values;
use checkpoint::{Checkpoint, every_codec};
use md5::{Digest, Md5};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

/// Each file's name, its MD5 and that of its source.
const MANIFEST: &str = "MANIFEST";

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden", name].iter().collect()
}

fn digest(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digests of every file, by its name.
fn manifest() -> BTreeMap<String, [String; 2]> {
    let text = fs::read_to_string(path(MANIFEST)).unwrap_or_default();
    let line = |line: &str| {
        let [file, source, name] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line:?} is not a line of a manifest")
        };
        (name.to_owned(), [file.to_owned(), source.to_owned()])
    };
    text.lines().map(line).collect()
}

#[test]
fn old_files_are_read() {
    let manifest = manifest();
    assert!(!manifest.is_empty(), "{} is missing", path(MANIFEST).display());
    for (name, digests) in &manifest {
        let packed = fs::read(path(name)).unwrap();
        assert_eq!(digest(&packed), digests[0], "{name} was rewritten");
        for isa in Isa::available() {
            let back = decompress_bytes_with(&packed, 2, isa).unwrap_or_else(|error| panic!("{name}, {isa}: {error}"));
            assert_eq!(digest(&back), digests[1], "{name}, {isa}");
        }
    }
    // Files of the published package lie in a directory of their own.
    let entries = fs::read_dir(path(""))
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_file());
    let files = entries.map(|entry| entry.file_name().into_string().unwrap());
    let unknown: Vec<String> = files.filter(|name| name != MANIFEST && !manifest.contains_key(name)).collect();
    assert!(unknown.is_empty(), "not in the manifest: {unknown:?}");
}

/// What the files were made of.
fn sources() -> Vec<(&'static str, Mode, Vec<u8>)> {
    let add = |checkpoint: Checkpoint, name: &str, values: Values, dtype, shape: &[u64]| {
        let n = shape.iter().product();
        checkpoint.tensor(name, dtype, shape, values.bytes(dtype, n, n / shape[0], n))
    };
    let mut dtypes = Checkpoint::default().metadata("format", "pt");
    for dtype in Dtype::all() {
        dtypes = add(dtypes, dtype.name(), Values::Normal, dtype, &[12, 40]);
    }
    let low_bytes = [
        (Dtype::F32, Values::Widened),
        (Dtype::F64, Values::Widened),
        (Dtype::C64, Values::RowScaled),
        (Dtype::U32, Values::RowsAlike),
    ];
    let low_bytes = low_bytes.into_iter().fold(Checkpoint::default(), |all, (dtype, values)| {
        add(all, dtype.name(), values, dtype, &[24, 250])
    });
    let classes = add(Checkpoint::default(), "classes", Values::RowScaled, Dtype::BF16, &[400, 180]);
    let kernels = add(Checkpoint::default(), "kernels", Values::RowScaled, Dtype::F16, &[24, 16, 3, 3]);
    let patches = add(Checkpoint::default(), "patches", Values::Extremes, Dtype::BF16, &[60, 100]);
    // Scales that change with the input channel, for which another order is smaller.
    let orders = Values::RowScaled.bytes(Dtype::F16, 24 * 180, 9, 7);
    let orders = Checkpoint::default().tensor("conv", Dtype::F16, &[24, 20, 3, 3], orders);
    let contexts = [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F8_E4M3]
        .into_iter()
        .fold(Checkpoint::default(), |all, dtype| {
            add(all, dtype.name(), Values::RowScaled, dtype, &[60, 100])
        });
    let odd = add(
        Checkpoint::default().metadata("über", "\u{1}"),
        "\"重み\"",
        Values::Normal,
        Dtype::F8_E5M2,
        &[40, 9],
    );
    let odd_header = format!(" {{ {} }}\n", odd.header_items().join(",\n")).replacen(' ', "", 1);
    vec![
        ("every-codec-balanced.bs", Mode::Balanced, every_codec().to_bytes()),
        ("every-codec-inference.bs", Mode::Inference, every_codec().to_bytes()),
        ("dtypes.bs", Mode::Balanced, dtypes.to_bytes()),
        ("low-bytes.bs", Mode::Balanced, low_bytes.to_bytes()),
        ("every-codec-storage.bs", Mode::Storage, every_codec().to_bytes()),
        ("orders.bs", Mode::Balanced, orders.to_bytes()),
        ("contexts.bs", Mode::Storage, contexts.to_bytes()),
        ("classes.bs", Mode::Balanced, classes.to_bytes()),
        ("kernels.bs", Mode::Balanced, kernels.to_bytes()),
        ("patches.bs", Mode::Inference, patches.to_bytes()),
        ("odd-header.bs", Mode::Balanced, odd.with_header(odd_header.as_bytes())),
        ("no-tensors.bs", Mode::Balanced, Checkpoint::default().to_bytes()),
    ]
}

#[test]
#[ignore = "writes files that are missing"]
fn write_missing_files() {
    for (name, mode, source) in sources() {
        // Existing files are kept whatever this release would write.
        let Ok(mut file) = File::create_new(path(name)) else { continue };
        let packed = compress_bytes(
            &source,
            &Options {
                mode,
                ..Options::default()
            },
        )
        .unwrap();
        file.write_all(&packed).unwrap();
        let mut manifest = File::options().append(true).create(true).open(path(MANIFEST)).unwrap();
        writeln!(manifest, "{} {} {name}", digest(&packed), digest(&source)).unwrap();
    }
}
