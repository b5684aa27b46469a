//! Safetensors files in the making: any tensors, any header.
// Every test crate uses another part of it.
#![allow(dead_code)]

pub mod values;

use bigsmall::Dtype;
use values::Values;

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// A checkpoint: its tensors in the order of their data, and its metadata.
#[derive(Clone, Debug, Default)]
pub struct Checkpoint {
    pub metadata: Vec<(String, String)>,
    pub tensors: Vec<Tensor>,
}

impl Checkpoint {
    /// Adds a tensor.
    ///
    /// # Panics
    /// If `bytes` does not fit the shape.
    pub fn tensor(mut self, name: &str, dtype: Dtype, shape: &[u64], bytes: Vec<u8>) -> Self {
        assert_eq!(
            dtype.bytes_of(shape),
            Some(bytes.len() as u64),
            "{name}: bytes of {dtype:?} {shape:?}"
        );
        self.tensors.push(Tensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
            bytes,
        });
        self
    }

    /// Adds a pair of metadata.
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// The parts of the header, as the safetensors library writes them: `"name":{…}`.
    pub fn header_items(&self) -> Vec<String> {
        let quoted = |text: &String| serde_json::to_string(text).unwrap();
        let mut items = Vec::new();
        if !self.metadata.is_empty() {
            let pairs: Vec<String> = self
                .metadata
                .iter()
                .map(|(key, value)| format!("{}:{}", quoted(key), quoted(value)))
                .collect();
            items.push(format!(r#""__metadata__":{{{}}}"#, pairs.join(",")));
        }
        let mut at = 0;
        for Tensor { name, dtype, shape, bytes } in &self.tensors {
            let end = at + bytes.len();
            let shape: Vec<String> = shape.iter().map(u64::to_string).collect();
            let (name, dtype, shape) = (quoted(name), dtype.name(), shape.join(","));
            items.push(format!(
                r#"{name}:{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{at},{end}]}}"#
            ));
            at = end;
        }
        items
    }

    /// The file as the safetensors library writes it.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut header = format!("{{{}}}", self.header_items().join(","));
        while header.len() % 8 != 0 {
            header.push(' ');
        }
        self.with_header(header.as_bytes())
    }

    /// The file with another header.
    pub fn with_header(&self, header: &[u8]) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header);
        self.tensors.iter().for_each(|tensor| file.extend_from_slice(&tensor.bytes));
        file
    }
}

/// Codecs that the tensors of [`every_codec`] take in one mode or the other.
pub const EVERY_CODEC: [&str; 11] = [
    "constant",
    "context",
    "empty",
    "packed",
    "palette",
    "planes",
    "row_delta",
    "sparse",
    "stored",
    "tied",
    "zstd",
];

/// A small checkpoint with tensors of all kinds that the format has a form for, each alone of its dtype unless it shares a pack.
pub fn every_codec() -> Checkpoint {
    let bytes = |values: Values, dtype, shape: &[u64]| values.bytes(dtype, shape.iter().product(), shape.last().copied().unwrap_or(1), 1);
    let weights = bytes(Values::Normal, Dtype::BF16, &[16, 36]);
    Checkpoint::default()
        .metadata("format", "pt")
        .tensor("empty", Dtype::F32, &[0, 3], vec![])
        .tensor("planes", Dtype::BF16, &[16, 36], weights.clone())
        .tensor("tied", Dtype::BF16, &[576], weights)
        .tensor("constant", Dtype::F32, &[4, 4], bytes(Values::Constant, Dtype::F32, &[16]))
        .tensor("pack.0", Dtype::F16, &[24, 8], bytes(Values::Normal, Dtype::F16, &[24, 8]))
        .tensor("scalar", Dtype::F64, &[], bytes(Values::Normal, Dtype::F64, &[]))
        .tensor("pack.1", Dtype::F16, &[144], bytes(Values::Normal, Dtype::F16, &[144]))
        .tensor("palette", Dtype::F32, &[20, 16], bytes(Values::Palette, Dtype::F32, &[20, 16]))
        .tensor("sparse", Dtype::C64, &[32, 30], bytes(Values::Sparse, Dtype::C64, &[32, 30]))
        .tensor("rows", Dtype::F8_E5M2, &[64, 8], bytes(Values::RowsAlike, Dtype::F8_E5M2, &[64, 8]))
        .tensor("sequence", Dtype::I64, &[128], bytes(Values::Sequential, Dtype::I64, &[128]))
        .tensor("noise", Dtype::U8, &[150], bytes(Values::Random, Dtype::U8, &[150]))
}
