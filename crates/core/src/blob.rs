//! Blobs: values that are written once into blocks of their own and replaced as a whole.

use lodefs_layout::blob::{BLOB_HEAD_SIZE, BLOB_SIZE_MAX, BlobHead, blocks_for};
use zerocopy::IntoBytes;

use crate::alloc::{Purpose, Request, Run};
use crate::error::{Error, Result};
use crate::tx::{Tx, offset_of};
use crate::types::Ino;
use crate::volume::Volume;

/// The blocks of a blob at `block` with `size` bytes of content.
pub(crate) fn run(block: u64, size: usize) -> Run {
    Run { start: block, blocks: blocks_for(size) }
}

/// Reads and checks the blob of `owner` at `block`.
pub(crate) fn read(volume: &Volume, owner: Ino, block: u64, size: usize) -> Result<Vec<u8>> {
    if size > BLOB_SIZE_MAX || !volume.holds(run(block, size)) {
        return Err(Error::corrupt_inode(owner, "a blob lies outside of the volume"));
    }
    let head: BlobHead = volume.get(offset_of(block))?;
    let mut content = vec![0; size];
    volume.medium.read_meta(offset_of(block) + BLOB_HEAD_SIZE as u64, &mut content)?;
    if !head.is_valid(owner.0, &content, volume.seed) {
        return Err(Error::corrupt_inode(owner, "a blob has a wrong checksum"));
    }
    Ok(content)
}

/// Writes a blob into fresh blocks and returns the first.
pub(crate) fn write(tx: &mut Tx<'_>, volume: &Volume, owner: Ino, content: &[u8]) -> Result<Run> {
    let request = Request {
        blocks: blocks_for(content.len()),
        goal: None,
        align: None,
        contiguous: true,
        purpose: Purpose::Metadata,
    };
    let run = tx.allocate(&request)?;
    let head = BlobHead::new(owner.0, content, volume.seed);
    let mut bytes = Vec::with_capacity(BLOB_HEAD_SIZE + content.len());
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(content);
    tx.write_fresh(offset_of(run.start), &bytes)?;
    Ok(run)
}
