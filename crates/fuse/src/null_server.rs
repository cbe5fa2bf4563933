//! A file system that does nothing: the yardstick for mounts.
//!
//! It has the library, the mount options, the negotiated features and the threads of a real mount, and answers
//! with constants what a program does that makes, renames and deletes files, writes to them and reads them. What
//! such a program sees is what the kernel remembers by itself: a new name was not there, and is from then on. So
//! the time that it takes is the time of the kernel and the library.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, ReplyXattr, Request, SessionACL, TimeOrNow, WriteFlags,
};

use crate::attach::{self, MountError};
use crate::negotiate::{self, CACHE_TTL, WRITE_SIZE_MAX};
use crate::options::MountOptions;
use crate::{convert, session};

/// What every read is answered with.
static ZEROS: [u8; WRITE_SIZE_MAX as usize] = [0; WRITE_SIZE_MAX as usize];

/// What files are said to have if the kernel asks: more than anybody writes.
const FILE_SIZE: u64 = 1 << 40;

/// Inode numbers of this remainder modulo 2 are files, the root's and others are directories.
const FILE_PARITY: u64 = 0;

const OPENED: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;

/// A mount of a file system that does nothing. It ends when it is [unmounted](crate::unmount).
pub struct NullSession {
    inner: fuser::Session<NullServer>,
    target: PathBuf,
}

/// Mounts a file system that does nothing on the directory `target`.
pub fn mount_null(target: &Path, options: &MountOptions) -> Result<NullSession, MountError> {
    let target = attach::resolve_target(target)?;
    let device = attach::attach(&target, options)?;
    let server = NullServer { numbers: AtomicU64::new(1) };
    match fuser::Session::from_fd(server, device, SessionACL::All, session::config(options)) {
        Ok(inner) => Ok(NullSession { inner, target }),
        Err(error) => {
            let _ = attach::unmount(&target, true);
            Err(MountError::Handshake(error))
        }
    }
}

impl NullSession {
    /// Answers requests until the mount is gone.
    pub fn serve(self) -> io::Result<()> {
        self.inner.run()
    }

    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }
}

struct NullServer {
    /// Counts the inodes that were made, the root included.
    numbers: AtomicU64,
}

impl NullServer {
    fn new_file(&self) -> FileAttr {
        attr(INodeNo(self.numbers.fetch_add(1, Ordering::Relaxed) * 2 + FILE_PARITY), 0)
    }

    fn new_directory(&self) -> FileAttr {
        attr(INodeNo(self.numbers.fetch_add(1, Ordering::Relaxed) * 2 + 1 - FILE_PARITY), 0)
    }
}

fn attr(ino: INodeNo, size: u64) -> FileAttr {
    let kind = if ino.0 % 2 == FILE_PARITY { FileType::RegularFile } else { FileType::Directory };
    FileAttr { ino, size, kind, perm: 0o755, nlink: 2, blksize: 4096, ..convert::no_inode() }
}

impl Filesystem for NullServer {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate::negotiate(config, false);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.entry(&CACHE_TTL, &convert::no_inode(), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&CACHE_TTL, &attr(ino, FILE_SIZE));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        reply.attr(&CACHE_TTL, &attr(ino, size.unwrap_or(FILE_SIZE)));
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.entry(&CACHE_TTL, &self.new_directory(), Generation(0));
    }

    fn create(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, _: i32, reply: ReplyCreate) {
        reply.created(&CACHE_TTL, &self.new_file(), Generation(0), FileHandle(0), OPENED);
    }

    fn unlink(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.ok();
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        reply.ok();
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: INodeNo,
        _: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), OPENED);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        reply.data(&ZEROS[..ZEROS.len().min(size as usize)]);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        reply.written(data.len() as u32);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.error(Errno::ENOSYS);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use rustix::process::geteuid;

    use super::*;

    #[test]
    fn it_answers_what_the_benchmark_does() {
        if !geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            return;
        }
        let scratch = tempfile::tempdir().unwrap();
        let session = mount_null(scratch.path(), &MountOptions::new("null")).unwrap();
        let target = session.target().to_path_buf();
        let server = std::thread::spawn(|| session.serve());
        let outcome = std::panic::catch_unwind(|| exercise(&target));
        attach::unmount(&target, true).unwrap();
        server.join().unwrap().unwrap();
        outcome.unwrap();
    }

    fn exercise(target: &Path) {
        let directory = target.join("directory");
        std::fs::create_dir(&directory).unwrap();
        let (a, b) = (directory.join("a"), directory.join("b"));
        let file = std::fs::File::create_new(&a).unwrap();
        file.write_all_at(&[1; 8192], 0).unwrap();
        file.set_len(4096).unwrap();
        assert_eq!(file.write_at(&[1; 4096], 4096).unwrap(), 4096);
        std::fs::rename(&a, &b).unwrap();
        assert!(std::fs::File::open(&a).is_err());
        assert_eq!(std::fs::File::open(&b).unwrap().read_at(&mut [0; 4096], 4096).unwrap(), 4096);
        std::fs::remove_file(&b).unwrap();
        std::fs::remove_dir(&directory).unwrap();
    }
}
