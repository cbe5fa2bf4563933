//! An open file.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io;
use std::path::Path;

use lodefs_core::{Error, Fallocate, Flags, SeekTarget, SetAttr, Writer, XattrMode};
use lodefs_mmap::{MapOptions, Mapping};
use rustix::io::Errno;

use crate::attributes;
use crate::cursor::FileCursor;
use crate::dir::Dir;
use crate::mapped;
use crate::metadata::{FileTimes, Metadata};
use crate::open_options::OpenOptions;
use crate::shared::{Credentials, Held};
use lodefs_mmap::buffers;

/// What a file was opened for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) append: bool,
}

impl Access {
    pub(crate) const ALL: Self = Self { read: true, write: true, append: false };
}

/// An open regular file.
///
/// It has no position: every read and write says where, so that threads can share a file without taking turns (like
/// [`std::os::unix::fs::FileExt`]). [`File::cursor`] gives a position and [`std::io::Read`], [`std::io::Write`] and
/// [`std::io::Seek`].
///
/// Reads and writes go straight to the medium, without a cache or a buffer in between. An open file outlives its name,
/// and keeps the volume open.
///
/// ```
/// use lodefs::{File, Volume};
///
/// let volume = Volume::in_memory(16 << 20)?;
/// let file = File::create_new(&volume, "f")?;
/// file.write_all_at(b"world", 6)?;
/// file.write_all_at(b"hello ", 0)?;
/// assert_eq!(file.append(b"!")?, 11);
/// let mut buffer = [0; 12];
/// file.read_exact_at(&mut buffer, 0)?;
/// assert_eq!(&buffer, b"hello world!");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # What is durable when
/// On `cpu-cache` and `memory-controller` volumes, whatever has returned is durable. On `page` volumes, whatever
/// returned before [`sync_all`](Self::sync_all). If the program or the host crashes, a write that makes the file
/// longer is all or nothing (in pieces that end at multiples of 8 MiB); an overwrite in place is torn at any multiple
/// of 8 bytes.
#[derive(Clone)]
pub struct File {
    pub(crate) held: Held,
    access: Access,
    credentials: Credentials,
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File")
            .field("ino", &self.held.ino().0)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

impl File {
    pub(crate) fn new(held: Held, access: Access, credentials: Credentials) -> Self {
        Self { held, access, credentials }
    }

    /// Opens an existing file for reading.
    pub fn open(dir: &Dir, path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).open(dir, path)
    }

    /// Opens a file for writing: a new one, or an existing one, which is emptied.
    pub fn create(dir: &Dir, path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().write(true).create(true).truncate(true).open(dir, path)
    }

    /// Makes a file, and opens it for reading and writing. `EEXIST` if something is there.
    pub fn create_new(dir: &Dir, path: impl AsRef<Path>) -> io::Result<Self> {
        OpenOptions::new().read(true).write(true).create_new(true).open(dir, path)
    }

    /// Reads from byte `offset` on. Returns how many bytes were read: fewer than there is room for only at the end of
    /// the file.
    pub fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        check(self.access.read)?;
        buffers::filled(into, |into| Ok(self.held.fs().read(&self.held, offset, into)?))
    }

    /// Fills `into` from byte `offset` on. `UnexpectedEof` if the file ends before.
    pub fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        if self.read_at(into, offset)? == into.len() {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn writer(&self) -> io::Result<Writer> {
        Ok(self.credentials.writer(self.held.fs(), &self.held)?)
    }

    /// Writes at byte `offset`. Returns how many bytes were written: fewer only if space ran out or the largest file
    /// (2^63-1 bytes) was reached on the way. Writing beyond the end leaves a hole that reads as zeros.
    ///
    /// If the file was opened to append, the bytes go to its end, as on Linux.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let writer = self.writer()?;
        if self.access.append {
            return Ok(self.held.fs().append(&self.held, &buffers::own(bytes), writer)?.1);
        }
        check(self.access.write)?;
        Ok(self.held.fs().write(&self.held, offset, &buffers::own(bytes), writer)?)
    }

    /// Writes all of `bytes` at byte `offset`. After an error, some of them may have been written.
    pub fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = self.write_at(bytes, offset)?;
            bytes = &bytes[written..];
            offset += written as u64;
        }
        Ok(())
    }

    /// Writes all of `bytes` at the end, in one step with finding the end: threads that append do not mix. Returns the
    /// offset that they were written at.
    ///
    /// `StorageFull` if there is no room for all of them; then some of them may be there.
    pub fn append(&self, bytes: &[u8]) -> io::Result<u64> {
        check(self.access.append || self.access.write)?;
        let writer = self.writer()?;
        let (offset, written) = self.held.fs().append(&self.held, &buffers::own(bytes), writer)?;
        if written == bytes.len() { Ok(offset) } else { Err(Errno::NOSPC.into()) }
    }

    /// Cuts the file, or makes it longer with a hole that reads as zeros.
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        check(self.access.write || self.access.append)?;
        self.change(&SetAttr { size: Some(len), writer: self.writer()?, ..SetAttr::default() })
    }

    /// Gives the `len` bytes from `offset` on their blocks, zeroed where they had none, so that no later write to them
    /// runs out of space. Makes the file longer if it ends before. `StorageFull`, and nothing changed, if there is not
    /// enough space.
    pub fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(Fallocate::Allocate { keep_size: false }, offset, len)
    }

    /// Like [`allocate`](Self::allocate), but the file stays as long as it is.
    pub fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(Fallocate::Allocate { keep_size: true }, offset, len)
    }

    /// Gives the whole blocks among the `len` bytes from `offset` on back; the bytes read as zeros. The file stays as
    /// long as it is.
    pub fn punch_hole(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(Fallocate::PunchHole, offset, len)
    }

    /// Makes the `len` bytes from `offset` on zeros that have their blocks. Makes the file longer if it ends before.
    pub fn zero_range(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(Fallocate::ZeroRange { keep_size: false }, offset, len)
    }

    fn fallocate(&self, how: Fallocate, offset: u64, len: u64) -> io::Result<()> {
        check(self.access.write || self.access.append)?;
        self.held.fs().take_privileges(&self.held, self.writer()?)?;
        Ok(self.held.fs().fallocate(&self.held, how, offset, len)?)
    }

    /// The first offset from `offset` on where there is data; `None` if there is only hole up to the end.
    pub fn seek_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.seek_to(SeekTarget::Data, offset)
    }

    /// The first offset from `offset` on where there is a hole, of which the end of the file is one; `None` if
    /// `offset` is not within the file.
    pub fn seek_hole(&self, offset: u64) -> io::Result<Option<u64>> {
        self.seek_to(SeekTarget::Hole, offset)
    }

    fn seek_to(&self, target: SeekTarget, offset: u64) -> io::Result<Option<u64>> {
        match self.held.fs().seek(&self.held, offset, target) {
            Ok(found) => Ok(Some(found)),
            Err(Error::Refused(Errno::NXIO)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Copies up to `len` bytes from `offset` on to `to_offset` in another file of the same volume (`EXDEV` if it is
    /// of another), or in this one (`EINVAL` if the ranges overlap). Holes stay holes where the target has none of its
    /// own data. Returns how many bytes were copied: fewer at the end of this file, or if space ran out.
    pub fn copy_range(&self, offset: u64, to: &Self, to_offset: u64, len: u64) -> io::Result<u64> {
        check(self.access.read)?;
        check(to.access.write && !to.access.append)?;
        self.held.check_same_volume(&to.held)?;
        to.held.fs().take_privileges(&to.held, to.writer()?)?;
        Ok(self.held.fs().copy_range(&self.held, offset, &to.held, to_offset, len)?)
    }

    /// Makes everything that returned before durable, as far as the domain can: data, size, names. Nearly free but on
    /// `page` volumes, where it waits for the device.
    pub fn sync_all(&self) -> io::Result<()> {
        Ok(self.held.fs().fsync(&self.held, false)?)
    }

    /// Like [`sync_all`](Self::sync_all); it may leave out what is not needed to find the data again.
    pub fn sync_data(&self) -> io::Result<()> {
        Ok(self.held.fs().fsync(&self.held, true)?)
    }

    /// What is known of the file.
    pub fn metadata(&self) -> io::Result<Metadata> {
        attributes::metadata(&self.held)
    }

    /// Sets who may do what, once the volume is mounted.
    #[expect(clippy::needless_pass_by_value, reason = "as in the standard library")]
    pub fn set_permissions(&self, permissions: Permissions) -> io::Result<()> {
        self.change(&attributes::permissions_change(&permissions))
    }

    /// Sets owner and group; what is `None` stays.
    pub fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.change(&SetAttr { uid, gid, ..SetAttr::default() })
    }

    /// Sets times.
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        self.change(&times.to_change())
    }

    fn change(&self, change: &SetAttr) -> io::Result<()> {
        let change = SetAttr { by_handle: true, ..*change };
        self.held.fs().set_attr(&self.held, &change)?;
        Ok(())
    }

    /// Sets the persistent flags; those that are not named are cleared.
    pub fn set_flags(&self, flags: Flags) -> io::Result<()> {
        Ok(self.held.fs().set_flags(&self.held, flags, None)?)
    }

    /// The value of an extended attribute; `None` if there is none of that name.
    pub fn xattr(&self, name: impl AsRef<OsStr>) -> io::Result<Option<Vec<u8>>> {
        attributes::xattr(&self.held, name.as_ref())
    }

    /// Sets an extended attribute, whether it exists or not.
    pub fn set_xattr(&self, name: impl AsRef<OsStr>, value: impl AsRef<[u8]>) -> io::Result<()> {
        attributes::set_xattr(&self.held, name.as_ref(), value.as_ref(), XattrMode::Set)
    }

    /// The names of all extended attributes.
    pub fn xattr_names(&self) -> io::Result<Vec<OsString>> {
        attributes::xattr_names(&self.held)
    }

    /// Removes an extended attribute. `ENODATA` if there is none of that name.
    pub fn remove_xattr(&self, name: impl AsRef<OsStr>) -> io::Result<()> {
        attributes::remove_xattr(&self.held, name.as_ref())
    }

    /// A position in this file, at its start, to read, write and seek with.
    pub fn cursor(&self) -> FileCursor<&Self> {
        FileCursor::new(self)
    }

    /// Like [`cursor`](Self::cursor); the cursor owns the file.
    pub fn into_cursor(self) -> FileCursor<Self> {
        FileCursor::new(self)
    }

    /// Maps a part of the file into memory: loads and stores reach the medium itself, with no call to the library.
    ///
    /// ```
    /// use lodefs::{File, MapOptions, Volume};
    ///
    /// let volume = Volume::in_memory(16 << 20)?;
    /// let file = File::create_new(&volume, "f")?;
    /// file.set_len(8192)?;
    /// let mapping = file.map(&MapOptions { offset: 0, size: 8192, writable: true, sync: false })?;
    /// mapping.write(5000, b"stored")?; // or through `mapping.as_ptr()`
    /// mapping.persist(5000..5006)?;
    /// let mut read = [0; 6];
    /// file.read_exact_at(&mut read, 5000)?;
    /// assert_eq!(&read, b"stored");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// The mapping is always [direct](crate::MappingKind::Direct), and keeps the volume open. A store to a hole gives it a block first, or raises
    /// SIGBUS if there is no room, as an access beyond the end of the file does. A mapping may be the buffer of any call to this library,
    /// which then makes a copy of it.
    ///
    /// `EACCES` if the file is not open for reading, or not for writing and the mapping is to be `writable`; `EINVAL` for an offset or a
    /// size that cannot be mapped; `EPERM` if it should be writable, and the file is `IMMUTABLE` or `APPEND`; `EOPNOTSUPP` (`Unsupported`)
    /// if it should be `sync`, and the domain is not [`CpuCache`](crate::Domain::CpuCache) or
    /// [`MemoryController`](crate::Domain::MemoryController), or if the medium cannot be mapped: on a [`Page`](crate::Domain::Page)
    /// volume, no file can.
    pub fn map(&self, options: &MapOptions) -> io::Result<Mapping> {
        let Access { read, write, append } = self.access;
        if !read || options.writable && !(write || append) {
            return Err(Errno::ACCESS.into());
        }
        mapped::map(&self.held, options)
    }

    pub(crate) fn appends(&self) -> bool {
        self.access.append
    }
}

/// `EBADF`, unless the file was opened for what is wanted.
fn check(opened_for_it: bool) -> Result<(), Errno> {
    if opened_for_it { Ok(()) } else { Err(Errno::BADF) }
}
