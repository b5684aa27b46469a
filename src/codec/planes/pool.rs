//! Frequency tables that all tensors of a file share.

use crate::codec::checked;
use crate::float::Layout;
use crate::limits::MAX_POOL_TABLES;
use crate::rans::FreqTable;
use crate::rans::bits::{take, take_u8};
use crate::rans::decode::DecodeTable;
use std::sync::OnceLock;

/// Window and key tables of all tensors of one layout.
#[derive(Debug)]
pub struct Pool {
    /// The layout.
    pub layout: Layout,
    /// Where its window onto the keys begins.
    pub base: u16,
    /// The tables.
    pub tables: Vec<FreqTable>,
    slots: Vec<OnceLock<Box<DecodeTable>>>,
}

impl Pool {
    /// A pool of the given tables.
    pub fn new(layout: Layout, base: u16, tables: Vec<FreqTable>) -> Self {
        assert!(tables.len() <= MAX_POOL_TABLES && base <= layout.max_base());
        let slots = tables.iter().map(|_| OnceLock::new()).collect();
        Self {
            layout,
            base,
            tables,
            slots,
        }
    }

    /// The decoding table of table `index`, made when first asked for.
    pub fn slots(&self, index: u8) -> &DecodeTable {
        self.slots[index as usize].get_or_init(|| DecodeTable::new(&self.tables[index as usize]))
    }
}

/// The pools of a file, one for each layout.
#[derive(Debug)]
pub struct Pools([Pool; Layout::ALL.len()]);

impl Default for Pools {
    fn default() -> Self {
        Self(Layout::ALL.map(|layout| Pool::new(layout, 0, Vec::new())))
    }
}

impl Pools {
    /// The pool of a layout.
    pub fn of(&self, layout: Layout) -> &Pool {
        &self.0[layout as usize]
    }

    /// Replaces the pool of its layout.
    pub fn set(&mut self, pool: Pool) {
        let at = pool.layout as usize;
        self.0[at] = pool;
    }

    /// The tables blob; empty if there is nothing to say.
    pub fn to_bytes(&self) -> Vec<u8> {
        let used: Vec<&Pool> = self.0.iter().filter(|pool| pool.base > 0 || !pool.tables.is_empty()).collect();
        if used.is_empty() {
            return Vec::new();
        }
        let mut out = vec![used.len() as u8];
        for pool in used {
            out.push(pool.layout as u8);
            out.extend(pool.base.to_le_bytes());
            out.push(pool.tables.len() as u8);
            pool.tables.iter().for_each(|table| out.extend(table.to_bytes()));
        }
        out.extend(crc32fast::hash(&out).to_le_bytes());
        out
    }

    /// Parses a tables blob. None if it is damaged.
    pub fn from_bytes(bytes: &[u8]) -> Option<Pools> {
        let mut pools = Pools::default();
        if bytes.is_empty() {
            return Some(pools);
        }
        let mut rest = checked(bytes)?;
        let mut before = None;
        for _ in 0..take_u8(&mut rest)? {
            let layout = Layout::from_id(take_u8(&mut rest)?)?;
            let base = u16::from_le_bytes(take(&mut rest, 2)?.try_into().ok()?);
            let tables = (0..take_u8(&mut rest)?)
                .map(|_| FreqTable::take(&mut rest))
                .collect::<Option<Vec<_>>>()?;
            if base > layout.max_base() || before >= Some(layout) {
                return None;
            }
            before = Some(layout);
            pools.set(Pool::new(layout, base, tables));
        }
        rest.is_empty().then_some(pools)
    }
}
