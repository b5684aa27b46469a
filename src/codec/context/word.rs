//! One word: sign, exponent, mantissa, given the magnitude and the mean to expect.

use super::mixer::Mixer;
use super::range::Coder;
use super::scale::exp2;
use super::table::{SYMBOLS, Tables};

/// Exponents relative to the expected one that have a symbol and are reached a step at a time.
const RELATIVE: std::ops::Range<i32> = -14..8;
/// Mantissa bits that are modelled.
const TOP: u32 = 3;

/// Kinds of decision: where the relative exponent goes, the bits of the mantissa, whether the sign is the usual one.
const NODES: usize = 88;
const STEP: i32 = 15;
const MANTISSA: usize = 24;
const SIGN: usize = 72;

/// Parts of an octave, and classes of means, with contexts of their own.
const PARTS: usize = 8;
const MEANS: usize = 7;
/// Expected octaves with tables of their own: −1 and less, 0 … 13, 14 and more. From 14 on no exponent with a symbol is cut off at 0.
const OCTAVES: i32 = 16;
/// Half octaves of the expected level, as far as they are told apart.
const HALVES: usize = 256;

/// What is expected of a word.
#[derive(Clone, Copy)]
pub struct Expected {
    /// Level.
    pub level: i32,
    /// Signed, in units of the scale, 8 fraction bits.
    pub mean: i32,
    /// Low bits of the word that are zero in the whole row.
    pub n_trailing: u32,
}

/// Codes words with a sign, `E` bits of exponent and `M` of mantissa.
pub struct Word<const E: u32, const M: u32> {
    mixer: Mixer<NODES>,
    tables: Option<Tables>,
}

impl<const E: u32, const M: u32> Word<E, M> {
    /// Bits of a word but its sign.
    const MAGNITUDE: u64 = (1 << (E + M)) - 1;
    /// Mantissa bits that are not modelled.
    pub const LOW: u32 = M - TOP;

    /// Nothing learned. Tables take over after the first `n_mixed` words if there are more.
    pub fn new(n_mixed: usize, n_words: usize) -> Self {
        let tables = (n_mixed < n_words).then(|| Tables::new(OCTAVES as usize * PARTS * MEANS, n_mixed));
        Self {
            mixer: Mixer::new(PARTS * MEANS, HALVES * 8),
            tables,
        }
    }

    /// The logarithm of a word's magnitude, in octaves with 16 fraction bits.
    #[inline(always)]
    pub fn level(word: u64) -> i32 {
        let magnitude = word & Self::MAGNITUDE;
        if M >= 16 {
            (magnitude >> (M - 16)) as i32
        } else {
            (magnitude << (16 - M)) as i32
        }
    }

    /// The value of a word that is `above` octaves over its scale, 8 fraction bits.
    #[inline(always)]
    pub fn value(word: u64, above: i32) -> i32 {
        let value = exp2(above) >> 4;
        if word > Self::MAGNITUDE { -value } else { value }
    }

    /// Comes before each word of the chunk, zeros too.
    #[inline(always)]
    pub fn start(&mut self) {
        if let Some(tables) = &mut self.tables {
            tables.start_word();
        }
    }

    /// Codes a word.
    #[inline(always)]
    pub fn code<C: Coder>(&mut self, coder: &mut C, expected: Expected, word: u64) -> u64 {
        let octave = expected.level >> 16;
        let part = (expected.level & 0xFFFF) as usize >> 13;
        let contexts = (part * MEANS, ((expected.level >> 15) as usize % HALVES) * 8);

        let eighths = (expected.mean.unsigned_abs() >> 5).min(15) as usize;
        let usual = expected.mean < 0;
        let mut is_usual = (word > Self::MAGNITUDE) == usual;
        is_usual = match eighths {
            0 => coder.raw(1, is_usual as u32) == 1,
            _ => self.mixer.code(coder, contexts, SIGN + eighths, is_usual),
        };
        let is_negative = is_usual == usual;
        let quarters = (eighths / 2).min(3);
        let mean = if is_usual || quarters == 0 { quarters } else { quarters + 3 };

        let exponent = ((word & Self::MAGNITUDE) >> M) as i32;
        let top = (word >> Self::LOW) as usize & 7;
        let contexts = (contexts.0 + mean, contexts.1 + mean);
        let (exponent, top) = if let Some(tables) = &mut self.tables {
            let (table, is_built) = tables.get((octave.clamp(-1, OCTAVES - 2) + 1) as usize * PARTS * MEANS + contexts.0);
            let mut symbol = 0;
            if is_built {
                if C::ENCODES {
                    symbol = symbol_of(exponent - octave, top);
                    symbol *= table.has(symbol) as usize;
                }
                symbol = coder.symbol(table, symbol);
            }
            let (exponent, top) = if symbol > 0 {
                // The mask is for forged chunks: a table is shared by octaves that lie further from the ends.
                (
                    (octave + RELATIVE.start + (symbol as i32 - 1) / 8) & ((1 << E) - 1),
                    (symbol - 1) % 8,
                )
            } else {
                Self::mixed(&mut self.mixer, coder, octave, contexts, exponent, top)
            };
            table.count(symbol_of(exponent - octave, top));
            (exponent, top)
        } else {
            Self::mixed(&mut self.mixer, coder, octave, contexts, exponent, top)
        };

        let mut low = 0;
        if Self::LOW > 0 {
            let n = Self::LOW - expected.n_trailing;
            let bits = (word & ((1 << Self::LOW) - 1)) >> expected.n_trailing;
            if Self::LOW > 32 {
                let (first, second) = (n.min(32), n.saturating_sub(32));
                low = coder.raw(first, (bits & ((1 << first) - 1)) as u32) as u64;
                low |= (coder.raw(second, (bits >> first) as u32) as u64) << first;
            } else {
                low = coder.raw(n, bits as u32) as u64;
            }
            low <<= expected.n_trailing;
        }
        (is_negative as u64) << (E + M) | (exponent as u64) << M | (top as u64) << Self::LOW | low
    }

    /// Codes exponent and top mantissa bits by decisions.
    #[inline(always)]
    fn mixed<C: Coder>(
        mixer: &mut Mixer<NODES>,
        coder: &mut C,
        octave: i32,
        contexts: (usize, usize),
        exponent: i32,
        top: usize,
    ) -> (i32, usize) {
        let wanted = exponent - octave;
        let mut relative;
        if mixer.code(coder, contexts, STEP as usize, wanted >= 0) {
            relative = 0;
            while relative < RELATIVE.end && mixer.code(coder, contexts, (STEP + 1 + relative) as usize, wanted > relative) {
                relative += 1;
            }
        } else {
            relative = -1;
            while relative >= RELATIVE.start
                && octave + relative > 0
                && mixer.code(coder, contexts, (STEP + relative) as usize, wanted < relative)
            {
                relative -= 1;
            }
        }
        let mut coded = octave + relative;
        if !RELATIVE.contains(&relative) || !(0..1 << E).contains(&coded) {
            coded = coder.raw(E, exponent as u32) as i32;
        }
        let class = if coded == 0 { 5 } else { (relative.clamp(-2, 2) + 2) as usize };
        let mut node = 1;
        for i in (0..TOP).rev() {
            node = node << 1 | mixer.code(coder, contexts, MANTISSA + class * 8 + node, top >> i & 1 == 1) as usize;
        }
        (coded, node - 8)
    }
}

/// The symbol of a relative exponent and the top of a mantissa, 0 if it has none.
#[inline(always)]
fn symbol_of(relative: i32, top: usize) -> usize {
    const _: () = assert!(((RELATIVE.end - RELATIVE.start) * 8) as usize + 1 == SYMBOLS);
    if RELATIVE.contains(&relative) {
        1 + (relative - RELATIVE.start) as usize * 8 + top
    } else {
        0
    }
}
