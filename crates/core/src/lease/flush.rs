//! Making durable what programs have stored to their mappings, and have not flushed themselves.
//!
//! A store of a program is in a cache of a processor, under the address of the medium: whoever writes that line back makes it durable,
//! by whichever mapping. That is done at fsync, and when nobody could tell any more that there was a mapping: when a lease goes, and when
//! the file is switched (the program would then flush a copy in the cache of the host).

use lodefs_layout::BLOCK_SIZE;
use lodefs_pmem::Domain;

use super::{Bounds, Leased};
use crate::alloc::Run;
use crate::error::Result;
use crate::fs::Fs;
use crate::inode::Node;
use crate::tx::offset_of;
use crate::types::Kind;

/// Blocks that are written back with one fence.
const PIECE_BLOCKS: u64 = 1 << 14;

impl Fs {
    /// Makes durable what was stored to mappings of a file under those leases that are `meant`.
    pub(crate) fn flush_mapped(&self, node: &Node, meant: impl Fn(&Leased) -> bool) -> Result<()> {
        if node.kind() != Kind::File || self.domain().domain != Domain::MemoryController {
            return Ok(());
        }
        // Lines that are another file's by then are written back in vain, and nothing worse: so this is done without the lock.
        for run in self.stored_to(node, meant)? {
            let mut done = 0;
            while done < run.blocks {
                let blocks = PIECE_BLOCKS.min(run.blocks - done);
                let at = offset_of(run.start + done);
                let flushed = self.volume.medium.write_back(at, blocks * BLOCK_SIZE)?;
                let _in_order = self.volume.medium.fence(flushed)?;
                done += blocks;
            }
        }
        Ok(())
    }

    /// Where blocks of a file are that may have been stored to.
    fn stored_to(&self, node: &Node, meant: impl Fn(&Leased) -> bool) -> Result<Vec<Run>> {
        let stored = |leases: &[Leased]| {
            let mut stored = Bounds::default();
            leases.iter().filter(|leased| meant(leased)).for_each(|leased| stored.add(leased.stored));
            stored
        };
        if stored(&node.inode().read()?.leases).is_empty() {
            return Ok(Vec::new());
        }
        let state = self.lock_with_extents(node.inode())?;
        let stored = stored(&state.leases);
        let extents = state.extents.iter().flat_map(crate::extents::ExtentMap::iter);
        let parts = extents.map(|extent| {
            let part = stored.common(Bounds { from: extent.logical, to: extent.logical_end() });
            let start = extent.physical + (part.from - extent.logical);
            (part, start)
        });
        let runs = parts.filter(|(part, _)| !part.is_empty());
        Ok(runs.map(|(part, start)| Run { start, blocks: part.to - part.from }).collect())
    }
}
