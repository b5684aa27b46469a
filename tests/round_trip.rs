//! Whatever a checkpoint holds comes back bit for bit, whole and in part, and hardly ever takes more room.

mod checkpoint;

use bigsmall::container::header::Storage;
use bigsmall::{Dtype, Format, Kind, Mode, Options, Reader, compress_bytes, decompress_bytes};
use checkpoint::Checkpoint;
use checkpoint::values::{Random, Values};
use proptest::prelude::*;

/// Bytes by which a file may grow that does not compress.
fn allowance(source: &[u8]) -> usize {
    source.len() / 10_000 + 4096
}

fn options(mode: Mode) -> Options {
    Options {
        mode,
        threads: 1,
        ..Options::default()
    }
}

/// Compresses and checks: the whole, the size, ranges of every tensor, and the header's account of it all.
fn check(checkpoint: &Checkpoint, source: &[u8], mode: Mode) -> Vec<u8> {
    let packed = compress_bytes(source, &options(mode)).unwrap();
    assert!(
        packed.len() <= source.len() + allowance(source),
        "{} bytes became {}",
        source.len(),
        packed.len()
    );
    check_packed(checkpoint, source, mode, &packed);
    packed
}

/// Checks what was compressed.
fn check_packed(checkpoint: &Checkpoint, source: &[u8], mode: Mode, packed: &[u8]) {
    assert!(decompress_bytes(packed, 2).unwrap() == source, "the file came back changed");

    let reader = Reader::open(packed).unwrap();
    let header = reader.header();
    assert_eq!(header.source_bytes(), source.len() as u64);
    assert_eq!(header.mode, mode.name());
    assert_eq!(header.entries.len(), checkpoint.tensors.len());
    let mut random = Random(source.len() as u64);
    for tensor in &checkpoint.tensors {
        let at = reader.find(&tensor.name).unwrap();
        let entry = &header.entries[at];
        assert_eq!(
            (entry.dtype, &entry.shape, entry.raw_bytes),
            (tensor.dtype, &tensor.shape, tensor.bytes.len() as u64)
        );
        let n_words = entry.n_words() as usize;
        let width = tensor.bytes.len().checked_div(n_words).unwrap_or(1);
        let row = tensor
            .shape
            .first()
            .map_or(1, |&rows| n_words.checked_div(rows as usize).unwrap_or(0));
        let (a, b) = (random.below(n_words + 1), random.below(n_words + 1));
        let rows = n_words.checked_div(row).map_or(0..0, |n_rows| n_rows / 3 * row..n_rows / 2 * row);
        for range in [0..n_words, a.min(b)..a.max(b), a.min(b)..(a.min(b) + 1).min(n_words), a..a, rows] {
            let mut out = vec![0xEE; range.len() * width];
            reader.read_words(at, range.start as u64..range.end as u64, &mut out).unwrap();
            assert!(
                out == tensor.bytes[range.start * width..range.end * width],
                "{}: words {range:?} of {n_words}",
                tensor.name
            );
        }
    }
}

/// Shapes of up to some ten thousand elements, all of which fill whole bytes in every dtype but the 0-d one.
fn shape() -> impl Strategy<Value = Vec<u64>> {
    prop_oneof![
        1 => Just(vec![]),
        1 => Just(vec![0]),
        1 => (0u64..5).prop_map(|n| vec![n, 0]),
        1 => Just(vec![0, 7, 3]),
        3 => (1u64..300).prop_map(|n| vec![4 * n]),
        2 => (8_000u64..10_000).prop_map(|n| vec![4 * n]),
        4 => (1u64..120, 1u64..90).prop_map(|(rows, columns)| vec![2 * rows + 1, 4 * columns]),
        2 => (1u64..24, 1u64..12, 1u64..3).prop_map(|(out, channels, side)| vec![out, 4 * channels, 2 * side + 1, 2 * side + 1]),
        1 => (1u64..2000).prop_map(|n| vec![1, 1, 4 * n, 1]),
    ]
}

type Tensors = Vec<(Dtype, Values, Vec<u64>, u64, bool)>;

fn tensors() -> impl Strategy<Value = Tensors> {
    tensors_of(proptest::sample::select(Dtype::all().collect::<Vec<_>>()))
}

/// Those that the published package returns, and now and then one that it does not.
fn published_tensors() -> impl Strategy<Value = Tensors> {
    let all = Dtype::all().collect::<Vec<_>>();
    tensors_of(prop_oneof![40 => proptest::sample::select(PUBLISHED.to_vec()), 1 => proptest::sample::select(all)])
}

fn tensors_of(dtype: impl Strategy<Value = Dtype>) -> impl Strategy<Value = Tensors> {
    let values = proptest::sample::select(Values::ALL.to_vec());
    proptest::collection::vec((dtype, values, shape(), any::<u64>(), proptest::bool::weighted(0.2)), 0..6)
}

/// Dtypes that the published package returns.
const PUBLISHED: [Dtype; 12] = [
    Dtype::BF16,
    Dtype::F16,
    Dtype::F32,
    Dtype::F8_E4M3,
    Dtype::F8_E5M2,
    Dtype::I64,
    Dtype::I32,
    Dtype::I16,
    Dtype::I8,
    Dtype::U8,
    Dtype::U16,
    Dtype::BOOL,
];

fn bytes(values: Values, dtype: Dtype, shape: &[u64], seed: u64) -> Vec<u8> {
    let n = shape.iter().product();
    let row = shape.first().map_or(1, |&rows| n / rows.max(1));
    values.bytes(dtype, n, row, seed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn any_checkpoint_comes_back_from_the_published_format(tensors in published_tensors()) {
        let mut checkpoint = Checkpoint::default();
        let mut refused = None;
        for (i, (dtype, values, mut shape, seed, is_tied)) in tensors.into_iter().enumerate() {
            if dtype.bytes_of(&shape).is_none() {
                shape = vec![4];
            }
            let (name, data) = (format!("layer.{i}"), bytes(values, dtype, &shape, seed));
            if !PUBLISHED.contains(&dtype) {
                refused.get_or_insert_with(|| name.clone());
            }
            checkpoint = checkpoint.tensor(&name, dtype, &shape, data.clone());
            if is_tied {
                checkpoint = checkpoint.tensor(&format!("tied.{i}"), dtype, &shape, data);
            }
        }
        let source = checkpoint.to_bytes();
        let options = Options { format: Format::V1, ..options(Mode::Balanced) };
        match compress_bytes(&source, &options) {
            Ok(packed) => {
                prop_assert!(refused.is_none());
                check_packed(&checkpoint, &source, Mode::Balanced, &packed);
            }
            Err(error) => {
                prop_assert!(matches!(error.kind, Kind::Option));
                prop_assert_eq!(error.tensor, refused);
            }
        }
    }

    #[test]
    fn any_checkpoint_comes_back(tensors in tensors(), mode in proptest::sample::select(Mode::ALL.to_vec())) {
        let mut checkpoint = Checkpoint::default();
        for (i, (dtype, values, mut shape, seed, is_tied)) in tensors.into_iter().enumerate() {
            if dtype.bytes_of(&shape).is_none() {
                shape = vec![4];
            }
            let data = bytes(values, dtype, &shape, seed);
            checkpoint = checkpoint.tensor(&format!("layer.{i}"), dtype, &shape, data.clone());
            if is_tied {
                checkpoint = checkpoint.tensor(&format!("tied.{i}"), dtype, &[shape.iter().product()], data);
            }
        }
        check(&checkpoint, &checkpoint.to_bytes(), mode);
    }
}

#[test]
fn every_dtype_comes_back_with_every_distribution() {
    for dtype in Dtype::all() {
        let mut checkpoint = Checkpoint::default();
        for (i, values) in Values::ALL.into_iter().enumerate() {
            let shape = [31, 4 * (10 + i as u64)];
            checkpoint = checkpoint.tensor(&format!("{values:?}"), dtype, &shape, bytes(values, dtype, &shape, i as u64));
            // Alone in its file, nothing is shared with others.
            let alone = Checkpoint::default().tensor("alone", dtype, &shape, bytes(values, dtype, &shape, i as u64));
            check(&alone, &alone.to_bytes(), Mode::ALL[i % 3]);
        }
        for mode in Mode::ALL {
            check(&checkpoint, &checkpoint.to_bytes(), mode);
        }
    }
}

#[test]
fn tensors_of_several_blocks_come_back() {
    let shapes: [&[u64]; 3] = [&[150_001], &[521, 260], &[96, 64, 5, 5]];
    for (i, (dtype, values)) in [
        (Dtype::BF16, Values::RowScaled),
        (Dtype::F16, Values::Normal),
        (Dtype::F32, Values::Widened),
        (Dtype::F32, Values::Sparse),
        (Dtype::F64, Values::RowsAlike),
        (Dtype::F8_E4M3, Values::Normal),
        (Dtype::F32, Values::Palette),
        (Dtype::I32, Values::Random),
        (Dtype::I64, Values::Sequential),
        (Dtype::BF16, Values::Extremes),
        (Dtype::C64, Values::RowScaled),
    ]
    .into_iter()
    .enumerate()
    {
        let shape = shapes[i % 3];
        let checkpoint = Checkpoint::default().tensor("weight", dtype, shape, bytes(values, dtype, shape, i as u64));
        for mode in [Mode::Balanced, Mode::Inference] {
            check(&checkpoint, &checkpoint.to_bytes(), mode);
        }
    }
}

#[test]
fn tensors_of_several_chunks_come_back() {
    // A chunk of BF16 words holds 2^22 of them, less where a row would be cut.
    let shape = [4200, 1024];
    let big = bytes(Values::RowScaled, Dtype::BF16, &shape, 1);
    let noise = bytes(Values::Random, Dtype::U8, &[(1 << 22) + 77], 2);
    let checkpoint = Checkpoint::default()
        .tensor("big", Dtype::BF16, &shape, big)
        .tensor("noise", Dtype::U8, &[(1 << 22) + 77], noise);
    let packed = check(&checkpoint, &checkpoint.to_bytes(), Mode::Balanced);
    let reader = Reader::open(&packed[..]).unwrap();
    assert!(reader.parts(0).unwrap().count() > 1 && reader.parts(1).unwrap().count() > 1);
}

#[test]
fn what_the_sample_hides_is_stored_as_it_is() {
    // Noise, but for the four stretches that are looked at before a codec is chosen: there one key is a little commoner.
    let n = 1 << 22;
    let mut data = bytes(Values::Random, Dtype::F16, &[n], 3);
    let mut random = Random(4);
    for stretch in 0..4 {
        let start = (n as usize - (1 << 16)) / 3 * stretch;
        for word in data[2 * start..][..2 << 16].chunks_exact_mut(2) {
            if random.below(25) == 0 {
                word[1] = 0x2A;
            }
        }
    }
    let checkpoint = Checkpoint::default().tensor("hidden", Dtype::F16, &[n], data).tensor(
        "after",
        Dtype::BF16,
        &[64, 1024],
        bytes(Values::Normal, Dtype::BF16, &[64, 1024], 5),
    );
    let source = checkpoint.to_bytes();
    let packed = check(&checkpoint, &source, Mode::Balanced);
    let reader = Reader::open(&packed[..]).unwrap();
    assert_eq!(
        (0..reader.header().entries.len())
            .map(|tensor| reader.header().codec_name(tensor))
            .collect::<Vec<_>>(),
        ["stored", "planes"]
    );
}

#[test]
fn many_small_tensors_cost_little() {
    let mut checkpoint = Checkpoint::default();
    for i in 0..3000 {
        let (dtype, shape): (Dtype, &[u64]) = [
            (Dtype::F32, &[][..]),
            (Dtype::BF16, &[7]),
            (Dtype::F16, &[2, 3]),
            (Dtype::I64, &[1]),
        ][i % 4];
        checkpoint = checkpoint.tensor(
            &format!("blocks.{i}.scale"),
            dtype,
            shape,
            bytes(Values::Random, dtype, shape, i as u64),
        );
    }
    let packed = check(&checkpoint, &checkpoint.to_bytes(), Mode::Balanced);
    let reader = Reader::open(&packed[..]).unwrap();
    assert!(
        reader
            .header()
            .entries
            .iter()
            .all(|entry| matches!(entry.storage, Storage::Packed { .. } | Storage::Constant(_)))
    );
}

#[test]
fn small_tensors_among_others_keep_the_form_that_suits_them() {
    const SHAPE: [u64; 2] = [100, 300];
    let names = ["weights", "few", "alike", "more weights", "widened", "yet more weights"];
    let mut checkpoint = Checkpoint::default();
    for (i, name) in names.into_iter().enumerate() {
        let values = match name {
            "few" => Values::Palette,
            "alike" => Values::RowsAlike,
            "widened" => Values::Widened,
            _ => Values::Normal,
        };
        checkpoint = checkpoint.tensor(name, Dtype::F32, &SHAPE, bytes(values, Dtype::F32, &SHAPE, i as u64));
    }
    for mode in [Mode::Balanced, Mode::Inference] {
        let together = check(&checkpoint, &checkpoint.to_bytes(), mode).len();
        let alone: usize = (checkpoint.tensors.iter())
            .map(|tensor| {
                let alone = Checkpoint::default().tensor(&tensor.name, tensor.dtype, &tensor.shape, tensor.bytes.clone());
                compress_bytes(&alone.to_bytes(), &options(mode)).unwrap().len()
            })
            .sum();
        // Being alone costs states and tables, being together those that suit one alone.
        let most = alone + alone / 20;
        assert!(together <= most, "{mode}: {together} bytes together, {alone} alone");
    }
}

#[test]
fn equal_tensors_are_stored_once() {
    let data = bytes(Values::Normal, Dtype::F16, &[200, 200], 6);
    let checkpoint = Checkpoint::default()
        .tensor("embed", Dtype::F16, &[200, 200], data.clone())
        .tensor("head", Dtype::F16, &[40_000], data.clone())
        .tensor("bits", Dtype::BF16, &[200, 200], data);
    let packed = check(&checkpoint, &checkpoint.to_bytes(), Mode::Balanced);
    let reader = Reader::open(&packed[..]).unwrap();
    assert_eq!(reader.header().entries[1].storage, Storage::Tied(0));
    assert_ne!(reader.header().codec_name(2), "tied", "bits of another dtype are other words");
}

#[test]
fn convolutions_stored_in_another_order_come_back() {
    // Scales change with the input channel, and five of them divide the channels: a row of `RowScaled` is a kernel here.
    let shape = [40, 30, 3, 3];
    let data = Values::RowScaled.bytes(Dtype::F16, 40 * 270, 9, 7);
    let checkpoint = Checkpoint::default()
        .tensor("conv", Dtype::F16, &shape, data.clone())
        .tensor("flat", Dtype::F16, &[10_800], data);
    let packed = check(&checkpoint, &checkpoint.to_bytes(), Mode::Balanced);
    let reader = Reader::open(&packed[..]).unwrap();
    assert_ne!(reader.header().entries[0].order.name(), None);
    assert_eq!(reader.header().entries[1].storage, Storage::Tied(0));
}

/// A checkpoint with two tensors and metadata, for headers that no library writes.
fn two_tensors() -> Checkpoint {
    Checkpoint::default()
        .metadata("format", "pt")
        .metadata("épöque", "3\n\u{1}\"\\")
        .tensor("a", Dtype::BF16, &[16, 8], bytes(Values::Normal, Dtype::BF16, &[16, 8], 7))
        .tensor("b", Dtype::I8, &[5], bytes(Values::Random, Dtype::I8, &[5], 8))
}

#[test]
fn headers_are_kept_to_the_byte() {
    let plain = two_tensors();
    let [metadata, a, b] = &plain.header_items()[..] else {
        panic!("three items")
    };
    let headers = [
        ("padded to a multiple of 8", format!("{{{metadata},{a},{b}}}").into_bytes()),
        ("blanks", format!("{{ {metadata} ,\n\t{a},{b} }}  \n\t ").into_bytes()),
        (
            "padding of 1000 blanks",
            format!("{{{metadata},{a},{b}}}{}", " ".repeat(1000)).into_bytes(),
        ),
        ("tensors in the other order", format!("{{{metadata},{b},{a}}}").into_bytes()),
        ("metadata at the end", format!("{{{a},{b},{metadata}}}").into_bytes()),
        ("no metadata", format!("{{{a},{b}}}").into_bytes()),
        ("empty metadata", format!("{{\"__metadata__\":{{}},{a},{b}}}").into_bytes()),
        (
            "escapes that need not be",
            format!("{{{metadata},{a},{b}}}")
                .replace("é", "\\u00E9")
                .replace("/", "\\/")
                .into_bytes(),
        ),
        (
            "offsets before shape",
            r#"{"a":{"data_offsets":[0,256],"shape":[16,8],"dtype":"BF16"},"b":{"shape":[5],"dtype":"I8","data_offsets":[256,261]}}"#
                .into(),
        ),
    ];
    for (what, header) in headers {
        let source = plain.with_header(&header);
        let packed = compress_bytes(&source, &options(Mode::Balanced)).unwrap_or_else(|error| panic!("{what}: {error}"));
        let back = decompress_bytes(&packed, 1).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(back == source, "{what}");
    }
}

#[test]
fn a_plain_header_is_not_stored() {
    let header_json = |source: &[u8]| {
        let packed = compress_bytes(source, &options(Mode::Balanced)).unwrap();
        let n = u32::from_le_bytes(packed[6..10].try_into().unwrap()) as usize;
        let stored = &packed[10..10 + n];
        String::from_utf8(if stored[0] == b'{' {
            stored.to_vec()
        } else {
            zstd::decode_all(stored).unwrap()
        })
        .unwrap()
    };
    let plain = two_tensors();
    assert!(!header_json(&plain.to_bytes()).contains("source_header"));
    let unpadded = format!("{{{}}}\n", plain.header_items().join(","));
    assert!(header_json(&plain.with_header(unpadded.as_bytes())).contains("source_header"));
}

#[test]
fn names_of_any_characters_come_back() {
    let names = [
        "",
        " ",
        "a.b/c\\d",
        "\"",
        "重み.0",
        "\u{0}\u{1f}\u{7f}",
        "\u{2028}",
        "😀",
        "../../etc",
        "__metadata",
        &"x".repeat(5000),
    ];
    let mut checkpoint = Checkpoint::default();
    for (i, name) in names.iter().enumerate() {
        checkpoint = checkpoint.tensor(name, Dtype::U8, &[2], vec![i as u8, 200]);
    }
    check(&checkpoint, &checkpoint.to_bytes(), Mode::Balanced);
}

#[test]
fn empty_tensors_may_stand_anywhere() {
    // In the header an empty tensor may come after the one that begins where it does.
    let checkpoint = Checkpoint::default()
        .tensor("none", Dtype::F32, &[0, 4], vec![])
        .tensor("some", Dtype::F32, &[1], vec![1, 2, 3, 4]);
    let [none, some] = &checkpoint.header_items()[..] else {
        panic!("two items")
    };
    for header in [format!("{{{none},{some}}}"), format!("{{{some},{none}}}")] {
        check(&checkpoint, &checkpoint.with_header(header.as_bytes()), Mode::Balanced);
    }
    let after = r#"{"some":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"none":{"dtype":"F32","shape":[0,4],"data_offsets":[4,4]}}"#;
    check(&checkpoint, &checkpoint.with_header(after.as_bytes()), Mode::Balanced);
}

#[test]
fn a_checkpoint_without_tensors_comes_back() {
    for header in ["{}", "{}      ", r#"{"__metadata__":{"format":"pt"}}"#] {
        check(
            &Checkpoint::default(),
            &Checkpoint::default().with_header(header.as_bytes()),
            Mode::Storage,
        );
    }
}
