//! The codec of most tensors: keys entropy coded by row class, raw bits as planes, low bytes raw, constant or coded.
//!
//! Rows of a tensor differ in scale, and coding a mixture of scales with one table costs some tenths of a percent. So units of rows are
//! sorted into classes, each class is coded as its own run of blocks with one table, and the inner loop never changes tables.

pub mod assign;
pub mod decode;
pub mod encode;
pub mod head;
pub mod pool;
pub mod units;

pub use pool::{Pool, Pools};

/// A coded chunk.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Coded {
    /// What a reader needs before it can read parts of the body.
    pub head: Vec<u8>,
    /// The blocks.
    pub body: Vec<u8>,
}

impl Coded {
    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        self.head.len() + self.body.len()
    }
}
