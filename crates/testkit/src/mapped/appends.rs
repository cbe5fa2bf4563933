//! A program that appends to files by itself.

use std::os::unix::fs::FileExt as _;
use std::panic::Location;
use std::sync::Arc;

use lodefs_core::{DataAnswer, DataGrant, DataLease, TailGrant, What as Shown};
use lodefs_layout::inode::TAIL_REVOKED;
use lodefs_pmem::{Event, What};

use super::{Care, Obedient, PROGRAM, Stage, Stored, told};

// What is stored is what is said.
const _: () = assert!(TAIL_REVOKED == lodefs_proto::server::REVOKED);

/// A file to which the program appends.
pub(super) struct Appended {
    lease: DataLease,
    grant: Option<DataGrant>,
}

impl Stage {
    /// The program appends whole words to a file: it asks the engine only if it has to, and is told that they are durable when the word with the
    /// file's size is.
    ///
    /// # Errors
    /// Of the engine, and if the medium cannot be stored to.
    #[track_caller]
    pub fn append(&mut self, path: &str, bytes: &[u8]) -> Result<(), String> {
        let location = Location::caller();
        let (grant, tail, size) = self.reserved(path, bytes.len() as u64)?;
        self.note();
        for (at, piece) in pieces(&grant, size, bytes)? {
            self.shared.write_all_at(piece, at).map_err(told)?;
            let is_streamed = self.care != Care::NoFlush;
            self.log_own(What::Store { at, bytes: piece.to_vec(), non_temporal: is_streamed });
        }
        if self.care != Care::NoFence {
            self.log_own(What::Fence { location });
        }
        let end = (size + bytes.len() as u64).to_le_bytes();
        self.shared.write_all_at(&end, tail.word).map_err(told)?;
        self.log_own(What::Store { at: tail.word, bytes: end.to_vec(), non_temporal: false });
        self.log_own(What::Flush { at: tail.word, size: end.len() as u64, location });
        self.log_own(What::Fence { location });
        self.stored.push(Stored { path: path.into(), offset: size, bytes: bytes.to_vec() });
        self.mark();
        Ok(())
    }

    /// The program does not use a file any more to which it has appended.
    pub fn end_appends(&mut self, path: &str) {
        self.appended.remove(&path.into());
        self.note();
    }

    fn log_own(&mut self, what: What) {
        self.log.push(Event { thread: PROGRAM, what });
    }

    /// What the program may append to, and the size of the file.
    fn reserved(&mut self, path: &str, more: u64) -> Result<(DataGrant, TailGrant, u64), String> {
        let node = self.node(path)?;
        if !self.appended.contains_key(&path.into()) {
            let lease = self.fs.lease_data(&node, Arc::new(Obedient), true, 1).map_err(told)?;
            self.appended.insert(path.into(), Appended { lease, grant: None });
        }
        loop {
            let appended = &self.appended[&path.into()];
            let known = appended.grant.clone().and_then(|grant| Some((grant.tail?, grant)));
            let size = match &known {
                Some((tail, _)) => self.word(tail.word)?,
                None => TAIL_REVOKED,
            };
            if let Some((tail, grant)) = known
                && size & TAIL_REVOKED == 0
                && size + more <= tail.end
            {
                return Ok((grant, tail, size));
            }
            let end = self.fs.attr(&node).map_err(told)?.size + more;
            let mut answer = None;
            appended.lease.reserve(0, end, |granted| answer = Some(granted)).map_err(told)?;
            let Some(DataAnswer::Granted(grant)) = answer else { return Err("not granted".into()) };
            if let Some(appended) = self.appended.get_mut(&path.into()) {
                appended.grant = Some(grant);
            }
        }
    }

    fn word(&self, at: u64) -> Result<u64, String> {
        let mut bytes = [0; 8];
        self.shared.read_exact_at(&mut bytes, at).map_err(told)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// Where on the medium the bytes go that are appended.
fn pieces<'b>(
    grant: &DataGrant,
    mut offset: u64,
    mut bytes: &'b [u8],
) -> Result<Vec<(u64, &'b [u8])>, String> {
    let mut pieces = Vec::new();
    while !bytes.is_empty() {
        let part = grant.parts.iter().find(|part| part.offset <= offset && offset < part.offset + part.size);
        let Some((part, Shown::Medium(start))) = part.map(|part| (part, part.what)) else {
            return Err(format!("byte {offset} was not granted"));
        };
        let size = bytes.len().min((part.offset + part.size - offset) as usize);
        let (piece, rest) = bytes.split_at(size);
        pieces.push((start + offset - part.offset, piece));
        offset += size as u64;
        bytes = rest;
    }
    Ok(pieces)
}
