//! Differences of any words to any base come back, the same on every instruction set; damaged ones are refused or decoded alike.
#![no_main]

use bigsmall::Isa;
use bigsmall::codec::Spare;
use bigsmall::codec::delta::decode::Decoder;
use bigsmall::codec::delta::encode::{Plan, encode};
use bigsmall::float::Layout;
use libfuzzer_sys::fuzz_target;

fn decode(isa: Isa, layout: Layout, head: &[u8], body: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let n = base.len() / layout.word_bytes();
    let decoder = Decoder::new(isa, layout, head, n, body.len()).ok()?;
    let parts: Vec<&[u8]> = decoder.blocks_of(&(0..n)).map(|block| &body[decoder.block_bytes(block)]).collect();
    let mut out = vec![0; base.len()];
    decoder.decode(&parts, base, &(0..n), &mut out).ok().map(|()| out)
}

/// The head with its checksum as it should be.
fn sealed(head: &[u8]) -> Vec<u8> {
    let content = &head[..head.len() - 4];
    [content, &crc32fast::hash(content).to_le_bytes()].concat()
}

fuzz_target!(|data: &[u8]| {
    // A layout, an edit of the head and one of the body, then base words and as many words.
    let Some((&[id, at, byte, body_at, body_byte], data)) = data.split_first_chunk::<5>() else {
        return;
    };
    let Some(layout) = Layout::from_id(id % 9) else { return };
    let n_bytes = data.len() / 2 / layout.word_bytes() * layout.word_bytes();
    let (base, words) = (&data[..n_bytes], &data[n_bytes..2 * n_bytes]);
    let spare = Spare::default();
    let of = |isa| Plan {
        layout,
        isa,
        spare: &spare,
    };
    let coded = encode(of(Isa::SCALAR), words, base);
    let (mut head, mut body) = (coded.head.clone(), coded.body.clone());
    let place = at as usize % (head.len() - 4);
    head[place] ^= byte;
    if !body.is_empty() {
        let place = body_at as usize % body.len();
        body[place] ^= body_byte;
    }
    // The checksum of the only block, where there is only one.
    if coded.body.len() == body.len() && !body.is_empty() && head.len() > 12 {
        let crc = head.len() - 12;
        head[crc..crc + 4].copy_from_slice(&crc32fast::hash(&body).to_le_bytes());
    }
    let head = sealed(&head);
    let damaged = decode(Isa::SCALAR, layout, &head, &body, base);
    for isa in Isa::available() {
        assert!(encode(of(isa), words, base) == coded, "{isa} differs");
        assert!(
            decode(isa, layout, &coded.head, &coded.body, base).as_deref() == Some(words),
            "{isa}"
        );
        assert!(decode(isa, layout, &head, &body, base) == damaged, "{isa} differs");
    }
});
