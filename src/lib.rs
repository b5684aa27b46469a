//! Lossless compression of model weights.

pub mod codec;
pub mod dtype;
pub mod error;
pub mod float;
pub mod limits;
pub mod rans;
pub mod simd;
