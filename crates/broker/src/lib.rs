//! The server's side of attached programs: who may reach the medium, what they were granted, and what if they do not answer.
//!
//! A program asks for a ticket by an ioctl on a file that it has opened in the mount, which comes here from the front end
//! ([`Broker::ticket`]). With it, it opens the file at the broker's socket, gets a descriptor of the medium, and maps parts of the
//! file. What the messages mean is in [`lodefs_proto`], what is promised in [`lodefs_core`]'s leases.
//!
//! | module | question |
//! |---|---|
//! | `policy` | who may attach at all? |
//! | `tickets` | who has been found to have the right to which file? |
//! | `listener` | how do programs come in? |
//! | `program` | what is one program told, and what if it does not answer? |
//! | `queue` | where do a program's requests wait? |
//! | `requests` | what does a program's request mean in calls of the engine? |
//! | `changing` | which files may programs change by themselves? |
//! | `presence` | is a program gone, or has it at least nothing mapped any more? |
//!
//! # What a program can do to others
//! Nothing by its messages: they are parsed into what can be meant, name only what the program itself has opened and mapped, and are
//! bounded in number; whoever sends anything else is cut off. It need not answer: then it is given up on after [`PATIENCE`], and what
//! it may still reach is kept from others until it is gone. But it has the medium, and may write to it wherever it likes if it
//! may write to one file: that is why the mount says who may attach ([`Policy`]).

#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod changing;
mod listener;
mod policy;
mod presence;
mod program;
mod queue;
mod requests;
mod tickets;

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use lodefs_core::{Fs, Ino, Kind, Node};
use lodefs_proto::ticket::Answer;
use rustix::io::Errno;
use rustix::process::Gid;

use changing::Changing;
use listener::Listener;
use tickets::Tickets;

pub use policy::{Caller, Policy};
pub use tickets::Rights;

/// How long a program may take to give back what is recalled from it, before others go on without it.
pub const PATIENCE: Duration = Duration::from_secs(1);

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// What all programs are served from.
#[derive(Clone)]
struct Serving {
    fs: Arc<Fs>,
    tickets: Arc<Tickets>,
    changing: Arc<Changing>,
    /// Has the kernel drop what it keeps of a file's content.
    forget: Arc<OnceLock<Forget>>,
}

/// Told of a file of which nobody may keep any content.
type Forget = Box<dyn Fn(Ino) + Send + Sync>;

impl Serving {
    /// Has dropped what somebody keeps of a file's content. It is not to be called with anything locked.
    fn drop_cached(&self, node: &Node) -> Result<(), Errno> {
        let forget = || {
            if let Some(forget) = self.forget.get() {
                forget(node.ino());
            }
        };
        self.fs.drop_cached(node, forget).map_err(|error| error.errno())
    }
}

/// Lets programs attach to the files of one mount.
pub struct Broker {
    policy: Policy,
    listener: Listener,
    serving: Serving,
}

impl Broker {
    /// Waits for programs from now on. `None` if nobody may attach, or nothing of the volume can be reached directly.
    pub fn start(fs: &Arc<Fs>, policy: Policy) -> io::Result<Option<Arc<Self>>> {
        if policy == Policy::Nobody || !fs.can_be_attached() {
            return Ok(None);
        }
        let (tickets, changing) = (Arc::default(), Arc::default());
        let serving = Serving { fs: Arc::clone(fs), tickets, changing, forget: Arc::default() };
        let listener = Listener::start(serving.clone(), policy)?;
        Ok(Some(Arc::new(Self { policy, listener, serving })))
    }

    /// Sets who is told that the attributes of a file, as they were seen before, may be wrong: a program begins to change it by itself, or
    /// has ended that. Once; whether it was set by this call.
    pub fn watch_attributes(&self, expire: impl Fn(Ino) + Send + Sync + 'static) -> bool {
        self.serving.changing.watch(Box::new(expire))
    }

    /// Sets who has the kernel drop what it keeps of a file's content, for which it may wait. Once; whether it was set by this call.
    pub fn watch_content(&self, forget: impl Fn(Ino) + Send + Sync + 'static) -> bool {
        self.serving.forget.set(Box::new(forget)).is_ok()
    }

    /// Whether programs may change a file by themselves now, so that its attributes are to be looked at each time.
    pub fn may_be_changed(&self, ino: Ino) -> bool {
        self.serving.changing.contains(ino)
    }

    /// The group whose members may attach, if there is one.
    pub fn group(&self) -> Option<Gid> {
        self.policy.group()
    }

    /// A ticket for a file that `caller` has opened with these rights. EINVAL if it is not a regular file, EPERM if the caller may not
    /// attach, EACCES if he may only write to the file, and would be shown what he may not read; EAGAIN if too many tickets wait to be used.
    pub fn ticket(&self, node: &Node, rights: Rights, caller: &Caller) -> Result<Answer, Errno> {
        if node.kind() != Kind::File {
            return Err(Errno::INVAL);
        }
        if !self.policy.allows(caller) {
            return Err(Errno::PERM);
        }
        if !rights.read && !self.policy.owns(caller) {
            return Err(Errno::ACCESS);
        }
        let rights = Rights { write: rights.write && !self.serving.fs.is_read_only(), ..rights };
        let ticket = self.serving.tickets.issue(node.clone(), rights, caller.pid)?;
        Answer::new(ticket, self.listener.name()).map_err(|_| Errno::NAMETOOLONG)
    }

    /// Cuts all programs off, and forgets what they were granted as soon as they have nothing mapped any more. The volume's file stays
    /// locked as long as one has.
    pub fn stop(&self) {
        self.listener.stop();
        self.serving.tickets.clear();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop();
    }
}
