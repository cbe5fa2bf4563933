//! Tickets: rights to files, which the kernel has found, until the programs come for them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lodefs_core::Node;
use lodefs_proto::ticket::{TICKET_SIZE, Ticket};
use parking_lot::Mutex;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};

/// A program comes for its file at once; one that does not come keeps the file in memory so long.
pub(crate) const LIFETIME: Duration = Duration::from_secs(10);

/// Most tickets that wait, of all programs.
const TICKETS_MAX: usize = 4096;

/// What a file was opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// To read it.
    pub read: bool,
    /// To write to it.
    pub write: bool,
}

/// The right to a file.
pub(crate) struct Right {
    pub(crate) node: Node,
    pub(crate) rights: Rights,
    pid: u32,
    until: Instant,
}

/// Tickets that have not been used.
#[derive(Default)]
pub(crate) struct Tickets(Mutex<HashMap<Ticket, Right>>);

impl Tickets {
    /// A new one, for a process. AGAIN if too many wait.
    pub(crate) fn issue(&self, node: Node, rights: Rights, pid: u32) -> Result<Ticket, Errno> {
        let mut bytes = [0; TICKET_SIZE];
        let filled = getrandom(&mut bytes, GetRandomFlags::empty())?;
        if filled != bytes.len() || pid == 0 {
            return Err(Errno::AGAIN);
        }
        let now = Instant::now();
        let right = Right { node, rights, pid, until: now + LIFETIME };
        let (ticket, mut tickets) = (Ticket(bytes), self.0.lock());
        let expired = take_expired(&mut tickets, now);
        let has_room = tickets.len() < TICKETS_MAX;
        if has_room {
            tickets.insert(ticket, right);
        }
        drop(tickets);
        // The last reference to an unlinked file may be among them, and takes time to let go.
        drop(expired);
        if has_room { Ok(ticket) } else { Err(Errno::AGAIN) }
    }

    /// What a process has a ticket for. It is used up.
    pub(crate) fn redeem(&self, ticket: &Ticket, pid: u32) -> Option<Right> {
        let mut tickets = self.0.lock();
        let right = tickets.get(ticket)?;
        if right.pid != pid {
            return None;
        }
        let right = tickets.remove(ticket)?;
        drop(tickets);
        (Instant::now() < right.until).then_some(right)
    }

    /// Forgets those that nobody has come for in time.
    pub(crate) fn expire(&self) {
        let expired = take_expired(&mut self.0.lock(), Instant::now());
        drop(expired);
    }

    /// Forgets all.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.0.lock());
        drop(all);
    }
}

fn take_expired(tickets: &mut HashMap<Ticket, Right>, now: Instant) -> Vec<Right> {
    tickets.extract_if(|_, right| right.until <= now).map(|(_, right)| right).collect()
}
