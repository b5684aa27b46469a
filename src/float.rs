//! Words ⇄ symbols, bit planes and low bytes.

pub mod kernel;
pub mod layout;
pub mod planes;

pub use layout::Layout;
