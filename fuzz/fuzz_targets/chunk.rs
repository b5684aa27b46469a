//! Any chunk of planes, with the checksums that a writer would give it, is decoded or refused, by every instruction set alike.
#![no_main]

use bigsmall::Isa;
use bigsmall::codec::Codec;
use bigsmall::codec::chunk::Decoder;
use bigsmall::codec::planes::Pools;
use bigsmall::float::Layout;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Chunk<'a> {
    codec: u8,
    layout: u8,
    n_words: u16,
    /// The tables blob, its checksum left out.
    tables: &'a [u8],
    /// What comes before the head of planes: a palette, the words of a row, the parts of sparse words.
    prefix: &'a [u8],
    /// The head of planes up to its directory.
    head: &'a [u8],
    /// The blocks.
    blocks: Vec<&'a [u8]>,
    /// The part of the chunk that is read after the whole.
    part: (u16, u16),
}

fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// A block filled to a multiple of four bytes.
fn filled(block: &[u8]) -> Vec<u8> {
    let mut block = block.to_vec();
    block.resize(block.len().next_multiple_of(4), 0);
    block
}

fn varint(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// The head of planes with a directory of these blocks.
fn planes_head(head: &[u8], blocks: &[Vec<u8>]) -> Vec<u8> {
    let mut head = head.to_vec();
    for block in blocks {
        head.extend(varint(block.len() / 4));
        head.extend(crc32fast::hash(block).to_le_bytes());
    }
    seal(head)
}

fuzz_target!(|chunk: Chunk| {
    let codec = [Codec::Planes, Codec::Palette, Codec::Sparse, Codec::RowDelta][chunk.codec as usize % 4];
    let layout = Layout::ALL[chunk.layout as usize % Layout::ALL.len()];
    let tables = if chunk.tables.is_empty() {
        Vec::new()
    } else {
        seal(chunk.tables.to_vec())
    };
    let pools = Pools::from_bytes(&tables).unwrap_or_default();
    let n_words = chunk.n_words as usize;
    let blocks: Vec<Vec<u8>> = chunk.blocks.iter().map(|block| filled(block)).collect();
    let body = blocks.concat();
    let head = match codec {
        Codec::Planes => planes_head(chunk.head, &blocks),
        Codec::Sparse => {
            let (mask, values) = blocks.split_at(blocks.len().min(1));
            let (mask_head, values_head) = chunk.head.split_at(chunk.head.len() / 2);
            let mask_head = planes_head(mask_head, mask);
            let n_values = chunk.prefix.first().map_or(1, |&n| n as usize);
            let mask_bytes = varint(mask.concat().len());
            seal(
                [
                    varint(n_values),
                    varint(mask_head.len()),
                    mask_head,
                    mask_bytes,
                    planes_head(values_head, values),
                ]
                .concat(),
            )
        }
        _ => seal([chunk.prefix, &planes_head(chunk.head, &blocks)].concat()),
    };
    let width = layout.word_bytes();
    let mut first = None;
    for isa in [Isa::SCALAR].into_iter().chain(Isa::available()) {
        let decoder = Decoder::new(isa, codec, layout, &pools, &[], &head, 0..n_words, body.len());
        let decode = |range: std::ops::Range<usize>| {
            let decoder = decoder.as_ref().ok()?;
            let mut out = vec![0; range.len() * width];
            let parts = decoder.parts(&range, body.len());
            let parts: Vec<&[u8]> = parts.into_iter().map(|part| &body[part]).collect();
            decoder.decode(&parts, &[], &range, &mut out).ok().map(|()| out)
        };
        let whole = decode(0..n_words);
        let (a, b) = (chunk.part.0 as usize % (n_words + 1), chunk.part.1 as usize % (n_words + 1));
        let range = a.min(b)..a.max(b);
        if let (Some(whole), Some(part)) = (&whole, decode(range.clone())) {
            assert!(
                part == whole[range.start * width..range.end * width],
                "a part differs from the whole"
            );
        }
        assert!(*first.get_or_insert_with(|| whole.clone()) == whole, "{isa} differs");
    }
});
