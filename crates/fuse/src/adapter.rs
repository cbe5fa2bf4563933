//! Which engine call answers which request.
//!
//! Every method has the same shape: a body that calls the engine, run by [`Answers::run`], and a reply; bodies of more
//! than a call are in [`Served`]. What
//! a file was opened for has been checked when it was opened; a handle says how its data are reached.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request,
    TimeOrNow, WriteFlags,
};
use lodefs_core::changes::{self, Attributes};
use lodefs_core::{Attr, Error, Ino, NewKind, Result, S_PERM, SetAttr, Writer};
use lodefs_proto::ticket::TICKET_IOCTL;
use rustix::io::Errno as HostErrno;

use crate::answer::Answers;
use crate::caller;
use crate::negotiate::CACHE_TTL;
use crate::served::{Found, New, Opened, Served};
use crate::stale::StalePages;
use crate::{convert, negotiate};

/// Most bytes that one request copies, so that a large copy cannot keep a thread for long.
const COPY_SIZE_MAX: u64 = 64 << 20;

/// Directories have no handles.
const NO_HANDLE: FileHandle = FileHandle(0);

thread_local! {
    /// Where a server thread reads data into before it is sent.
    static READ_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The engine, as the FUSE library wants to see it.
pub(crate) struct Adapter {
    served: Served,
    stale: StalePages,
    answers: Answers,
    writeback: bool,
    /// The kernel understands that directories need not be opened.
    opens_no_directories: bool,
}

impl Adapter {
    pub(crate) fn new(served: Served, stale: StalePages, writeback: bool) -> Self {
        Self { served, stale, answers: Answers::default(), writeback, opens_no_directories: false }
    }

    /// Runs the body of a request. The kernel forgets the attributes of each inode that the request has changed.
    fn run<T>(&self, operation: &'static str, body: impl FnOnce(&Served) -> Result<T>) -> Result<T, Errno> {
        self.run_knowing((INodeNo(0), Attributes::empty()), operation, body)
    }

    /// The same. If the request succeeds, the kernel itself forgets or is told some attributes of one inode; and it then
    /// believes no answer to an earlier request about them.
    ///
    /// Every other change must be told: the kernel believes attributes for ever ([`CACHE_TTL`]). A notification of
    /// attributes takes no lock in the kernel, so a thread that serves a request may send it.
    fn run_knowing<T>(
        &self,
        known: (INodeNo, Attributes),
        operation: &'static str,
        body: impl FnOnce(&Served) -> Result<T>,
    ) -> Result<T, Errno> {
        let (outcome, changes) = changes::noting(|| {
            self.answers.run(operation, || body(&self.served), |error| self.is_told(error))
        });
        let is_known = |ino: Ino, changed| outcome.is_ok() && known.0.0 == ino.0 && known.1.contains(changed);
        let mut last = None;
        for (ino, changed) in changes {
            if last != Some(ino) && !is_known(ino, changed) {
                self.served.expire_attributes(INodeNo(ino.0));
                last = Some(ino);
            }
        }
        outcome
    }

    /// Whether the error is the failure of the medium that has made the volume read-only, which is told once, or comes of
    /// it.
    fn is_told(&self, error: &Error) -> bool {
        matches!(error, Error::Medium(_) | Error::Latched(_)) && self.served.fs.is_latched()
    }
}

fn reply_empty(reply: ReplyEmpty, outcome: Result<(), Errno>) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(errno),
    }
}

fn reply_entry(reply: ReplyEntry, outcome: Result<Found, Errno>) {
    match outcome {
        Ok(found) => reply.entry(&found.ttl, &found.attr, found.generation),
        Err(errno) => reply.error(errno),
    }
}

fn reply_attr(reply: ReplyAttr, outcome: Result<(Attr, Duration), Errno>) {
    match outcome {
        Ok((attr, ttl)) => reply.attr(&ttl, &convert::file_attr(&attr)),
        Err(errno) => reply.error(errno),
    }
}

/// Answers with a value, or its size if no room was offered.
fn reply_xattr(reply: ReplyXattr, room: u32, outcome: Result<Vec<u8>, Errno>) {
    match outcome {
        Ok(value) if room == 0 => reply.size(value.len() as u32),
        Ok(value) if value.len() > room as usize => reply.error(Errno::ERANGE),
        Ok(value) => reply.data(&value),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.opens_no_directories = negotiate::negotiate(config, self.writeback);
        Ok(())
    }

    fn destroy(&mut self) {
        self.served.handles.clear();
        self.served.nodes.clear();
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.run("lookup", |served| served.look_up(parent, name)) {
            Err(Errno::ENOENT) => reply.entry(&CACHE_TTL, &convert::no_inode(), Generation(0)),
            outcome => reply_entry(reply, outcome),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        // Releasing the last reference may have to free an inode, and that may fail.
        let _ = self.run("forget", |served| {
            served.nodes.forget(ino.0, lookups);
            Ok(())
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(
            reply,
            self.run("getattr", |served| Ok(served.lasting(served.fs.attr(&served.node(ino)?)?))),
        );
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        // Emptying a file by its name is an open with O_TRUNC for the most part: the times of an empty one move then, too.
        let empties = size == Some(0) && handle.is_none();
        let mtime = mtime.or(empties.then_some(TimeOrNow::Now));
        let change = SetAttr {
            perm: mode.map(|mode| mode & S_PERM),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
            by_handle: handle.is_some(),
            writer: Writer::Privileged,
        };
        let outcome = self.run_knowing((ino, Attributes::all()), "setattr", |served| {
            if ctime.is_some() {
                // Only a kernel that keeps times itself sends one, and nothing else with it.
                return Ok(served.lasting(served.fs.set_attr(&served.node(ino)?, &change)?));
            }
            Ok(served.lasting(served.set_attributes(request, ino, &change)?))
        });
        reply_attr(reply, outcome);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        match self.run("readlink", |served| served.fs.read_link(&served.node(ino)?)) {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(errno),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let outcome = self.run("mknod", |served| {
            let kind = convert::new_kind(mode, rdev)?;
            served.create_inode(request, parent, name, New { kind, mode, umask })
        });
        reply_entry(reply, outcome);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let new = New { kind: NewKind::Directory, mode, umask };
        reply_entry(reply, self.run("mkdir", |served| served.create_inode(request, parent, name, new)));
    }

    fn symlink(&self, request: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let new = New { kind: NewKind::Symlink(target.as_os_str().as_bytes()), mode: 0o777, umask: 0 };
        reply_entry(reply, self.run("symlink", |served| served.create_inode(request, parent, name, new)));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let new = New { kind: NewKind::File, mode, umask };
        match self.run("create", |served| served.create_file(request, parent, name, new, OpenFlags(flags))) {
            Ok((Found { attr, generation, ttl }, Opened { handle, flags })) => {
                reply.created(&ttl, &attr, generation, handle, flags);
            }
            Err(errno) => reply.error(errno),
        }
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let outcome = self.run("link", |served| {
            let node = served.node(ino)?;
            served.fs.link(&node, &served.node(parent)?, name.as_bytes())?;
            served.found(node)
        });
        reply_entry(reply, outcome);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome = self.run("unlink", |served| served.fs.unlink(&served.node(parent)?, name.as_bytes()));
        reply_empty(reply, outcome);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome = self.run("rmdir", |served| served.fs.rmdir(&served.node(parent)?, name.as_bytes()));
        reply_empty(reply, outcome);
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let outcome = self.run("rename", |served| {
            let mode = convert::rename_mode(flags)?;
            let (from, to) = (served.node(parent)?, served.node(new_parent)?);
            let owner = (request.uid(), request.gid());
            served.fs.rename(&from, name.as_bytes(), &to, new_name.as_bytes(), mode, owner)
        });
        reply_empty(reply, outcome);
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.run("open", |served| served.open_file(request, ino, flags)) {
            Ok(Opened { handle, flags }) => reply.opened(handle, flags),
            Err(errno) => reply.error(errno),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // Letting go of the last reference may have to free an inode, and that may fail.
        let outcome = self.run("release", |served| {
            served.handles.remove(handle.0);
            Ok(())
        });
        reply_empty(reply, outcome);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size as usize {
                buffer.resize(size as usize, 0);
            }
            let room = &mut buffer[..size as usize];
            let read = self.run_knowing((ino, Attributes::ATIME), "read", |served| {
                let node = served.opened_node(ino, handle)?;
                // The kernel names an owner where it reads for somebody, and none where it fills its cache.
                if owner.is_none() {
                    self.stale.note_fill(ino);
                    if served.is_direct(handle) {
                        return served.fs.read_to_cache(&node, offset, room);
                    }
                }
                served.fs.read(&node, offset, room)
            });
            match read {
                Ok(read) => reply.data(&buffer[..read]),
                Err(errno) => reply.error(errno),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        opened: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let appends = convert::open_intent(opened).append;
        // A write that the kernel makes from its cache leaves pages there, which have the bytes that are written.
        let is_cached = flags.contains(WriteFlags::FUSE_WRITE_CACHE) || !convert::bypasses_cache(opened);
        // A write with O_DIRECT may be asynchronous. The kernel forgets the attributes when such a write begins, and may
        // have asked for them since.
        let known = !flags.contains(WriteFlags::FUSE_WRITE_CACHE) && !convert::bypasses_cache(opened);
        let known = (ino, if known { Attributes::CONTENT } else { Attributes::empty() });
        let outcome = self.run_knowing(known, "write", |served| {
            let node = served.opened_node(ino, handle)?;
            let writer = if drops {
                served.fs.writer(&node, || false, |group| caller::is_in_group(request, group))?
            } else {
                Writer::Privileged
            };
            let is_direct = served.is_direct(handle);
            // Of what programs have appended to a direct file by themselves the kernel does not know.
            if appends && is_direct {
                return served.fs.append(&node, data, writer).map(|(_, written)| written);
            }
            if is_cached && !is_direct {
                self.stale.note_fill(ino);
            }
            served.fs.write(&node, offset, data, writer)
        });
        match outcome {
            Ok(written) if is_cached => reply.written(written as u32),
            Ok(written) => self.stale.answer(ino, offset, written, reply),
            Err(errno) => reply.error(errno),
        }
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // Nothing is held back at close. Somebody relies on the descriptor that is being closed; to others the kernel says nothing.
        reply_empty(reply, self.run("flush", |served| served.fs.take_back_data(&served.node(ino)?)));
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.run("fsync", |served| served.fs.fsync(&served.node(ino)?, data_only)));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        if self.opens_no_directories {
            // The kernel does not ask again, and keeps listings until the directory changes.
            reply.error(Errno::ENOSYS);
        } else {
            reply.opened(NO_HANDLE, FopenFlags::FOPEN_KEEP_CACHE | FopenFlags::FOPEN_CACHE_DIR);
        }
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.run("readdir", |served| served.list(ino, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.run("readdirplus", |served| served.list_with_attributes(ino, offset, &mut reply)) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        reply_empty(reply, self.run("fsyncdir", |served| served.fs.fsync(&served.node(ino)?, data_only)));
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match self.run("statfs", |served| Ok(served.fs.space())) {
            Ok(space) => reply.statfs(
                space.blocks,
                space.blocks_free,
                space.blocks_available,
                space.inodes,
                space.inodes_free,
                space.block_size as u32,
                negotiate::NAME_MAX,
                space.block_size as u32,
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let outcome =
            self.run("setxattr", |served| served.set_attribute(request, ino, name.as_bytes(), value, flags));
        reply_empty(reply, outcome);
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.run("getxattr", |served| served.attribute(ino, name.as_bytes())));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        reply_xattr(reply, size, self.run("listxattr", |served| served.fs.list_xattr(&served.node(ino)?)));
    }

    fn removexattr(&self, request: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome =
            self.run("removexattr", |served| served.remove_attribute(request, ino, name.as_bytes()));
        reply_empty(reply, outcome);
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        // The kernel decides.
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: IoctlFlags,
        command: u32,
        argument: &[u8],
        room: u32,
        reply: ReplyIoctl,
    ) {
        let outcome = self.run("ioctl", |served| match command {
            TICKET_IOCTL => served.ticket(request, ino, handle, argument),
            _ => served.flags(request, ino, handle, command, argument),
        });
        match outcome {
            Ok(answer) => reply.ioctl(0, &answer[..answer.len().min(room as usize)]),
            Err(errno) => reply.error(errno),
        }
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        // Files are always ready; the kernel knows that by itself.
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // While the size stays, the kernel forgets the attributes but believes answers to earlier requests.
        let known =
            if mode & convert::FALLOC_KEEP_SIZE == 0 { Attributes::CONTENT } else { Attributes::empty() };
        let outcome = self.run_knowing((ino, known), "fallocate", |served| {
            let how = convert::fallocate_mode(mode)?;
            let node = served.node(ino)?;
            served.fs.take_privileges(&node, served.writer(request, &node)?)?;
            served.fs.fallocate(&node, how, offset, size)
        });
        reply_empty(reply, outcome);
    }

    fn lseek(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        if self.writeback {
            // What the kernel holds back is not known here. It does not ask again, and takes all for data.
            return reply.error(Errno::ENOSYS);
        }
        let outcome = self.run("lseek", |served| {
            let target = convert::seek_target(whence)?;
            let offset = u64::try_from(offset).map_err(|_| HostErrno::NXIO)?;
            served.fs.seek(&served.node(ino)?, offset, target)
        });
        match outcome {
            Ok(offset) => reply.offset(offset.cast_signed()),
            Err(errno) => reply.error(errno),
        }
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        size: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let size = size.min(COPY_SIZE_MAX);
        let outcome = self.run_knowing((to, Attributes::CONTENT), "copy_file_range", |served| {
            let to = served.node(to)?;
            served.fs.take_privileges(&to, served.writer(request, &to)?)?;
            served.fs.copy_range(&served.node(from)?, from_offset, &to, to_offset, size)
        });
        match outcome {
            Ok(copied) => reply.written(copied as u32),
            Err(errno) => reply.error(errno),
        }
    }
}
