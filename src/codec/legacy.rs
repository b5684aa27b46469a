//! The codecs of the published Python package: `docs/format/published.md` in code.

pub mod encode;
