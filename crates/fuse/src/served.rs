//! What a request means in calls of the engine, where that is more than one call.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use fuser::{
    FileAttr, FileHandle, FopenFlags, Generation, INodeNo, Notifier, OpenFlags, ReplyDirectory,
    ReplyDirectoryPlus, Request,
};
use lodefs_broker::{Broker, Caller};
use lodefs_core::{
    Asker, Attr, DirEntry, Effect, Fs, Hold, HolderKind, Ino, Kind, NewInode, NewKind, Node, Result, S_ISGID,
    S_PERM, SetAttr, Switch, Writer,
};
use lodefs_proto::{dax, ticket};
use rustix::io::Errno;
use rustix::process::Uid;
use zerocopy::IntoBytes;

use crate::caller::{self, Capability};
use crate::handles::Handles;
use crate::negotiate::CACHE_TTL;
use crate::options::Report;
use crate::session::expire_attributes;
use crate::table::NodeTable;
use crate::{REPORT_ATTRIBUTE, convert, ioctl};

/// The attribute that holds the access ACL, whose change changes the mode.
const ACCESS_ACL: &[u8] = b"system.posix_acl_access";

/// The attribute that holds file capabilities.
const CAPABILITY: &[u8] = b"security.capability";

/// The kernel tells that a file was closed for good after close(2) has returned, and another thread may still be at it. So
/// where a holder stands in the way of a switch, it is looked again for so long, at such intervals.
const PATIENCE: Duration = Duration::from_millis(20);
const PAUSE: Duration = Duration::from_micros(100);

/// How long it may take to switch a file that programs have mapped; how long it is waited for those who have given it back,
/// at least; and how long they are left alone before it is tried again.
const REVOKE_TIME_MAX: Duration = Duration::from_secs(1);
const REVOKE_PATIENCE: Duration = Duration::from_millis(5);
const REVOKE_PAUSE: Duration = Duration::from_millis(3);

/// Entries that are read ahead of being looked up for a listing with attributes.
const LISTING_BATCH: usize = 64;

/// The engine and what the kernel knows of it.
pub(crate) struct Served {
    pub(crate) fs: Arc<Fs>,
    pub(crate) nodes: Arc<NodeTable<Node>>,
    pub(crate) handles: Arc<Handles>,
    report: Option<Report>,
    /// Who lets programs attach, if any may.
    broker: Option<Arc<Broker>>,
    /// The way to the kernel's caches; there once the session is.
    notifier: Arc<OnceLock<Notifier>>,
}

/// What a reply says about an open file.
pub(crate) struct Opened {
    pub(crate) handle: FileHandle,
    pub(crate) flags: FopenFlags,
}

/// What a reply says about an inode.
pub(crate) struct Found {
    pub(crate) attr: FileAttr,
    pub(crate) generation: Generation,
    /// For how long the kernel may rely on it.
    pub(crate) ttl: Duration,
}

/// The parts of a request to make an inode that depend on what it is.
pub(crate) struct New<'a> {
    pub(crate) kind: NewKind<'a>,
    pub(crate) mode: u32,
    pub(crate) umask: u32,
}

impl Served {
    pub(crate) fn new(
        fs: Arc<Fs>,
        nodes: Arc<NodeTable<Node>>,
        handles: Arc<Handles>,
        report: Option<Report>,
        broker: Option<Arc<Broker>>,
        notifier: Arc<OnceLock<Notifier>>,
    ) -> Self {
        Self { fs, nodes, handles, report, broker, notifier }
    }

    pub(crate) fn node(&self, ino: INodeNo) -> Result<Node> {
        Ok(self.nodes.get(ino.0).ok_or(Errno::STALE)?)
    }

    /// Counts `node` as known to the kernel and describes it.
    pub(crate) fn found(&self, node: Node) -> Result<Found> {
        let attr = self.fs.attr(&node)?;
        self.nodes.remember(attr.ino.0, node);
        Ok(self.describe(&attr))
    }

    fn describe(&self, attr: &Attr) -> Found {
        let generation = Generation(attr.generation.into());
        Found { attr: convert::file_attr(attr), generation, ttl: self.ttl(attr.ino) }
    }

    /// Attributes, and for how long the kernel may rely on them.
    pub(crate) fn lasting(&self, attr: Attr) -> (Attr, Duration) {
        (attr, self.ttl(attr.ino))
    }

    /// For how long the kernel may rely on attributes that have just been read: no time, if a program changes the file by itself. (When
    /// it begins to, and when it has ended, they expire.)
    pub(crate) fn ttl(&self, ino: Ino) -> Duration {
        let changes = self.broker.as_ref().is_some_and(|broker| broker.may_be_changed(ino));
        if changes { Duration::ZERO } else { CACHE_TTL }
    }

    pub(crate) fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<Found> {
        let name = name.as_bytes();
        let by_number = name == b"." || name == b"..";
        let directory = match self.nodes.get(parent.0) {
            Some(node) => node,
            // A file handle from before the kernel dropped its caches: the kernel asks for "." of what the handle
            // names, directory or not, and compares the generation itself.
            None if by_number => self.fs.node_by_handle(Ino(parent.0), None)?,
            None => return Err(Errno::STALE.into()),
        };
        let node = if name == b"." { directory } else { self.fs.lookup(&directory, name)? };
        self.found(node)
    }

    pub(crate) fn create_inode(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new: New<'_>,
    ) -> Result<Found> {
        self.found(self.create_node(request, parent, name, new)?)
    }

    /// Makes a file and opens it.
    pub(crate) fn create_file(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new: New<'_>,
        flags: OpenFlags,
    ) -> Result<(Found, Opened)> {
        let node = self.create_node(request, parent, name, new)?;
        let hold = self.hold(request, &node)?;
        Ok((self.found(node)?, self.opened(hold, flags)))
    }

    fn create_node(&self, request: &Request, parent: INodeNo, name: &OsStr, new: New<'_>) -> Result<Node> {
        self.fs.create(
            &self.node(parent)?,
            name.as_bytes(),
            &NewInode {
                kind: new.kind,
                perm: new.mode & S_PERM,
                umask: new.umask,
                uid: request.uid(),
                gid: request.gid(),
            },
        )
    }

    /// The kernel truncates with a request of its own.
    pub(crate) fn open_file(&self, request: &Request, ino: INodeNo, flags: OpenFlags) -> Result<Opened> {
        let node = self.node(ino)?;
        self.fs.check_open(&node, convert::open_intent(flags))?;
        Ok(self.opened(self.hold(request, &node)?, flags))
    }

    /// Holds a file that is being opened.
    fn hold(&self, request: &Request, node: &Node) -> Result<Hold> {
        let start = Instant::now();
        loop {
            let hold = self.fs.hold(node, HolderKind::OpenFile, request.pid())?;
            if !hold.is_behind() || start.elapsed() >= PATIENCE {
                return Ok(hold);
            }
            drop(hold);
            thread::sleep(PAUSE);
        }
    }

    /// Tells how an open file is held, which the kernel knows by now.
    fn opened(&self, hold: Hold, flags: OpenFlags) -> Opened {
        let rights = convert::rights(flags);
        let is_direct = hold.effect() == Effect::Direct;
        let told =
            if convert::tells_when_closed(flags) { FopenFlags::empty() } else { FopenFlags::FOPEN_NOFLUSH };
        let cached = match (is_direct, hold.was_direct()) {
            (true, _) => FopenFlags::FOPEN_DIRECT_IO,
            // What is in the kernel's cache nobody else has changed since.
            (false, false) => FopenFlags::FOPEN_KEEP_CACHE,
            (false, true) => FopenFlags::empty(),
        };
        Opened { handle: FileHandle(self.handles.add(hold, rights)), flags: cached | told }
    }

    /// The node that data is read from or written to by an open file.
    pub(crate) fn opened_node(&self, ino: INodeNo, handle: FileHandle) -> Result<Node> {
        if !self.handles.is_usable(handle.0) {
            return Err(Errno::STALE.into());
        }
        self.node(ino)
    }

    /// Whether an open file is direct: nothing of it is in the kernel's cache.
    pub(crate) fn is_direct(&self, handle: FileHandle) -> bool {
        let is_direct = |hold: &Hold| hold.effect() == Effect::Direct;
        self.handles.with(handle.0, |hold| hold.as_ref().is_some_and(is_direct))
    }

    /// Adds entries from `from` on until the reply is full.
    pub(crate) fn list(&self, ino: INodeNo, from: u64, reply: &mut ReplyDirectory) -> Result<()> {
        self.fs.read_dir(&self.node(ino)?, from, &mut |entry| {
            let name = OsStr::from_bytes(&entry.name);
            !reply.add(INodeNo(entry.ino.0), entry.next, convert::file_type(entry.kind), name)
        })
    }

    /// The same with attributes; every entry but the dots counts as looked up.
    ///
    /// An entry that cannot be looked up ends the reply before it, and fails the next: what is in a reply has been
    /// counted, so it must be sent.
    pub(crate) fn list_with_attributes(
        &self,
        ino: INodeNo,
        from: u64,
        reply: &mut ReplyDirectoryPlus,
    ) -> Result<()> {
        let directory = self.node(ino)?;
        let (mut from, mut is_empty) = (from, true);
        loop {
            let batch = self.next_entries(&directory, from)?;
            if batch.is_empty() {
                return Ok(());
            }
            for entry in batch {
                from = entry.next;
                let (node, found) = match self.entry_target(&directory, &entry.name) {
                    Ok(target) => target,
                    // Deleted since it was listed.
                    Err(error) if error.errno() == Errno::NOENT => continue,
                    Err(error) => return if is_empty { Err(error) } else { Ok(()) },
                };
                let name = OsStr::from_bytes(&entry.name);
                if reply.add(found.attr.ino, entry.next, name, &found.ttl, &found.attr, found.generation) {
                    return Ok(());
                }
                is_empty = false;
                if entry.name != b"." && entry.name != b".." {
                    self.nodes.remember(found.attr.ino.0, node);
                }
            }
        }
    }

    fn next_entries(&self, directory: &Node, from: u64) -> Result<Vec<DirEntry>> {
        let mut batch = Vec::with_capacity(LISTING_BATCH);
        self.fs.read_dir(directory, from, &mut |entry| {
            let room = batch.len() < LISTING_BATCH;
            if room {
                batch.push(entry.clone());
            }
            room
        })?;
        Ok(batch)
    }

    /// By name, not by the number in the entry, which may have been given to another inode since.
    fn entry_target(&self, directory: &Node, name: &[u8]) -> Result<(Node, Found)> {
        let node = self.fs.lookup(directory, name)?;
        let attr = self.fs.attr(&node)?;
        let found = self.describe(&attr);
        Ok((node, found))
    }

    /// Reads or sets the flags of an inode; the answer is what goes back to the caller.
    pub(crate) fn flags(
        &self,
        caller: &Request,
        ino: INodeNo,
        handle: FileHandle,
        command: u32,
        argument: &[u8],
    ) -> Result<Vec<u8>> {
        let request = ioctl::Request::parse(command, argument)?;
        let node = self.node(ino)?;
        let attr = self.fs.attr(&node)?;
        ioctl::check_kind(attr.kind)?;
        match request {
            ioctl::Request::Get(form) => Ok(ioctl::answer(form, &attr)),
            ioctl::Request::Set { flags, project } => {
                // As on XFS: the newer form, which has a project, takes set-id bits.
                let takes = project.is_some();
                let writer = if takes { self.writer(caller, &node)? } else { Writer::Privileged };
                self.fs.set_flags_as(&node, flags, project, writer)?;
                Ok(Vec::new())
            }
            ioctl::Request::Dax(dax::Request::Ask) => self.dax_status(&node, handle),
            ioctl::Request::Dax(dax::Request::Set { on, how }) => {
                // The kernel knows nothing of this one, and has checked nothing.
                ensure_owner(caller, &attr)?;
                // The open file by which it is asked for does not stand in the way of a switch, but no data can be reached by
                // it after one.
                self.set_dax(&node, handle, on, how)?;
                self.dax_status(&node, handle)
            }
        }
    }

    /// As whom the caller changes a file.
    pub(crate) fn writer(&self, request: &Request, node: &Node) -> Result<Writer> {
        let is_in_group = |group| caller::is_in_group(request, group);
        self.fs.writer(node, || caller::has(request, Capability::SetId), is_in_group)
    }

    /// Sets attributes for a caller.
    ///
    /// A change of the owner takes set-id bits, which only the owner of the file may, or a process with `CAP_FOWNER`. A
    /// request to change nothing comes of chown(-1, -1), which takes these bits too; or the kernel sends it before it
    /// writes, allocates or copies for somebody who may not keep them, and these requests take the bits themselves. So
    /// nothing is done then for a caller who does not own the file.
    pub(crate) fn set_attributes(&self, request: &Request, ino: INodeNo, change: &SetAttr) -> Result<Attr> {
        let node = self.node(ino)?;
        let changes_owner = change.uid.is_some() || change.gid.is_some();
        let changes_nothing = *change == SetAttr { by_handle: change.by_handle, ..SetAttr::default() };
        if !changes_owner && !changes_nothing && change.size.is_none() {
            return self.fs.set_attr(&node, change);
        }
        let writer = match self.writer(request, &node)? {
            Writer::Privileged if changes_owner || changes_nothing => Writer::Member,
            writer => writer,
        };
        if changes_owner || changes_nothing {
            let attr = self.fs.attr(&node)?;
            let loses = attr.kind != Kind::Directory && writer.takes_from(attr.perm);
            if loses && ensure_owner(request, &attr).is_err() {
                return if changes_owner { Err(Errno::PERM.into()) } else { Ok(attr) };
            }
        }
        self.fs.set_attr(&node, &SetAttr { writer, ..*change })
    }

    /// The right of a program to a file that it has opened, to be shown to the broker.
    pub(crate) fn ticket(
        &self,
        request: &Request,
        ino: INodeNo,
        handle: FileHandle,
        argument: &[u8],
    ) -> Result<Vec<u8>> {
        ticket::Message::check_question(argument).map_err(|_| Errno::INVAL)?;
        let node = self.opened_node(ino, handle)?;
        let rights = self.handles.rights(handle.0).ok_or(Errno::INVAL)?;
        let broker = self.broker.as_ref().ok_or(Errno::OPNOTSUPP)?;
        let caller = Caller {
            pid: caller::process_of(request.pid()),
            uid: Uid::from_raw(request.uid()),
            is_member: broker.group().is_some_and(|group| caller::is_in_group(request, group.as_raw())),
        };
        Ok(broker.ticket(&node, rights, &caller)?.message().as_bytes().to_vec())
    }

    /// Sets or clears the flag of a file, or of a directory.
    fn set_dax(&self, node: &Node, handle: FileHandle, on: bool, how: dax::How) -> Result<()> {
        let asker = self.asker(handle);
        let is_spent = match how {
            dax::How::Pending => self.fs.set_dax(node, on, Switch::Pending, asker),
            dax::How::Now => self.switch_now(node, on, asker),
            dax::How::Revoke => self.revoke_dax(node, on, asker),
        }?;
        if is_spent {
            self.handles.with(handle.0, |hold| drop(hold.take()));
        }
        Ok(())
    }

    fn switch_now(&self, node: &Node, on: bool, asker: Option<Asker>) -> Result<bool> {
        let start = Instant::now();
        loop {
            match self.fs.set_dax(node, on, Switch::Now, asker) {
                Err(error) if error.errno() == Errno::BUSY && start.elapsed() < PATIENCE => {
                    thread::sleep(PAUSE);
                }
                outcome => return outcome,
            }
        }
    }

    /// Switches a file that programs have mapped. Tries several times, now and then with more patience.
    ///
    /// A program that has given a mapping of the kernel's back may still hold the file: a thread that was in a page fault
    /// of that mapping holds it, and lets go only when the thread returns from the kernel. If the thread has met the
    /// same page again meanwhile, it waits for the end of the switch. So no patience helps then. The attempt ends, the
    /// thread goes on with the file as it was, and the next attempt most likely finds no thread in such a fault.
    fn revoke_dax(&self, node: &Node, on: bool, asker: Option<Asker>) -> Result<bool> {
        let start = Instant::now();
        for attempt in 1u32.. {
            // 1, 2, 1, 4, 1, 2, 1, 8, ... times as long: a busy machine may take longer.
            let patience = REVOKE_PATIENCE * (1 << attempt.trailing_zeros().min(5));
            let mut until = None;
            let mut wait = || {
                // The kernel has to close what programs had opened, after they have given it back.
                let until: &mut Instant = until.get_or_insert_with(|| Instant::now() + patience);
                thread::sleep(PAUSE);
                Instant::now() < *until
            };
            match self.fs.revoke_dax(node, on, asker, &mut wait) {
                Err(error) if error.errno() == Errno::BUSY && until.is_some() => {
                    if start.elapsed() > REVOKE_TIME_MAX {
                        return Err(error);
                    }
                    // For the faults of the mapping that the thread now gets.
                    thread::sleep(REVOKE_PAUSE);
                }
                outcome => return outcome,
            }
        }
        Err(Errno::BUSY.into())
    }

    fn dax_status(&self, node: &Node, handle: FileHandle) -> Result<Vec<u8>> {
        let status = self.fs.dax_status(node, self.asker(handle))?;
        Ok(ioctl::dax_answer(&status))
    }

    /// The hold of the open file by which something is asked for: to wait for an inode with the table of handles locked would hold
    /// up everybody.
    fn asker(&self, handle: FileHandle) -> Option<Asker> {
        self.handles.with(handle.0, |hold| hold.as_ref().map(Hold::asker))
    }

    /// Tells the kernel that the attributes of `ino` are not what it was told before (its data are).
    pub(crate) fn expire_attributes(&self, ino: INodeNo) {
        expire_attributes(&self.notifier, Ino(ino.0));
    }

    pub(crate) fn set_attribute(
        &self,
        request: &Request,
        ino: INodeNo,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        let node = self.node(ino)?;
        self.fs.set_xattr(&node, name, value, convert::xattr_mode(flags)?)?;
        if name == ACCESS_ACL {
            let attr = self.fs.attr(&node)?;
            let keeps = || caller::is_in_group(request, attr.gid) || caller::has(request, Capability::SetId);
            if attr.perm & S_ISGID != 0 && !keeps() {
                let change = SetAttr { perm: Some(attr.perm & !S_ISGID), ..SetAttr::default() };
                self.fs.set_attr(&node, &change)?;
            }
        }
        Ok(())
    }

    /// The kernel removes file capabilities itself for a process that changes a file. It lets no process without
    /// `CAP_SETFCAP` ask for that, so such a request is the kernel's own, and flags of the file do not refuse it.
    pub(crate) fn remove_attribute(&self, request: &Request, ino: INodeNo, name: &[u8]) -> Result<()> {
        let node = self.node(ino)?;
        if name == CAPABILITY && !caller::has(request, Capability::SetFileCapabilities) {
            return self.fs.take_privileges(&node, Writer::Privileged);
        }
        self.fs.remove_xattr(&node, name)
    }

    pub(crate) fn attribute(&self, ino: INodeNo, name: &[u8]) -> Result<Vec<u8>> {
        match &self.report {
            Some(report) if ino == INodeNo::ROOT && name == REPORT_ATTRIBUTE.as_bytes() => Ok((report.0)()),
            _ if name == dax::EFFECT_ATTRIBUTE.as_bytes() => {
                let status = self.fs.dax_status(&self.node(ino)?, None);
                // Of what is no file there is none.
                let effect = status.ok().and_then(|status| status.effect).ok_or(Errno::NODATA)?;
                Ok(match effect {
                    Effect::Direct => b"direct".to_vec(),
                    Effect::Buffered => b"buffered".to_vec(),
                })
            }
            _ => self.fs.get_xattr(&self.node(ino)?, name),
        }
    }
}

/// Refuses a caller that is neither the owner nor has `CAP_FOWNER`.
fn ensure_owner(request: &Request, attr: &Attr) -> Result<()> {
    let may = request.uid() == attr.uid || caller::has(request, Capability::Owner);
    if may { Ok(()) } else { Err(Errno::PERM.into()) }
}
