//! Any valid checkpoint comes back; any bytes are one or are refused.
#![no_main]

use bigsmall::{Dtype, Format, Kind, Mode, Options, compress_bytes, decompress_bytes};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    File(&'a [u8]),
    Tensors(Vec<Tensor<'a>>),
}

#[derive(Arbitrary, Debug)]
struct Tensor<'a> {
    dtype: u8,
    /// Columns, where the bytes are whole rows of them.
    columns: u8,
    name: &'a str,
    bytes: &'a [u8],
    /// How often the bytes are repeated.
    times: u8,
}

/// The checkpoint of these tensors.
fn file(tensors: &[Tensor]) -> Vec<u8> {
    let mut items = Vec::new();
    let mut data = Vec::new();
    for (i, tensor) in tensors.iter().enumerate() {
        let dtype = Dtype::all()
            .nth(tensor.dtype as usize % Dtype::all().count())
            .expect("there are so many");
        let mut bytes = tensor.bytes.repeat(tensor.times as usize);
        // Three bytes are a whole number of elements of every narrow type, 24 of all.
        bytes.truncate(bytes.len() / 24 * 24);
        let n = bytes.len() as u64 * 8 / dtype.bits() as u64;
        let columns = tensor.columns as u64 + 1;
        let shape = if n.is_multiple_of(columns) {
            format!("{},{columns}", n / columns)
        } else {
            n.to_string()
        };
        let name: String = tensor.name.chars().filter(|c| *c >= ' ' && *c != '"' && *c != '\\').collect();
        let (start, end) = (data.len(), data.len() + bytes.len());
        items.push(format!(
            r#""{i}{name}":{{"dtype":"{}","shape":[{shape}],"data_offsets":[{start},{end}]}}"#,
            dtype.name()
        ));
        data.extend(bytes);
    }
    let header = format!("{{{}}}", items.join(","));
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fuzz_target!(|input: (u8, Input)| {
    let (source, must_succeed) = match input.1 {
        Input::File(bytes) => (bytes.to_vec(), false),
        Input::Tensors(tensors) => (file(&tensors), true),
    };
    let options = Options {
        mode: Mode::ALL[input.0 as usize % 3],
        threads: 1,
        ..Options::default()
    };
    match compress_bytes(&source, &options) {
        Ok(packed) => {
            assert!(packed.len() <= source.len() + source.len() / 10_000 + 4096);
            assert!(decompress_bytes(&packed, 1).expect("what was written is read") == source);
        }
        Err(error) => assert!(!must_succeed, "{error}"),
    }
    let published = Options {
        format: Format::V1,
        ..options
    };
    match compress_bytes(&source, &published) {
        Ok(packed) => assert!(decompress_bytes(&packed, 1).expect("what was written is read") == source),
        // Not all dtypes have a place there.
        Err(error) => assert!(!must_succeed || matches!(error.kind, Kind::Option), "{error}"),
    }
});
