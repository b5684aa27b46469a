//! The element types of safetensors.

use crate::float::Layout;

/// An element type, as safetensors names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs, non_camel_case_types)]
pub enum Dtype {
    BOOL,
    F4,
    F6_E2M3,
    F6_E3M2,
    U8,
    I8,
    F8_E5M2,
    F8_E4M3,
    F8_E8M0,
    F8_E4M3FNUZ,
    F8_E5M2FNUZ,
    I16,
    U16,
    F16,
    BF16,
    I32,
    U32,
    F32,
    C64,
    F64,
    I64,
    U64,
}

use Dtype::*;

/// All of them, in the order of the enum: name, bits of an element, layout of its words.
const TABLE: [(Dtype, &str, u32, Layout); 22] = [
    (BOOL, "BOOL", 8, Layout::Byte),
    (F4, "F4", 4, Layout::Byte),
    (F6_E2M3, "F6_E2M3", 6, Layout::Byte),
    (F6_E3M2, "F6_E3M2", 6, Layout::Byte),
    (U8, "U8", 8, Layout::Byte),
    (I8, "I8", 8, Layout::Byte),
    (F8_E5M2, "F8_E5M2", 8, Layout::F8),
    (F8_E4M3, "F8_E4M3", 8, Layout::F8),
    (F8_E8M0, "F8_E8M0", 8, Layout::Byte),
    (F8_E4M3FNUZ, "F8_E4M3FNUZ", 8, Layout::F8),
    (F8_E5M2FNUZ, "F8_E5M2FNUZ", 8, Layout::F8),
    (I16, "I16", 16, Layout::I16),
    (U16, "U16", 16, Layout::I16),
    (F16, "F16", 16, Layout::F16),
    (BF16, "BF16", 16, Layout::Bf16),
    (I32, "I32", 32, Layout::I32),
    (U32, "U32", 32, Layout::I32),
    (F32, "F32", 32, Layout::F32),
    (C64, "C64", 64, Layout::F32),
    (F64, "F64", 64, Layout::F64),
    (I64, "I64", 64, Layout::I64),
    (U64, "U64", 64, Layout::I64),
];

impl Dtype {
    /// All element types.
    pub fn all() -> impl Iterator<Item = Dtype> {
        TABLE.iter().map(|row| row.0)
    }

    /// The safetensors code, such as `BF16`.
    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// The type with that safetensors code.
    pub fn from_name(name: &str) -> Option<Dtype> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    /// The type that torch names so, such as `bfloat16`.
    pub fn from_torch_name(name: &str) -> Option<Dtype> {
        Some(match name {
            "bool" => BOOL,
            "uint8" => U8,
            "int8" => I8,
            "uint16" => U16,
            "int16" => I16,
            "uint32" => U32,
            "int32" => I32,
            "uint64" => U64,
            "int64" => I64,
            "float16" => F16,
            "bfloat16" => BF16,
            "float32" => F32,
            "float64" => F64,
            "complex64" => C64,
            "float8_e4m3fn" => F8_E4M3,
            "float8_e5m2" => F8_E5M2,
            "float8_e4m3fnuz" => F8_E4M3FNUZ,
            "float8_e5m2fnuz" => F8_E5M2FNUZ,
            "float8_e8m0fnu" => F8_E8M0,
            "float4_e2m1fn_x2" => F4,
            _ => return None,
        })
    }

    /// Bits of an element.
    pub fn bits(self) -> u32 {
        TABLE[self as usize].2
    }

    /// How its words are cut into planes.
    pub fn layout(self) -> Layout {
        TABLE[self as usize].3
    }

    /// Bytes of a tensor, or None when its elements fill no whole number of bytes, or their bits overflow.
    ///
    /// They must not overflow where dimensions of 0 are counted as 1 either: the strides of an empty tensor are as long as that, and array
    /// libraries calculate them without a check.
    pub fn bytes_of(self, shape: &[u64]) -> Option<u64> {
        let bits = shape.iter().try_fold(self.bits() as u64, |bits, &d| bits.checked_mul(d.max(1)))?;
        let bits = if shape.contains(&0) { 0 } else { bits };
        (bits % 8 == 0).then_some(bits / 8)
    }

    /// The name of the float format for a file's summary; None for integers.
    pub fn family(self) -> Option<&'static str> {
        Some(match self {
            F64 => "fp64",
            F32 | C64 => "fp32",
            F16 => "fp16",
            BF16 => "bf16",
            F8_E5M2 | F8_E4M3 | F8_E8M0 | F8_E4M3FNUZ | F8_E5M2FNUZ => "fp8",
            F6_E2M3 | F6_E3M2 => "fp6",
            F4 => "fp4",
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_own_index() {
        for (i, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0 as usize, i, "{}", row.1);
            assert_eq!(Dtype::from_name(row.1), Some(row.0));
        }
    }

    #[test]
    fn sizes_that_overflow_or_do_not_fill_a_byte_are_none() {
        assert_eq!(F4.bytes_of(&[3]), None);
        assert_eq!(F4.bytes_of(&[3, 0]), Some(0));
        assert_eq!(F6_E2M3.bytes_of(&[2, 2]), Some(3));
        assert_eq!(F64.bytes_of(&[]), Some(8));
        assert_eq!(U64.bytes_of(&[u64::MAX / 8]), None);
    }

    #[test]
    fn empty_shapes_with_strides_that_overflow_are_none() {
        for shape in [[0, 1 << 62, 2], [1 << 62, 2, 0], [1 << 62, 0, 2], [0, 0, u64::MAX]] {
            assert_eq!(F32.bytes_of(&shape), None, "{shape:?}");
        }
        assert_eq!(F32.bytes_of(&[0, 1 << 40]), Some(0));
    }
}
