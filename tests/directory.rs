//! Model directories: shards, their index, and the files beside them.

mod checkpoint;

use bigsmall::{Dtype, Error, Format, Kind, Mode, Options, VerifyOptions, compress, decompress, no_progress, packed_files, verify};
use checkpoint::values::Values;
use checkpoint::{Checkpoint, every_codec};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const OPTIONS: Options = Options {
    mode: Mode::Balanced,
    format: Format::Current,
    force: false,
    threads: 2,
};
const FORCE: Options = Options { force: true, ..OPTIONS };
const SHARDS: [&str; 2] = ["model-00001-of-00002", "model-00002-of-00002"];

fn weights(name: &str, seed: u64) -> Checkpoint {
    let bytes = Values::RowScaled.bytes(Dtype::BF16, 64 * 100, 100, seed);
    Checkpoint::default()
        .metadata("format", "pt")
        .tensor(name, Dtype::BF16, &[64, 100], bytes)
}

/// A model of two shards, with an index that no library would lay out like that, and other files.
fn model() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    fs::create_dir_all(model.join("tokenizer/more")).unwrap();
    fs::create_dir(model.join(".git")).unwrap();
    fs::write(model.join(format!("{}.safetensors", SHARDS[0])), every_codec().to_bytes()).unwrap();
    fs::write(model.join(format!("{}.safetensors", SHARDS[1])), weights("lm_head", 5).to_bytes()).unwrap();
    fs::write(
        model.join("model.safetensors.index.json"),
        "{ \"weight_map\" : {\"lm_head\":\n\"model-00002-of-00002.safetensors\"}}\n",
    )
    .unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    fs::write(model.join("tokenizer/more/vocab.txt"), "a\nb\n").unwrap();
    fs::write(model.join("empty.txt"), "").unwrap();
    fs::write(model.join(".git/config"), "a tool's own").unwrap();
    (root, model)
}

/// Contents of all files beneath a directory, by their path in it; what begins with a dot is left out.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = PathBuf::from(path.file_name().unwrap());
        if name.to_str().unwrap().starts_with('.') {
            continue;
        }
        if path.is_dir() {
            files.extend(contents(&path).into_iter().map(|(inner, bytes)| (name.join(inner), bytes)));
        } else {
            files.insert(name, fs::read(&path).unwrap());
        }
    }
    files
}

fn is_io(error: &Error, kind: ErrorKind) -> bool {
    matches!(&error.kind, Kind::Io(error) if error.kind() == kind)
}

fn index(packed: &Path) -> Value {
    serde_json::from_slice(&fs::read(packed.join("bigsmall.index.json")).unwrap()).unwrap()
}

#[test]
fn a_model_comes_back() {
    let (root, model) = model();
    let (packed, back) = (root.path().join("packed"), root.path().join("back"));
    let summary = compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    assert_eq!(summary.n_tensors, every_codec().tensors.len() + 1);
    assert_eq!(summary.outputs, SHARDS.map(|shard| packed.join(format!("{shard}.bs"))));
    let names: Vec<String> = contents(&packed)
        .into_keys()
        .map(|path| path.to_str().unwrap().to_owned())
        .collect();
    let shards = SHARDS.map(|shard| format!("{shard}.bs"));
    let expected = [
        "bigsmall.index.json",
        "config.json",
        "empty.txt",
        &shards[0],
        &shards[1],
        "tokenizer/more/vocab.txt",
    ];
    assert_eq!(names, expected);
    let index = index(&packed);
    assert_eq!(
        (index["format"].as_str(), index["version"].as_u64()),
        (Some("bigsmall-index"), Some(1))
    );
    assert_eq!(index["weight_map"]["lm_head"], shards[1]);
    assert_eq!(index["weight_map"].as_object().unwrap().len(), summary.n_tensors);
    assert_eq!(packed_files(&packed).unwrap(), summary.outputs);
    let found = verify(&packed, &VerifyOptions::default(), &no_progress).unwrap();
    assert_eq!((found.problems.len(), found.n_checked), (0, summary.n_tensors));

    decompress(&packed, &back, &OPTIONS, &no_progress).unwrap();
    assert!(contents(&back) == contents(&model));
    let mut left: Vec<String> = fs::read_dir(root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["back", "model", "packed"]);
}

#[test]
fn a_model_may_become_one_file() {
    let (root, model) = model();
    let (packed, back) = (root.path().join("model.bs"), root.path().join("back.safetensors"));
    compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    decompress(&packed, &back, &OPTIONS, &no_progress).unwrap();
    let mut joined = every_codec();
    joined.tensors.extend(weights("lm_head", 5).tensors);
    assert!(fs::read(&back).unwrap() == joined.to_bytes());
}

#[test]
fn force_replaces_no_directory_that_is_not_an_output() {
    let (root, model) = model();
    let other = root.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("precious"), "").unwrap();
    let before = contents(root.path());
    for target in [root.path(), &other, &model] {
        let error = compress(&model, target, &FORCE, &no_progress).unwrap_err();
        assert!(matches!(error.kind, Kind::Option), "{error:?}");
        assert!(contents(root.path()) == before);
    }
}

#[test]
fn an_output_in_the_source_is_not_part_of_it() {
    let (_root, model) = model();
    let packed = model.join("packed");
    compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    let first = contents(&packed);
    compress(&model, &packed, &FORCE, &no_progress).unwrap();
    assert!(contents(&packed) == first);
}

#[cfg(unix)]
#[test]
fn what_cannot_be_copied_is_told_before_the_work() {
    let (root, model) = model();
    std::os::unix::fs::symlink("nowhere", model.join("dangling")).unwrap();
    let progress = |done: u64, _| {
        assert_eq!(done, 0);
        true
    };
    let error = compress(&model, &root.path().join("packed"), &OPTIONS, &progress).unwrap_err();
    assert!(is_io(&error, ErrorKind::NotFound), "{error:?}");
    assert_eq!(error.path, Some(model.join("dangling")));
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn an_existing_directory_is_kept_unless_forced() {
    let (root, model) = model();
    let packed = root.path().join("packed");
    fs::create_dir(&packed).unwrap();
    let error = compress(&model, &packed, &OPTIONS, &no_progress).unwrap_err();
    assert!(is_io(&error, ErrorKind::AlreadyExists), "{error:?}");
    compress(&model, &packed, &FORCE, &no_progress).unwrap();
    fs::write(packed.join("of an earlier run"), "").unwrap();
    compress(&model, &packed, &FORCE, &no_progress).unwrap();
    assert_eq!(contents(&packed).len(), 6);

    let file = root.path().join("file");
    fs::write(&file, "precious").unwrap();
    for options in [OPTIONS, FORCE] {
        let error = compress(&model, &file, &options, &no_progress).unwrap_err();
        assert!(matches!(error.kind, Kind::Io(_)), "{error:?}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 3);
}

#[test]
fn a_target_that_holds_the_source_is_refused() {
    let (root, model) = model();
    let packed = root.path().join("packed");
    compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    let before = contents(root.path());
    for target in [root.path(), &root.path().join("model/..")] {
        for result in [
            compress(&model, target, &FORCE, &no_progress),
            decompress(&packed, target, &FORCE, &no_progress),
        ] {
            let error = result.unwrap_err();
            assert!(matches!(error.kind, Kind::Option), "{error:?}");
        }
    }
    assert!(contents(root.path()) == before);
}

#[test]
fn all_indices_come_back() {
    let (root, model) = model();
    fs::write(model.join("a.safetensors.index.json"), "{\"weight_map\":{}}").unwrap();
    fs::write(model.join("z.safetensors.index.json"), "not JSON").unwrap();
    let (packed, back) = (root.path().join("packed"), root.path().join("back"));
    compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    decompress(&packed, &back, &OPTIONS, &no_progress).unwrap();
    assert!(contents(&back) == contents(&model));
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let (root, model) = model();
    fs::write(model.join("another.safetensors"), weights("lm_head", 6).to_bytes()).unwrap();
    for target in ["packed", "model.bs"] {
        let error = compress(&model, &root.path().join(target), &OPTIONS, &no_progress).unwrap_err();
        assert!(
            matches!(error.kind, Kind::Source) && error.tensor.as_deref() == Some("lm_head"),
            "{error:?}"
        );
        assert!(error.path.is_some());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }
}

#[test]
fn a_damaged_shard_is_named_and_nothing_is_restored() {
    let (root, model) = model();
    let (packed, back) = (root.path().join("packed"), root.path().join("back"));
    compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    let shard = packed.join(format!("{}.bs", SHARDS[1]));
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, &bytes).unwrap();
    let found = verify(&packed, &VerifyOptions::default(), &no_progress).unwrap();
    let [problem] = &found.problems[..] else {
        panic!("one problem: {:?}", found.problems)
    };
    assert_eq!((&problem.path, problem.tensor.as_deref()), (&shard, Some("lm_head")));
    let error = decompress(&packed, &back, &OPTIONS, &no_progress).unwrap_err();
    assert!(
        matches!(error.kind, Kind::Corrupt) && error.path.as_ref() == Some(&shard),
        "{error:?}"
    );
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2);
}

#[test]
fn a_directory_without_weights_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let model = root.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    for result in [
        compress(&model, &root.path().join("packed"), &OPTIONS, &no_progress).map(|_| ()),
        compress(&model, &root.path().join("model.bs"), &OPTIONS, &no_progress).map(|_| ()),
        decompress(&model, &root.path().join("back"), &OPTIONS, &no_progress).map(|_| ()),
        verify(&model, &VerifyOptions::default(), &no_progress).map(|_| ()),
        packed_files(&model).map(|_| ()),
    ] {
        let error = result.unwrap_err();
        assert!(
            is_io(&error, ErrorKind::NotFound) && error.path.as_ref() == Some(&model),
            "{error:?}"
        );
    }
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
}

#[test]
fn an_index_that_lies_is_refused() {
    let (root, model) = model();
    let (packed, back) = (root.path().join("packed"), root.path().join("back"));
    compress(&model, &packed, &OPTIONS, &no_progress).unwrap();
    let intact = index(&packed);
    let outside = root.path().join("outside.bs");
    fs::copy(packed.join(format!("{}.bs", SHARDS[0])), &outside).unwrap();
    let shard = |field: &str| intact["shards"][0][field].clone();
    let edits: [(&str, &str, Value); 14] = [
        ("a shard elsewhere", "/shards/0/file", "../outside.bs".into()),
        ("a shard at the root", "/shards/0/file", outside.to_str().unwrap().into()),
        ("a source elsewhere", "/shards/0/source", "../escaped.safetensors".into()),
        ("a source that is none", "/shards/0/source", "".into()),
        ("a source that is this directory", "/shards/0/source", ".".into()),
        // One file may not take the place of another.
        ("a source of another shard", "/shards/1/source", shard("source")),
        ("a shard twice", "/shards/1/file", shard("file")),
        ("another file for a source", "/shards/1/source", "config.json".into()),
        ("a shard for the index", "/source_index/file", shard("source")),
        ("a tensor in no shard", "/weight_map/lm_head", "gone.bs".into()),
        ("an index elsewhere", "/source_index/file", "../escaped.json".into()),
        ("another format", "/format", "zip".into()),
        ("a later version", "/version", 2.into()),
        ("shards that are none", "/shards", 3.into()),
    ];
    for (what, place, value) in edits {
        let mut index = intact.clone();
        *index.pointer_mut(place).unwrap() = value;
        fs::write(packed.join("bigsmall.index.json"), index.to_string()).unwrap();
        for error in [
            decompress(&packed, &back, &FORCE, &no_progress).expect_err(what),
            verify(&packed, &VerifyOptions::default(), &no_progress).expect_err(what),
        ] {
            assert!(matches!(error.kind, Kind::Format | Kind::Version), "{what}: {error:?}");
            assert_eq!(error.path, Some(packed.join("bigsmall.index.json")), "{what}");
        }
        assert!(!back.exists() && !root.path().join("escaped.safetensors").exists() && !root.path().join("escaped.json").exists());
    }
    // A shard that is gone, and tensors that are elsewhere.
    let mut index = intact.clone();
    index["shards"][1]["file"] = "gone.bs".into();
    index["weight_map"]["lm_head"] = "gone.bs".into();
    fs::write(packed.join("bigsmall.index.json"), index.to_string()).unwrap();
    assert!(is_io(
        &decompress(&packed, &back, &OPTIONS, &no_progress).unwrap_err(),
        ErrorKind::NotFound
    ));
    let mut index = intact;
    index["weight_map"]["lm_head"] = format!("{}.bs", SHARDS[0]).into();
    fs::write(packed.join("bigsmall.index.json"), index.to_string()).unwrap();
    let found = verify(&packed, &VerifyOptions::default(), &no_progress).unwrap();
    assert_eq!(
        found.problems.iter().map(|problem| problem.tensor.as_deref()).collect::<Vec<_>>(),
        [Some("lm_head")]
    );
}
