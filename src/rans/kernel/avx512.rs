//! AVX-512: sixteen states a register.

mod decode;
mod encode;

pub use decode::decode;
pub use encode::encode;
