//! Creating the file that a volume lies in.
//!
//! A new file has no name before it is complete: whatever ends the process, the path leads to nothing or to a complete
//! file. An empty file that has a name already begins with [`NewFile::unfinished`] from before its first other byte
//! until the caller replaces these bytes, so that an interrupted attempt can be told from content and made again.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs, ftruncate};
use rustix::io::Errno;

use crate::domain::Domain;
use crate::error::MediumError;
use crate::lock::LockedFile;
use crate::medium::Medium;
use crate::open::{self, Access, OpenOptions, open_error};
use crate::place::{self, Place};

/// Whether the host sets room aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserve {
    /// All of it now: the volume cannot run into a full host later. On hosts that cannot, like `Sparse`.
    Full,
    /// As it is used. If the host is full by then, a store to the volume is lost, and the medium refuses all that follows
    /// ([`MediumError::HostFull`]).
    Sparse,
}

/// A file that is to be made.
#[derive(Clone, Copy, Debug)]
pub struct NewFile<'a> {
    /// Where. There is nothing, an empty file, or a file that an interrupted attempt left.
    pub path: &'a Path,
    /// Its size, in bytes.
    pub size: u64,
    /// Whether the host sets room aside.
    pub reserve: Reserve,
    /// The first bytes of a file with a name that is not complete.
    pub unfinished: &'a [u8],
    /// The domain to treat the file as while it is filled; see [`OpenOptions`].
    pub force_domain: Option<Domain>,
}

impl NewFile<'_> {
    /// Makes the file, all zero and readable by its owner only, or gives an empty file its size. Then lets `store` write
    /// the content. A new file gets its name when `store` has succeeded and the content is durable; its name is durable
    /// when this function returns. If anything fails, no new file is left, and an empty file is empty again.
    ///
    /// A file with content is refused. A file that can be mapped directly if it is marked for that is marked.
    pub fn make<E: From<MediumError>>(&self, store: impl FnOnce(&Medium) -> Result<(), E>) -> Result<(), E> {
        let (file, place) = place::find(self.path).map_err(|errno| open_error(self.path, errno))?;
        let locked = self.lock_empty(file).map_err(E::from);
        let filled = locked.and_then(|file| self.fill(file, &place, store));
        if filled.is_err() {
            place.give_up();
        }
        filled
    }

    fn fill<E: From<MediumError>>(
        &self,
        file: LockedFile,
        place: &Place,
        store: impl FnOnce(&Medium) -> Result<(), E>,
    ) -> Result<(), E> {
        let sized = self.give_size(&file, place).inspect_err(|_| place.empty(&file));
        sized.map_err(|errno| self.size_error(errno))?;
        let options = OpenOptions { access: Access::ReadWrite, force_domain: self.force_domain };
        // The medium has the file from here on: the file stays locked, and can be emptied, until the medium goes.
        let medium = open::open_made(self.path, file, options)?;
        let complete = store(&medium).and_then(|()| {
            let published = medium.file.sync_all().and_then(|()| place.publish(&medium.file));
            published.map_err(|error| self.publish_error(error).into())
        });
        complete.inspect_err(|_| place.empty(&medium.file))
    }

    /// Takes the lock that a [`Medium`] takes, so that no other process starts to use the file. The file is empty then.
    fn lock_empty(&self, file: File) -> Result<LockedFile, MediumError> {
        let path = || self.path.to_path_buf();
        let metadata = file.metadata().map_err(|source| io_error(self.path, "look at it", source))?;
        if !metadata.is_file() {
            return Err(MediumError::NotAMedium {
                path: path(),
                found: "something other than a regular file",
            });
        }
        let is_unfinished = metadata.len() > 0
            && is_unfinished(&file, self.unfinished)
                .map_err(|source| io_error(self.path, "read it", source))?;
        if metadata.len() > 0 && !is_unfinished {
            return Err(MediumError::NotEmpty { path: path() });
        }
        let file = LockedFile::lock(self.path, file, Access::ReadWrite)?;
        if is_unfinished {
            ftruncate(&*file, 0).map_err(|errno| io_error(self.path, "empty it", errno.into()))?;
        }
        Ok(file)
    }

    fn give_size(&self, file: &File, place: &Place) -> Result<(), Errno> {
        if self.reserve == Reserve::Full && self.size > 0 {
            // Or else what others have on the host would run out of space until the attempt is given up.
            let host = fstatvfs(file)?;
            let is_limited = host.f_blocks > 0;
            if is_limited && host.f_bfree.saturating_mul(host.f_frsize) < self.size {
                return Err(Errno::NOSPC);
            }
        }
        if place.has_name() && self.size >= self.unfinished.len() as u64 {
            let written = file.write_all_at(self.unfinished, 0).and_then(|()| file.sync_all());
            written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        if self.reserve == Reserve::Full && self.size > 0 {
            match fallocate(file, FallocateFlags::empty(), 0, self.size) {
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                done => return done,
            }
        }
        ftruncate(file, self.size)
    }

    fn size_error(&self, errno: Errno) -> MediumError {
        let path = self.path.to_path_buf();
        match errno {
            Errno::FBIG => MediumError::TooLarge { path, size: self.size },
            Errno::NOSPC | Errno::DQUOT => {
                MediumError::NoSpace { path, size: self.size, source: errno.into() }
            }
            _ => io_error(self.path, "give it its size", errno.into()),
        }
    }

    fn publish_error(&self, source: io::Error) -> MediumError {
        match source.kind() {
            io::ErrorKind::AlreadyExists => MediumError::NotEmpty { path: self.path.to_path_buf() },
            io::ErrorKind::NotFound => MediumError::NotFound { path: self.path.to_path_buf(), source },
            _ => io_error(self.path, "give it its name", source),
        }
    }
}

/// Makes a file of `size` bytes, all zero, readable by its owner only; or gives an empty file that size. A file with
/// content is refused. See [`NewFile::make`].
pub fn create_file(path: &Path, size: u64, reserve: Reserve) -> Result<(), MediumError> {
    NewFile { path, size, reserve, unfinished: &[], force_domain: None }.make(|_| Ok(()))
}

/// Whether a file begins with these bytes. Without such bytes no file does.
fn is_unfinished(file: &File, unfinished: &[u8]) -> io::Result<bool> {
    let mut start = vec![0; unfinished.len()];
    match file.read_exact_at(&mut start, 0) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| !start.is_empty() && start == unfinished),
    }
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> MediumError {
    MediumError::Io { name: path.display().to_string(), action, source }
}
