//! Key/value caches: `docs/format/kv.md` in code. What acts on tensors is in Python, where they are.

pub mod allocate;
pub mod coder;
pub mod file;
pub mod pack;
pub mod table;
pub mod words;
