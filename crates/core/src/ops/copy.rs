//! Copying within the volume.

use lodefs_layout::FILE_SIZE_MAX;
use rustix::io::Errno;

use crate::error::{Error, Result, ensure};
use crate::fs::Fs;
use crate::inode::Node;
use crate::types::{Flags, Kind, SeekTarget};

/// Bytes copied at a time.
const BUFFER_SIZE: usize = 1 << 20;

impl Fs {
    /// Copies up to `size` bytes from one file to another, or within one (INVAL if the ranges overlap). Holes are copied
    /// as holes where the target has none of its own. Returns how many bytes were copied: fewer at the end of the source,
    /// or if space ran out.
    pub fn copy_range(
        &self,
        from: &Node,
        from_offset: u64,
        to: &Node,
        to_offset: u64,
        size: u64,
    ) -> Result<u64> {
        let target_flags = match to.inode().read()? {
            state if state.kind() == Kind::File => state.flags(),
            _ => return Err(Errno::INVAL.into()),
        };
        ensure(!target_flags.contains(Flags::IMMUTABLE), Errno::PERM)?;
        let source_size = match from.inode().read()? {
            state if state.kind() == Kind::File => self.size_of(&state)?,
            _ => return Err(Errno::INVAL.into()),
        };
        ensure(to_offset < FILE_SIZE_MAX || size == 0, Errno::FBIG)?;
        let size =
            size.min(source_size.saturating_sub(from_offset)).min(FILE_SIZE_MAX.saturating_sub(to_offset));
        if from.ino() == to.ino() {
            let apart = from_offset + size <= to_offset || to_offset + size <= from_offset;
            ensure(apart || size == 0, Errno::INVAL)?;
        }
        let mut buffer = vec![0; BUFFER_SIZE.min(size as usize)];
        let mut done = 0;
        while done < size {
            match self.copy_part(from, from_offset + done, to, to_offset + done, size - done, &mut buffer) {
                Ok(0) => break,
                Ok(copied) => done += copied,
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(done)
    }

    fn copy_part(
        &self,
        from: &Node,
        from_offset: u64,
        to: &Node,
        to_offset: u64,
        size: u64,
        buffer: &mut [u8],
    ) -> Result<u64> {
        let source_hole = self.hole_at(from, from_offset)?.min(size);
        let hole = source_hole.min(self.hole_at(to, to_offset)?);
        if hole > 0 {
            self.write_hole(to, to_offset + hole)?;
            return Ok(hole);
        }
        // As far as there is data to copy, or data to replace by the zeros of a hole.
        let part = if source_hole > 0 {
            source_hole.min(self.data_at(to, to_offset)?)
        } else {
            self.data_at(from, from_offset)?
        };
        let wanted = (buffer.len() as u64).min(size).min(part) as usize;
        let got = self.read(from, from_offset, &mut buffer[..wanted])?;
        self.write(to, to_offset, &buffer[..got], false).map(|written| written as u64)
    }

    /// How many bytes of data there are from `offset` on, where there is some.
    fn data_at(&self, node: &Node, offset: u64) -> Result<u64> {
        match self.seek(node, offset, SeekTarget::Hole) {
            Ok(hole) => Ok(hole - offset),
            Err(Error::Refused(Errno::NXIO)) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// How many bytes of hole, or of nothing behind the end, there are from `offset` on.
    fn hole_at(&self, node: &Node, offset: u64) -> Result<u64> {
        match self.seek(node, offset, SeekTarget::Data) {
            Ok(data) => Ok(data - offset),
            Err(Error::Refused(Errno::NXIO)) => Ok(FILE_SIZE_MAX - offset.min(FILE_SIZE_MAX)),
            Err(error) => Err(error),
        }
    }
}
