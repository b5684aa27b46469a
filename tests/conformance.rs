//! A file is the same to the byte whatever machine writes it, and every machine reads it.

mod checkpoint;

use bigsmall::{Dtype, Isa, Mode, Options, Reader, compress_bytes_with, decompress_bytes_with};
use checkpoint::values::{Random, Values};
use checkpoint::{Checkpoint, every_codec};

/// Checkpoints that every kernel has work with: all layouts, full and partial blocks, several classes, patches, shared and own tables.
fn checkpoints(mode: Mode) -> Vec<(&'static str, Checkpoint)> {
    let tensor = |checkpoint: Checkpoint, name: &str, values: Values, dtype, shape: [u64; 2]| {
        let bytes = values.bytes(dtype, shape[0] * shape[1], shape[1], shape[0] + shape[1]);
        checkpoint.tensor(name, dtype, &shape, bytes)
    };
    let mut dtypes = Checkpoint::default();
    for dtype in Dtype::all() {
        for (i, values) in [Values::RowScaled, Values::Extremes, Values::Widened].into_iter().enumerate() {
            dtypes = tensor(dtypes, &format!("{}.{i}", dtype.name()), values, dtype, [51, 60 + 4 * i as u64]);
        }
    }
    // Contexts are slow, and the same code everywhere.
    let rows = if mode == Mode::Storage { 50 } else { 400 };
    let mut blocks = Checkpoint::default();
    for (i, (dtype, values)) in [
        (Dtype::BF16, Values::RowScaled),
        (Dtype::F16, Values::RowScaled),
        (Dtype::F32, Values::Widened),
        (Dtype::F8_E4M3, Values::RowScaled),
        (Dtype::BF16, Values::Extremes),
        (Dtype::F32, Values::Sparse),
        (Dtype::I32, Values::RowsAlike),
        (Dtype::F64, Values::Palette),
        (Dtype::U8, Values::Random),
    ]
    .into_iter()
    .enumerate()
    {
        blocks = tensor(blocks, &format!("blocks.{i}"), values, dtype, [rows + i as u64, 333]);
    }
    vec![("every codec", every_codec()), ("dtypes", dtypes), ("blocks", blocks)]
}

/// Every instruction set on one thread, and the best one on several.
fn machines() -> impl Iterator<Item = (Isa, usize)> {
    let available = Isa::available();
    let best = available[0];
    available.into_iter().map(|isa| (isa, 1)).chain([(best, 2), (best, 3)])
}

#[test]
fn threads_and_instruction_sets_make_no_difference() {
    for mode in Mode::ALL {
        for (what, checkpoint) in checkpoints(mode) {
            let source = checkpoint.to_bytes();
            let options = |threads| Options {
                mode,
                threads,
                ..Options::default()
            };
            let first = compress_bytes_with(&source, &options(1), Isa::SCALAR).unwrap();
            for (isa, threads) in machines() {
                let packed = compress_bytes_with(&source, &options(threads), isa).unwrap();
                assert!(packed == first, "{what}, {mode}: {isa} with {threads} threads writes another file");
                let back = decompress_bytes_with(&first, threads, isa).unwrap();
                assert!(
                    back == source,
                    "{what}, {mode}: {isa} with {threads} threads reads another checkpoint"
                );
            }
        }
    }
}

#[test]
fn instruction_sets_read_the_same_ranges() {
    for (what, checkpoint) in checkpoints(Mode::Balanced) {
        let packed = compress_bytes_with(
            &checkpoint.to_bytes(),
            &Options {
                threads: 1,
                ..Options::default()
            },
            Isa::SCALAR,
        )
        .unwrap();
        let mut random = Random(21);
        for isa in Isa::available() {
            let reader = Reader::open_with(&packed[..], isa).unwrap();
            for (at, (entry, tensor)) in reader.header().entries.iter().zip(&checkpoint.tensors).enumerate() {
                let n_words = entry.n_words() as usize;
                let width = entry.dtype.layout().word_bytes();
                for _ in 0..4 {
                    let (a, b) = (random.below(n_words + 1), random.below(n_words + 1));
                    let (start, end) = (a.min(b), a.max(b));
                    let mut words = vec![0xEE; (end - start) * width];
                    reader.read_words(at, start as u64..end as u64, &mut words).unwrap();
                    assert!(
                        words == tensor.bytes[start * width..end * width],
                        "{what}, {isa}: {} {start}..{end}",
                        tensor.name
                    );
                }
            }
        }
    }
}

#[test]
fn the_scalar_kernels_are_always_there() {
    let available = Isa::available();
    assert_eq!(available.last(), Some(&Isa::SCALAR));
    for isa in available {
        assert_eq!(Isa::named(isa.name()).unwrap(), isa);
    }
    assert!(matches!(Isa::named("abacus").unwrap_err().kind, bigsmall::Kind::Option));
}
