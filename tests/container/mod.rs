//! A `.bs` file taken apart, to be put together with another header that is signed as a writer would.
// Every test crate uses another part of it.
#![allow(dead_code)]

pub mod seals;

use md5::{Digest, Md5};
use serde_json::Value;

/// Where blobs begin in a file that is put together: a header may grow by much before it.
const DATA_OFFSET: usize = 1 << 16;

/// Header and blobs.
#[derive(Clone, Debug)]
pub struct Container {
    pub header: Value,
    pub blobs: Vec<u8>,
}

impl Container {
    /// Takes a file apart.
    pub fn of(file: &[u8]) -> Self {
        let header_bytes = u32::from_le_bytes(file[6..10].try_into().unwrap()) as usize;
        let stored = &file[10..10 + header_bytes];
        let json = if stored.starts_with(b"{") {
            stored.to_vec()
        } else {
            zstd::decode_all(stored).unwrap()
        };
        let mut header: Value = serde_json::from_slice(&json).unwrap();
        let data_offset = header["data_offset"].as_u64().unwrap() as usize;
        header["data_offset"] = DATA_OFFSET.into();
        Self {
            header,
            blobs: file[data_offset..].to_vec(),
        }
    }

    /// The file with the header as it is.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.with_header(self.header.to_string().as_bytes())
    }

    /// The file after `edit` has changed the header.
    pub fn edited(&self, edit: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut header = self.header.clone();
        edit(&mut header);
        self.with_header(header.to_string().as_bytes())
    }

    /// The file with these bytes as its stored header.
    pub fn with_header(&self, stored: &[u8]) -> Vec<u8> {
        let mut file = signed(stored);
        assert!(file.len() <= DATA_OFFSET, "there is room for the header");
        file.resize(DATA_OFFSET, 0);
        file.extend_from_slice(&self.blobs);
        file
    }
}

/// The start of a file with that stored header: everything before the filling.
pub fn signed(stored: &[u8]) -> Vec<u8> {
    let has_base = serde_json::from_slice::<Value>(stored).is_ok_and(|header| header.get("base").is_some());
    let mut file = b"BGSM".to_vec();
    file.extend(if has_base { 17u16 } else { 16 }.to_le_bytes());
    file.extend((stored.len() as u32).to_le_bytes());
    file.extend_from_slice(stored);
    let digest = Md5::digest(&file);
    file.extend(digest);
    file
}
