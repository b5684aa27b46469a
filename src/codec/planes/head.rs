//! The head of a `planes` chunk: classes, the class of every unit, and the directory of blocks.

use super::pool::Pool;
use crate::codec::checked;
use crate::float::Layout;
use crate::limits::{BLOCK_WORDS, MAX_CLASSES};
use crate::rans::FreqTable;
use crate::rans::bits::{put_varint, take_u8, take_u32, take_varint};
use crate::rans::short;

/// How one stream of the blocks of a class is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there are a few of them for millions of words")]
pub enum Coding {
    /// As it is.
    Raw,
    /// One symbol everywhere, stored here.
    Constant(u8),
    /// rANS with a table of the pool.
    Pooled(u8),
    /// rANS with a table of its own.
    Own(FreqTable),
}

impl Coding {
    /// Whether blocks hold an rANS stream for it.
    pub fn is_rans(&self) -> bool {
        matches!(self, Coding::Pooled(_) | Coding::Own(_))
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Coding::Raw => out.push(0),
            Coding::Constant(symbol) => out.extend([1, *symbol]),
            Coding::Pooled(index) => out.extend([2, *index]),
            Coding::Own(table) => {
                out.push(3);
                out.extend(table.to_bytes());
            }
        }
    }

    fn take(bytes: &mut &[u8]) -> Option<Coding> {
        Some(match take_u8(bytes)? {
            0 => Coding::Raw,
            1 => Coding::Constant(take_u8(bytes)?),
            2 => Coding::Pooled(take_u8(bytes)?),
            3 => Coding::Own(FreqTable::take(bytes)?),
            _ => return None,
        })
    }
}

/// How the blocks of a class are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// The key stream.
    pub key: Coding,
    /// The low bytes, lowest first.
    pub low: Vec<Coding>,
}

impl Class {
    /// The codings in the order in which blocks hold their streams.
    pub fn codings(&self) -> impl Iterator<Item = &Coding> {
        std::iter::once(&self.key).chain(self.low.iter().rev())
    }
}

/// A block in the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockEntry {
    /// Its length.
    pub bytes: u32,
    /// Its CRC-32.
    pub crc: u32,
}

/// Words of a block that lie together in the chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Their first one, counted in the block.
    pub from: usize,
    /// Their first one, counted in the chunk.
    pub start: usize,
    /// Their number.
    pub len: usize,
}

/// The head of a chunk.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of words of the chunk.
    pub n_words: usize,
    /// The classes.
    pub classes: Vec<Class>,
    /// Words of a unit.
    pub unit_words: usize,
    /// The class of each unit; empty with one class.
    pub unit_classes: Vec<u8>,
    /// Blocks, classes in order, each class's blocks in order.
    pub blocks: Vec<BlockEntry>,
}

impl Head {
    /// Number of words of each class.
    pub fn run_words(&self) -> Vec<usize> {
        run_words(self.n_words, self.classes.len(), self.unit_words, &self.unit_classes)
    }

    /// The stored form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        put_varint(&mut out, self.classes.len() as u64);
        for coding in self.classes.iter().flat_map(Class::codings) {
            coding.put(&mut out);
        }
        if self.classes.len() > 1 {
            put_varint(&mut out, self.unit_words as u64);
            let mut counts = [0u32; 256];
            // Every class in use must keep a slot, however rare it is.
            self.unit_classes.iter().for_each(|&class| counts[class as usize] += 1 << 12);
            let (table, _) = FreqTable::fit(&counts).expect("a chunk of several classes uses two of them");
            out.extend(table.to_bytes());
            short::encode(&table, &self.unit_classes, &mut out);
        }
        for block in &self.blocks {
            put_varint(&mut out, block.bytes as u64 / 4);
            out.extend(block.crc.to_le_bytes());
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Parses the head of a chunk of `n_words` words whose blocks take `body_bytes`. The error says what is wrong with it.
    pub fn parse(bytes: &[u8], pool: &Pool, n_words: usize, body_bytes: usize) -> Result<Head, &'static str> {
        let mut rest = checked(bytes).ok_or("the chunk's head does not match its checksum")?;
        Self::take(&mut rest, pool, n_words, body_bytes)
            .filter(|_| rest.is_empty())
            .ok_or("the chunk's head contradicts itself")
    }

    fn take(rest: &mut &[u8], pool: &Pool, n_words: usize, body_bytes: usize) -> Option<Head> {
        let layout = pool.layout;
        let n_classes = usize::try_from(take_varint(rest)?).ok().filter(|n| (1..=MAX_CLASSES).contains(n))?;
        let mut classes = Vec::with_capacity(n_classes);
        for _ in 0..n_classes {
            let key = Coding::take(rest)?;
            let mut low = (0..layout.low_bytes()).map(|_| Coding::take(rest)).collect::<Option<Vec<_>>>()?;
            low.reverse();
            let is_known = match key {
                Coding::Pooled(index) => (index as usize) < pool.tables.len(),
                Coding::Raw => allows_raw_keys(layout),
                _ => true,
            };
            if !is_known || low.iter().any(|coding| matches!(coding, Coding::Pooled(_))) {
                return None;
            }
            classes.push(Class { key, low });
        }
        let mut unit_words = n_words;
        let mut unit_classes = Vec::new();
        if n_classes > 1 {
            unit_words = usize::try_from(take_varint(rest)?).ok().filter(|&n| n > 0)?;
            unit_classes = vec![0; n_words.div_ceil(unit_words)];
            let table = FreqTable::take(rest)?;
            short::take_symbols(&table, rest, &mut unit_classes)?;
            if unit_classes.iter().any(|&class| class as usize >= n_classes) {
                return None;
            }
        }
        let mut blocks = Vec::new();
        let mut sum = 0u64;
        for words in run_words(n_words, n_classes, unit_words, &unit_classes) {
            for _ in 0..words.div_ceil(BLOCK_WORDS) {
                let bytes = u32::try_from(take_varint(rest)?.checked_mul(4)?).ok()?;
                sum += bytes as u64;
                blocks.push(BlockEntry {
                    bytes,
                    crc: take_u32(rest)?,
                });
            }
        }
        (sum == body_bytes as u64).then_some(Head {
            n_words,
            classes,
            unit_words,
            unit_classes,
            blocks,
        })
    }

    /// The class of each block, and where its words lie in the chunk.
    pub fn places(&self) -> Vec<(usize, Vec<Piece>)> {
        let mut places = Vec::with_capacity(self.blocks.len());
        for class in 0..self.classes.len() {
            let mut pieces: Vec<Piece> = Vec::new();
            let mut from = 0;
            for (mut start, mut words) in self.units_of(class) {
                while words > 0 {
                    let len = words.min(BLOCK_WORDS - from);
                    match pieces.last_mut() {
                        Some(last) if last.start + last.len == start => last.len += len,
                        _ => pieces.push(Piece { from, start, len }),
                    }
                    (start, words, from) = (start + len, words - len, from + len);
                    if from == BLOCK_WORDS {
                        places.push((class, std::mem::take(&mut pieces)));
                        from = 0;
                    }
                }
            }
            if from > 0 {
                places.push((class, pieces));
            }
        }
        places
    }

    fn units_of(&self, class: usize) -> impl Iterator<Item = (usize, usize)> {
        let is_single = self.classes.len() == 1;
        let n_units = if is_single { self.n_words.min(1) } else { self.unit_classes.len() };
        (0..n_units)
            .filter(move |&unit| is_single || self.unit_classes[unit] as usize == class)
            .map(|unit| {
                let start = unit * self.unit_words;
                (start, self.unit_words.min(self.n_words - start))
            })
    }
}

/// Keys may lie raw when they are whole bytes with nothing below them.
pub fn allows_raw_keys(layout: Layout) -> bool {
    !layout.has_sign()
}

fn run_words(n_words: usize, n_classes: usize, unit_words: usize, unit_classes: &[u8]) -> Vec<usize> {
    if n_classes == 1 {
        return vec![n_words];
    }
    let mut runs = vec![0; n_classes];
    for (unit, &class) in unit_classes.iter().enumerate() {
        runs[class as usize] += unit_words.min(n_words - unit * unit_words);
    }
    runs
}
