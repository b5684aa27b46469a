//! Patches: files whose words are differences to those of a base.

mod checkpoint;
mod container;

use bigsmall::{
    Depth, Dtype, Isa, Kind, Options, Reader, VerifyOptions, Weights, compress, compress_bytes, compress_bytes_on, compress_bytes_on_with,
    compress_on, decompress, decompress_bytes, decompress_bytes_on, decompress_bytes_on_with, decompress_on, no_progress, verify,
};
use checkpoint::values::Values;
use checkpoint::{Checkpoint, every_codec};
use container::Container;
use proptest::prelude::*;
use std::fs;
use std::sync::Arc;

fn options() -> Options {
    Options {
        threads: 2,
        ..Options::default()
    }
}

fn weights(checkpoint: &Checkpoint) -> Arc<Weights> {
    Arc::new(Weights::of_bytes(checkpoint.to_bytes()).unwrap())
}

/// Adds `step(i)` to word `i` of a tensor, in its lowest bytes.
fn moved(bytes: &[u8], width: usize, step: impl Fn(u64) -> u64) -> Vec<u8> {
    let word = |(i, word): (usize, &[u8])| {
        let mut long = [0; 8];
        long[..width].copy_from_slice(word);
        u64::from_le_bytes(long).wrapping_add(step(i as u64)).to_le_bytes()[..width].to_vec()
    };
    bytes.chunks(width).enumerate().flat_map(word).collect()
}

/// A few small steps, as training makes them.
fn small_step(i: u64) -> u64 {
    let hash = i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    (hash.is_multiple_of(9)) as u64 * (hash % 5).wrapping_sub(2)
}

/// A base with tensors of all float types, large ones and small ones.
fn base() -> Checkpoint {
    let mut base = Checkpoint::default().metadata("format", "pt");
    for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32, Dtype::F64, Dtype::F8_E4M3, Dtype::I32] {
        for (name, rows, row) in [("large", 300, 400), ("small", 24, 60), ("other", 10, 7)] {
            let bytes = Values::Normal.bytes(dtype, rows * row, row, rows);
            base = base.tensor(&format!("{name}.{}", dtype.name()), dtype, &[rows, row], bytes);
        }
    }
    base
}

/// The base after a training step.
fn tuned() -> Checkpoint {
    let mut tuned = base();
    for tensor in &mut tuned.tensors {
        tensor.bytes = moved(
            &tensor.bytes,
            tensor.bytes.len() / tensor.shape.iter().product::<u64>() as usize,
            small_step,
        );
    }
    tuned
}

/// Compresses to a patch and checks that it comes back, in every way.
fn patch(source: &Checkpoint, base: &Checkpoint) -> Vec<u8> {
    let (bytes, weights) = (source.to_bytes(), weights(base));
    let patch = compress_bytes_on(&bytes, &weights, &options()).unwrap();
    let plain = compress_bytes(&bytes, &options()).unwrap();
    assert!(patch.len() <= plain.len());
    let packed_base = compress_bytes(&base.to_bytes(), &options()).unwrap();
    for base in [weights, Arc::new(Weights::of_bytes(packed_base).unwrap())] {
        assert!(compress_bytes_on(&bytes, &base, &options()).unwrap() == patch);
        assert!(decompress_bytes_on(&patch, base, 2).unwrap() == bytes);
    }
    patch
}

fn bases_of(patch: &[u8]) -> Vec<Option<String>> {
    let reader = Reader::open(patch).unwrap();
    reader.header().entries.iter().map(|entry| entry.base.clone()).collect()
}

#[test]
fn tensors_of_every_dtype_come_back_from_their_differences() {
    let (base, tuned) = (base(), tuned());
    let patch = patch(&tuned, &base);
    assert!(bases_of(&patch).iter().flatten().count() >= 15, "{:?}", bases_of(&patch));
    let plain = compress_bytes(&tuned.to_bytes(), &options()).unwrap();
    assert!(patch.len() * 3 < plain.len(), "{} {}", patch.len(), plain.len());
    assert_eq!(u16::from_le_bytes([patch[4], patch[5]]), 17);
    for isa in Isa::available() {
        assert!(
            compress_bytes_on_with(&tuned.to_bytes(), &weights(&base), &options(), isa).unwrap() == patch,
            "{isa}"
        );
        assert!(
            decompress_bytes_on_with(&patch, weights(&base), 1, isa).unwrap() == tuned.to_bytes(),
            "{isa}"
        );
    }
    for threads in [1, 3] {
        let options = Options { threads, ..options() };
        assert!(compress_bytes_on(&tuned.to_bytes(), &weights(&base), &options).unwrap() == patch);
    }
}

#[test]
fn an_unchanged_model_takes_next_to_nothing() {
    let base = Checkpoint::default().tensor("w", Dtype::BF16, &[512, 512], Values::Normal.bytes(Dtype::BF16, 512 * 512, 512, 5));
    assert!(patch(&base, &base).len() < 400);
}

#[test]
fn tensors_are_found_that_were_renamed_resized_or_reshaped() {
    let values = |n, seed| Values::Normal.bytes(Dtype::BF16, n, 100, seed);
    let base = Checkpoint::default()
        .tensor("embed", Dtype::BF16, &[700, 100], values(70_000, 1))
        .tensor("old.0", Dtype::BF16, &[500, 200], values(100_000, 2))
        .tensor("old.1", Dtype::BF16, &[500, 200], values(100_000, 3))
        .tensor("shrinks", Dtype::BF16, &[900, 100], values(90_000, 4))
        .tensor("gone", Dtype::BF16, &[40, 100], values(4_000, 9));
    let of = |name: &str| &base.tensors.iter().find(|tensor| tensor.name == name).unwrap().bytes;
    let tuned = Checkpoint::default()
        .tensor("new.1", Dtype::BF16, &[1000, 100], moved(of("old.1"), 2, small_step))
        .tensor("new.0", Dtype::BF16, &[500, 200], moved(of("old.0"), 2, small_step))
        .tensor(
            "embed",
            Dtype::BF16,
            &[703, 100],
            [of("embed").as_slice(), &values(300, 7)].concat(),
        )
        .tensor("shrinks", Dtype::BF16, &[800, 100], of("shrinks")[..160_000].to_vec())
        .tensor("added", Dtype::BF16, &[300, 300], values(90_000, 8))
        .tensor("gone", Dtype::F32, &[40, 100], Values::Normal.bytes(Dtype::F32, 4_000, 100, 9));
    let name = |name: &str| Some(name.to_owned());
    let bases = bases_of(&patch(&tuned, &base));
    assert_eq!(bases, [name("old.1"), name("old.0"), name("embed"), name("shrinks"), None, None]);
}

#[test]
fn what_a_base_does_not_help_stands_alone() {
    let of = |seed| Checkpoint::default().tensor("w", Dtype::BF16, &[300, 300], Values::Normal.bytes(Dtype::BF16, 90_000, 300, seed));
    let patch = patch(&of(1), &of(2));
    assert_eq!(u16::from_le_bytes([patch[4], patch[5]]), 16);
    assert!(patch == compress_bytes(&of(1).to_bytes(), &options()).unwrap());
    assert!(decompress_bytes(&patch, 1).unwrap() == of(1).to_bytes());
}

#[test]
fn a_patch_is_read_on_its_base_only() {
    let (base, tuned) = (base(), tuned());
    let patch = patch(&tuned, &base);
    let fingerprint = Reader::open(&patch[..]).unwrap().header().fingerprint.unwrap().to_string();
    let error = decompress_bytes(&patch, 1).unwrap_err();
    assert!(matches!(error.kind, Kind::Base) && error.message.contains(&fingerprint), "{error}");

    let mut other = base.clone();
    other.tensors[0].bytes[77] ^= 1;
    let error = decompress_bytes_on(&patch, weights(&other), 1).unwrap_err();
    assert!(matches!(error.kind, Kind::Base) && error.message.contains(&fingerprint), "{error}");
    assert_eq!(error.message.matches("fingerprint").count(), 2);
    // Words of other blocks and tensors are not in doubt.
    let reader = Reader::open_on(&patch[..], weights(&other)).unwrap();
    let mut word = [0; 2];
    let error = reader.read_words(0, 5..6, &mut word).unwrap_err();
    assert!(matches!(error.kind, Kind::Base) && error.message.contains(&fingerprint), "{error}");
    reader.read_words(3, 80_000..80_001, &mut word).unwrap();
    assert_eq!(word, tuned.tensors[3].bytes[160_000..160_002]);

    let mut lacking = base.clone();
    lacking.tensors.remove(3);
    let error = decompress_bytes_on(&patch, weights(&lacking), 1).unwrap_err();
    assert!(matches!(error.kind, Kind::Base) && error.message.contains(&fingerprint), "{error}");
    assert_eq!(error.tensor.as_deref(), Some(&*tuned.tensors[3].name));
    // What is not used may be anything.
    let more = base.clone().tensor("more", Dtype::U8, &[3], vec![1, 2, 3]);
    assert!(decompress_bytes_on(&patch, weights(&more), 1).unwrap() == tuned.to_bytes());
}

#[test]
fn nothing_is_written_on_a_wrong_base() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (base, tuned) = (base(), tuned());
    fs::write(at("base.safetensors"), base.to_bytes()).unwrap();
    fs::write(at("tuned.safetensors"), tuned.to_bytes()).unwrap();
    let opened = Weights::open(&at("base.safetensors")).unwrap();
    let summary = compress_on(&at("tuned.safetensors"), &opened, &at("patch.bs"), &options(), &no_progress).unwrap();
    assert!(summary.matched.n_differences >= 15 && summary.matched.n_tensors == 18);
    assert!(summary.matched.changed_bytes > 0 && summary.matched.changed_bytes < summary.matched.looked_bytes / 5);
    let wrong = Arc::new(Weights::open(&at("tuned.safetensors")).unwrap());
    let error = decompress_on(&at("patch.bs"), &wrong, &at("out.safetensors"), &options(), &no_progress).unwrap_err();
    assert!(matches!(error.kind, Kind::Base) && error.path.unwrap().ends_with("patch.bs"));
    assert!(matches!(
        decompress(&at("patch.bs"), &at("out.safetensors"), &options(), &no_progress)
            .unwrap_err()
            .kind,
        Kind::Base
    ));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    decompress_on(&at("patch.bs"), &Arc::new(opened), &at("out.safetensors"), &options(), &no_progress).unwrap();
    assert!(fs::read(at("out.safetensors")).unwrap() == tuned.to_bytes());
    // Its structure can be checked without a base.
    let fast = VerifyOptions {
        depth: Depth::Fast,
        ..VerifyOptions::default()
    };
    assert!(verify(&at("patch.bs"), &fast, &no_progress).unwrap().problems.is_empty());
    // Nothing of where the base was is told.
    let record = Container::of(&fs::read(at("patch.bs")).unwrap()).header.to_string();
    assert!(!record.contains(directory.path().file_name().unwrap().to_str().unwrap()) && !record.contains("base.safetensors"));
}

#[test]
fn models_of_several_files_and_kinds_are_patched() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    for (name, all) in [("base", base()), ("tuned", tuned())] {
        fs::create_dir(at(name)).unwrap();
        let (first, second) = all.tensors.split_at(7);
        for (shard, tensors) in [("a", first), ("b", second)] {
            let part = Checkpoint {
                tensors: tensors.to_vec(),
                ..all.clone()
            };
            fs::write(at(name).join(format!("{shard}.safetensors")), part.to_bytes()).unwrap();
        }
        compress(&at(name), &at(&format!("{name}-bs")), &options(), &no_progress).unwrap();
    }
    let mut patches = Vec::new();
    for (source, base, target) in [
        ("tuned", "base", "patch"),
        ("tuned-bs", "base-bs", "patch-bs"),
        ("tuned-bs", "base", "one.bs"),
    ] {
        let base = Arc::new(Weights::open(&at(base)).unwrap());
        compress_on(&at(source), &base, &at(target), &options(), &no_progress).unwrap();
        let back = at(&format!("{target}-back"));
        decompress_on(&at(target), &base, &back, &options(), &no_progress).unwrap();
        if target == "one.bs" {
            let weights = Weights::open(&back).unwrap();
            assert_eq!(weights.tensors().len(), tuned().tensors.len());
            continue;
        }
        for shard in ["a.safetensors", "b.safetensors"] {
            assert!(fs::read(back.join(shard)).unwrap() == fs::read(at("tuned").join(shard)).unwrap());
        }
        patches.push(fs::read(at(target).join("a.bs")).unwrap());
        let weights = Weights::open_on(&at(target), base).unwrap();
        let last = weights.tensors().len() - 1;
        let n = weights.tensors()[last].n_words();
        assert!(*weights.words(last, 0..n).unwrap() == tuned().tensors.last().unwrap().bytes[..]);
    }
    assert!(patches[0] == patches[1]);
}

#[test]
fn some_rows_need_some_blocks() {
    let bytes = Values::Normal.bytes(Dtype::BF16, 1 << 20, 1024, 1);
    let step = |i: u64| i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
    let base = Checkpoint::default().tensor("w", Dtype::BF16, &[1024, 1024], bytes.clone());
    let tuned = Checkpoint::default().tensor("w", Dtype::BF16, &[1024, 1024], moved(&bytes, 2, step));
    let patch = patch(&tuned, &base);
    let packed_base = compress_bytes(&base.to_bytes(), &options()).unwrap();
    let weights = Arc::new(Weights::of_bytes(packed_base.clone()).unwrap());
    let reader = Reader::open_on(&patch[..], weights.clone()).unwrap();
    let of_base = weights.files()[0].reader().unwrap();
    let before = (reader.bytes_read(), of_base.bytes_read());
    let mut rows = vec![0; 2 * 2048];
    reader.read_words(0, 500 * 1024..502 * 1024, &mut rows).unwrap();
    assert!(rows == tuned.tensors[0].bytes[500 * 2048..502 * 2048]);
    let (read, of_base) = (reader.bytes_read() - before.0, of_base.bytes_read() - before.1);
    assert!(
        read * 8 < patch.len() as u64 && of_base * 8 < packed_base.len() as u64,
        "{read} {of_base}"
    );
}

#[test]
fn every_flipped_bit_and_every_prefix_is_noticed() {
    let base = Checkpoint::default().tensor("w", Dtype::BF16, &[40, 40], Values::Normal.bytes(Dtype::BF16, 1600, 40, 1));
    let mut tuned = base.clone();
    tuned.tensors[0].bytes = moved(&base.tensors[0].bytes, 2, |i| i % 11 + 300 * (i == 700) as u64);
    let patch = patch(&tuned, &base);
    assert!(bases_of(&patch)[0].is_some());
    let weights = weights(&base);
    let whole = tuned.to_bytes();
    for at in 0..patch.len() {
        let mut damaged = patch.clone();
        damaged[at] ^= 1 << (at % 8);
        let error = decompress_bytes_on(&damaged, weights.clone(), 1).expect_err(&format!("byte {at}"));
        assert!(error.is_data(), "byte {at}: {error:?}");
        assert!(decompress_bytes_on(&patch[..at], weights.clone(), 1).is_err());
    }
    assert!(decompress_bytes_on(&patch, weights, 1).unwrap() == whole);
}

#[test]
fn blocks_that_contradict_themselves_are_refused() {
    // Sealed anew after each change, so that no checksum stands before the parsers.
    let base = Checkpoint::default().tensor("w", Dtype::BF16, &[40, 40], Values::Normal.bytes(Dtype::BF16, 1600, 40, 1));
    let mut tuned = base.clone();
    tuned.tensors[0].bytes = moved(&base.tensors[0].bytes, 2, |i| i % 11 + 300 * (i == 700) as u64);
    let base_words = &base.tensors[0].bytes;
    let spare = bigsmall::codec::Spare::default();
    let plan = bigsmall::codec::delta::encode::Plan {
        layout: bigsmall::float::Layout::Bf16,
        isa: Isa::SCALAR,
        spare: &spare,
    };
    let coded = bigsmall::codec::delta::encode::encode(plan, &tuned.tensors[0].bytes, base_words);
    let decode = |head: &[u8], body: &[u8]| {
        let decoder = bigsmall::codec::delta::decode::Decoder::new(Isa::SCALAR, plan.layout, head, 1600, body.len())?;
        let parts: Vec<&[u8]> = decoder
            .blocks_of(&(0..1600))
            .map(|block| &body[decoder.block_bytes(block)])
            .collect();
        let mut out = vec![0; 3200];
        let base = &base_words[decoder.base_of(&(0..1600)).start * 2..];
        decoder.decode(&parts, base, &(0..1600), &mut out).map(|()| out)
    };
    let sealed = |head: &[u8]| [head, &crc32fast::hash(head).to_le_bytes()].concat();
    let content = &coded.head[..coded.head.len() - 4];
    assert!(decode(&sealed(content), &coded.body).unwrap() == tuned.tensors[0].bytes);
    let mut n_refused = 0;
    for at in 0..content.len() {
        for bit in 0..8 {
            let mut head = content.to_vec();
            head[at] ^= 1 << bit;
            n_refused += decode(&sealed(&head), &coded.body).is_err() as usize;
        }
        assert!(decode(&sealed(&content[..at]), &coded.body).is_err());
    }
    assert!(n_refused > content.len());
    for at in 0..coded.body.len() {
        let mut body = coded.body.clone();
        body[at] ^= 1 << (at % 8);
        let mut head = content.to_vec();
        let crc = head.len() - 8;
        head[crc..crc + 4].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
        // Other words, or a refusal.
        assert!(
            decode(&sealed(&head), &body).map_or(true, |words| words != tuned.tensors[0].bytes),
            "byte {at}"
        );
    }
}

#[test]
fn headers_that_lie_about_a_base_are_refused() {
    let base = base();
    let patch = patch(&tuned(), &base);
    let packed = bases_of(&patch).iter().position(Option::is_some).unwrap();
    type Edit = fn(&mut serde_json::Value, usize);
    let edits: [(Edit, Kind); 6] = [
        (|header, _| drop(header.as_object_mut().unwrap().remove("base")), Kind::Format),
        (|header, _| header["base"]["fingerprint"] = "g".repeat(32).into(), Kind::Format),
        (
            |header, at| drop(header["tensors"][at].as_object_mut().unwrap().remove("base")),
            Kind::Format,
        ),
        (|header, at| header["tensors"][at]["base"] = 5.into(), Kind::Format),
        (|header, at| header["tensors"][at]["order"] = "iok".into(), Kind::Format),
        (|header, at| header["tensors"][at]["codec"] = "planes".into(), Kind::Format),
    ];
    for (i, (edit, kind)) in edits.into_iter().enumerate() {
        let mut container = Container::of(&patch);
        edit(&mut container.header, packed);
        let error = Reader::open(&container.to_bytes()[..]).err().unwrap_or_else(|| panic!("edit {i}"));
        assert!(
            std::mem::discriminant(&error.kind) == std::mem::discriminant(&kind),
            "{i}: {error:?}"
        );
    }
    let mut old = patch.clone();
    old[4] = 16;
    assert!(Reader::open(&old[..]).is_err());
    // A name that the base has not, told when it is opened on one.
    let mut container = Container::of(&patch);
    container.header["tensors"][packed]["base"] = "none".into();
    let file = container.to_bytes();
    let error = Reader::open_on(&file[..], weights(&base)).err().unwrap();
    assert!(matches!(error.kind, Kind::Base));
}

#[test]
fn a_model_without_a_base_opens_on_any() {
    let source = every_codec().to_bytes();
    let packed = compress_bytes(&source, &options()).unwrap();
    assert!(decompress_bytes_on(&packed, weights(&base()), 1).unwrap() == source);
}

/// What the golden patch was made of: tensors of all dtypes and steps of all sizes.
fn golden() -> (Checkpoint, Checkpoint) {
    let (mut base, mut tuned) = (Checkpoint::default().metadata("format", "pt"), Checkpoint::default());
    for (i, dtype) in Dtype::all().enumerate() {
        let bytes = Values::Normal.bytes(dtype, 12 * 40, 40, i as u64);
        let width = dtype.layout().word_bytes();
        base = base.tensor(dtype.name(), dtype, &[12, 40], bytes.clone());
        tuned = tuned.tensor(dtype.name(), dtype, &[12, 40], moved(&bytes, width, small_step));
    }
    for (name, mask) in [("few", 3), ("many", 0xFF)] {
        let bytes = Values::RowScaled.bytes(Dtype::BF16, 300 * 240, 240, mask);
        let step = |i: u64| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40 & mask).wrapping_sub(mask / 2);
        base = base.tensor(name, Dtype::BF16, &[300, 240], bytes.clone());
        tuned = tuned.tensor(name, Dtype::BF16, &[300, 240], moved(&bytes, 2, step));
    }
    (base, tuned)
}

fn golden_path(name: &str) -> std::path::PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "golden_patches", name].iter().collect()
}

#[test]
fn old_patches_are_read() {
    let base = Arc::new(Weights::open(&golden_path("base.bs")).unwrap());
    let patch = fs::read(golden_path("patch.bs")).unwrap();
    let of = |name: &str| fs::read(golden_path(name)).unwrap();
    let digests = String::from_utf8(of("MANIFEST")).unwrap();
    for (name, file) in [("base.bs", of("base.bs")), ("patch.bs", patch.clone())] {
        assert!(digests.contains(&format!("{}  {name}", digest(&file))), "{name} was rewritten");
    }
    for isa in Isa::available() {
        let tuned = decompress_bytes_on_with(&patch, base.clone(), 2, isa).unwrap();
        assert!(digests.contains(&format!("{}  tuned.safetensors", digest(&tuned))), "{isa}");
    }
}

fn digest(bytes: &[u8]) -> String {
    use md5::Digest;
    md5::Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
#[ignore = "writes the files of the test above where there are none"]
fn write_golden_patches() {
    let (base, tuned) = golden();
    let packed = compress_bytes(&base.to_bytes(), &options()).unwrap();
    let patch = compress_bytes_on(&tuned.to_bytes(), &weights(&base), &options()).unwrap();
    let manifest = format!(
        "{}  base.bs\n{}  patch.bs\n{}  tuned.safetensors\n",
        digest(&packed),
        digest(&patch),
        digest(&tuned.to_bytes())
    );
    for (name, bytes) in [("base.bs", packed), ("patch.bs", patch), ("MANIFEST", manifest.into_bytes())] {
        let file = fs::OpenOptions::new().write(true).create_new(true).open(golden_path(name));
        if let Ok(mut file) = file {
            std::io::Write::write_all(&mut file, &bytes).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_checkpoint_comes_back_from_any_base(kinds in prop::collection::vec((0usize..22, 0u64..90, 1u64..60, 0u32..7, any::<bool>()), 1..7)) {
        let dtypes: Vec<Dtype> = Dtype::all().collect();
        let (mut base, mut tuned) = (Checkpoint::default(), Checkpoint::default());
        for (i, (dtype, rows, row, kind, has_base)) in kinds.into_iter().enumerate() {
            let (dtype, row) = (dtypes[dtype], row * 4);
            let bytes = Values::Normal.bytes(dtype, rows * row, row, i as u64);
            let width = dtype.layout().word_bytes();
            let step = |j: u64| match kind {
                0 => 0,
                1 => small_step(j),
                2 => j.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 50,
                3 => u64::from(j.is_multiple_of(40)) << 12,
                4 => j.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                _ => j % 3,
            };
            if has_base {
                base = base.tensor(&format!("t{}", i / 2 * 2), dtype, &[rows, row], bytes.clone());
            }
            tuned = tuned.tensor(&format!("t{i}"), dtype, &[rows, row], moved(&bytes, width, step));
        }
        let mut seen = std::collections::HashSet::new();
        base.tensors.retain(|tensor| seen.insert(tensor.name.clone()));
        patch(&tuned, &base);
    }
}
