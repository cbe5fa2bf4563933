//! Which servers is this process attached to?
//!
//! One attachment for each mount, as long as something of it is mapped. In a child that was forked everything is attached anew.

use std::os::fd::{AsFd, OwnedFd};
use std::process;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lodefs_mapping::{Inside, Mapper, Medium, Pager, Region, enter, set_fork_hook};
use lodefs_mmap::tell_in_child;
use lodefs_proto::attach::Ask;
use lodefs_proto::server::{Domain, Outcome};
use lodefs_proto::ticket::Ticket;
use rustix::io::Errno;

use crate::data;
use crate::domain_of;
use crate::link::Link;
use crate::origin::Origin;
use crate::ticket;
use crate::view::View;

/// All attachments of this process. Used inside the gate only, so that no child finds it locked.
static ATTACHMENTS: Mutex<Vec<Weak<Attachment>>> = Mutex::new(Vec::new());

/// What is to be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) offset: u64,
    pub(crate) size: usize,
    pub(crate) writable: bool,
    pub(crate) sync: bool,
}

/// At which address a file is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where there is room, and pages can be as large as can be.
    Anywhere,
    /// At this one, if nothing is mapped there. EEXIST if something is.
    At(usize),
    /// At this one, instead of whatever is mapped there, which nobody may rely on.
    Over(usize),
}

/// What is mapped.
pub(crate) struct Mapped {
    _attachment: Arc<Attachment>,
    pub(crate) origin: Arc<Origin>,
    wanted: Wanted,
    pub(crate) region: Arc<Region>,
    pub(crate) domain: Domain,
    /// The process whose mapping it is.
    pid: AtomicU32,
    /// How this process names it.
    lease: Mutex<Option<(Arc<Link>, u64)>>,
}

/// The attachment to one mount, with one access to the medium.
pub(crate) struct Attachment {
    name: Vec<u8>,
    writable: bool,
    /// The mapper, and the link by which its faults are answered.
    mapper: Mutex<Option<(Arc<Link>, Arc<Mapper>)>>,
    link: Mutex<Option<Arc<Link>>>,
    mapped: Mutex<Vec<Weak<Mapped>>>,
    view: Mutex<Weak<View>>,
}

impl Mapped {
    /// Maps a part of a file.
    ///
    /// # Safety
    /// As for the place.
    pub(crate) unsafe fn new(file: &impl AsFd, wanted: Wanted, place: Place) -> Result<Arc<Self>, Errno> {
        watch_forks();
        let answer = ticket::ask(file)?;
        let origin = Arc::new(Origin::of(file, wanted.writable)?);
        let attachment = Attachment::of(answer.name(), wanted.writable);
        let link = attachment.link()?;
        let opened = open(&link, answer.ticket)?;
        let (lease, is_direct) = map(&link, opened.file, &wanted)?;
        let domain = opened.domain;
        let medium = opened.into_medium(wanted.writable);
        let mapped = attachment.mapper(medium, &link).and_then(|mapper| {
            let request = lodefs_mapping::Request {
                offset: wanted.offset,
                size: wanted.size,
                writable: wanted.writable,
            };
            let adding = link.adding();
            let region = match place {
                Place::Anywhere => Region::new(&mapper, &request),
                Place::At(address) => Region::new_at(&mapper, &request, address),
                // SAFETY: by the caller's promise.
                Place::Over(address) => unsafe { Region::new_over(&mapper, &request, address) },
            };
            let region = region.map_err(|error| errno_of(&error))?;
            link.add(lease, &region, &origin);
            drop(adding);
            if !is_direct && let Err(errno) = show_file(&region, &origin) {
                // Before the lease is given back: others may still know of the region.
                let _unmapped = region.unmap(wanted.offset, wanted.size as u64);
                return Err(errno);
            }
            if !mapper.serves_system_calls() {
                region.populate(wanted.writable && origin.has_room_for_holes());
            }
            let own = Mutex::new(Some((Arc::clone(&link), lease)));
            Ok(Arc::new(Self {
                _attachment: Arc::clone(&attachment),
                origin,
                wanted,
                region,
                domain,
                lease: own,
                pid: AtomicU32::new(process::id()),
            }))
        });
        match &mapped {
            Ok(mapped) => attachment.note(mapped),
            Err(_) => give_back(&link, lease),
        }
        mapped
    }

    /// Tells the server that the program has stored to it.
    pub(crate) fn note_change(&self) -> Result<(), Errno> {
        let lease = lock(&self.lease, &enter()).clone();
        let (link, lease) = lease.ok_or(Errno::NOTCONN)?;
        link.ask(Ask::Changed { lease }).map(|_| ())
    }

    /// Maps it again, in a child, at the same addresses.
    fn map_again(&self, link: &Arc<Link>) -> Result<Medium, Errno> {
        let answer = ticket::ask(self.origin.open()?)?;
        let opened = open(link, answer.ticket)?;
        let (lease, _) = map(link, opened.file, &self.wanted)?;
        link.add(lease, &self.region, &self.origin);
        *lock(&self.lease, &enter()) = Some((Arc::clone(link), lease));
        self.pid.store(process::id(), Ordering::Relaxed);
        Ok(opened.into_medium(self.wanted.writable))
    }
}

/// A file that this process has shown its right to.
pub(crate) struct Opened {
    /// How the server names it.
    pub(crate) file: u64,
    /// The number of its inode.
    pub(crate) inode: u64,
    domain: Domain,
    medium: OwnedFd,
    host_sync: bool,
}

impl Opened {
    fn into_medium(self, writable: bool) -> Medium {
        Medium { file: self.medium.into(), is_writable: writable, is_synchronous: self.host_sync }
    }
}

/// Shows a ticket.
pub(crate) fn open(link: &Link, ticket: Ticket) -> Result<Opened, Errno> {
    match link.ask(Ask::Open { ticket })? {
        (Outcome::Opened { file, inode, domain, host_sync }, Some(medium)) => {
            Ok(Opened { file, inode, domain, medium, host_sync })
        }
        (Outcome::Opened { file, .. }, None) => {
            // This process has no room for a descriptor.
            drop(link.ask(Ask::Close { file }));
            Err(Errno::MFILE)
        }
        _ => Err(Errno::PROTO),
    }
}

/// From now on a child that is forked is attached by itself.
pub(crate) fn watch_forks() {
    set_fork_hook(attach_child);
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if self.pid.load(Ordering::Relaxed) != process::id() {
            // A child without a mapping of its own: the addresses are reserved, or somebody else's.
            return;
        }
        // Whatever is recalled from now on is not mapped any more.
        let _unmapped = self.region.unmap(self.wanted.offset, self.region.size() as u64);
        let lease = lock(&self.lease, &enter()).take();
        if let Some((link, lease)) = lease {
            give_back(&link, lease);
        }
    }
}

/// Tells the server that a lease is not used any more.
pub(crate) fn give_back(link: &Link, lease: u64) {
    link.remove(lease);
    // If the server is gone, it has forgotten it.
    drop(link.ask(Ask::Return { lease }));
    link.forget(lease);
}

/// Maps a file that is not direct as the kernel does. If it has become direct meanwhile, the first touch will tell.
fn show_file(region: &Region, origin: &Origin) -> Result<(), Errno> {
    match region.install_file(0, origin.open()?).map_err(|error| errno_of(&error)) {
        Ok(_) | Err(Errno::NODEV) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Maps a part of an open file, which then need not be open any more. Whether it is direct.
fn map(link: &Link, file: u64, wanted: &Wanted) -> Result<(u64, bool), Errno> {
    let Wanted { offset, size, writable, sync } = *wanted;
    let mapped = link.ask(Ask::Map { file, offset, size: size as u64, writable, sync });
    let closed = link.ask(Ask::Close { file });
    let (mapped, _) = mapped?;
    closed?;
    match mapped {
        Outcome::Mapped { lease, is_direct } => Ok((lease, is_direct)),
        _ => Err(Errno::PROTO),
    }
}

impl Attachment {
    /// The one to the server of this name.
    pub(crate) fn of(name: &[u8], writable: bool) -> Arc<Self> {
        let inside = enter();
        let mut all = lock(&ATTACHMENTS, &inside);
        all.retain(|attachment| attachment.strong_count() > 0);
        let known = all.iter().filter_map(Weak::upgrade);
        let mut same = known.filter(|known| known.name == name && known.writable == writable);
        same.next().unwrap_or_else(|| {
            let new = Arc::new(Self {
                name: name.to_vec(),
                writable,
                mapper: Mutex::default(),
                link: Mutex::default(),
                mapped: Mutex::default(),
                view: Mutex::default(),
            });
            all.push(Arc::downgrade(&new));
            new
        })
    }

    pub(crate) fn link(self: &Arc<Self>) -> Result<Arc<Link>, Errno> {
        if let Some(link) = lock(&self.link, &enter()).clone() {
            return Ok(link);
        }
        let new = self.connect()?;
        let inside = enter();
        let mut link = lock(&self.link, &inside);
        if let Some(present) = &*link {
            // Another thread was quicker.
            new.close();
            return Ok(Arc::clone(present));
        }
        *link = Some(Arc::clone(&new));
        Ok(new)
    }

    fn connect(self: &Arc<Self>) -> Result<Arc<Link>, Errno> {
        let attachment = Arc::downgrade(self);
        let ending = move |link: &Link| {
            if let Some(attachment) = attachment.upgrade() {
                attachment.end(link);
            }
        };
        Link::connect(&self.name, Box::new(ending))
    }

    /// The server is gone, or has cut this process off: nothing may be reached any more, and the volume's file is let go of.
    fn end(&self, ended: &Link) {
        let inside = enter();
        let mut link = lock(&self.link, &inside);
        // Another one may have been quicker to connect, and this one never used.
        if !link.as_ref().is_some_and(|link| ptr::eq(Arc::as_ptr(link), ended)) {
            return;
        }
        let gone = link.take();
        drop(link);
        let mapper = lock(&self.mapper, &inside).take_if(|(by, _)| ptr::eq(Arc::as_ptr(by), ended));
        drop(inside);
        if let Some((_, mapper)) = mapper {
            mapper.shut_down();
        }
        drop(gone);
    }

    /// The mapper, which is made when the first medium has come.
    fn mapper(&self, medium: Medium, link: &Arc<Link>) -> Result<Arc<Mapper>, Errno> {
        let is_served = |known: &(Arc<Link>, Arc<Mapper>)| Arc::ptr_eq(&known.0, link);
        if let Some((_, mapper)) = lock(&self.mapper, &enter()).as_ref().filter(|known| is_served(known)) {
            return Ok(Arc::clone(mapper));
        }
        let pager = Arc::clone(link) as Arc<dyn Pager>;
        let new = Mapper::new(medium, pager).map_err(|error| errno_of(&error))?;
        let inside = enter();
        let mut known = lock(&self.mapper, &inside);
        if let Some((_, mapper)) = known.as_ref().filter(|known| is_served(known)) {
            // Another thread was quicker.
            return Ok(Arc::clone(mapper));
        }
        *known = Some((Arc::clone(link), Arc::clone(&new)));
        Ok(new)
    }

    /// The medium in memory, once for all files.
    pub(crate) fn view(&self, opened: Opened, writable: bool) -> Result<Arc<View>, Errno> {
        let inside = enter();
        let mut known = lock(&self.view, &inside);
        if let Some(view) = known.upgrade() {
            return Ok(view);
        }
        let new = Arc::new(View::new(opened.medium, writable, opened.host_sync, domain_of(opened.domain))?);
        *known = Arc::downgrade(&new);
        Ok(new)
    }

    fn note(&self, mapped: &Arc<Mapped>) {
        let inside = enter();
        let mut all = lock(&self.mapped, &inside);
        all.retain(|mapped| mapped.strong_count() > 0);
        all.push(Arc::downgrade(mapped));
    }

    /// In a child: what is known of the server is the parent's.
    fn forget_parent(&self) {
        let inside = enter();
        if let Some(parents) = lock(&self.link, &inside).take() {
            parents.leave_to_parent();
        }
        for mapped in lock(&self.mapped, &inside).iter().filter_map(Weak::upgrade) {
            lock(&mapped.lease, &inside).take();
        }
        *lock(&self.view, &inside) = Weak::new();
    }

    /// Attaches the child that this process is, and maps again what its parent had mapped. Where it may not open the file again, an
    /// access raises SIGBUS: the server knows nothing of such a mapping.
    fn attach_child(self: &Arc<Self>) -> Result<(), Errno> {
        let all: Vec<_> = lock(&self.mapped, &enter()).iter().filter_map(Weak::upgrade).collect();
        let mapper = lock(&self.mapper, &enter()).clone();
        let Some((_, mapper)) = mapper.filter(|_| !all.is_empty()) else { return Ok(()) };
        let link = self.connect()?;
        *lock(&self.link, &enter()) = Some(Arc::clone(&link));
        *lock(&self.mapper, &enter()) = Some((Arc::clone(&link), Arc::clone(&mapper)));
        let mut medium = Err(Errno::PROTO);
        for mapped in &all {
            medium = mapped.map_again(&link).or(medium);
        }
        mapper.after_fork_in_child(medium?, link).map_err(|error| errno_of(&error))
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        if let Some(link) = lock(&self.link, &enter()).take() {
            link.close();
        }
    }
}

/// In a child that has just been forked. What cannot be attached again stays reserved: an access to it raises SIGSEGV.
fn attach_child() {
    // SAFETY: the process has this thread only, which is about to return from fork.
    unsafe { data::forget_parents() };
    let all: Vec<_> = lock(&ATTACHMENTS, &enter()).iter().filter_map(Weak::upgrade).collect();
    for attachment in &all {
        attachment.forget_parent();
    }
    for attachment in all {
        let _attached_or_reserved = attachment.attach_child();
    }
    tell_in_child();
}

fn errno_of(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::INVAL)
}

/// Inside the gate, so that no child finds it locked.
fn lock<'a, T>(mutex: &'a Mutex<T>, _: &'a Inside) -> MutexGuard<'a, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
