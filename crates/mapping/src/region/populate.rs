//! What is mapped before it is touched?
//!
//! Where the kernel does not let this process serve the faults of system calls, they find what is mapped, or fail with EFAULT. So
//! there everything is asked for ahead, as if each page had been touched, one after the other: when a region is new, and again
//! what was recalled. Each answer leads to the next question ([`Region::populate_on`]), and so the pager's thread waits for nobody.

use std::ops::Range;
use std::thread::{self, Thread};

use super::Region;
use crate::gate::{Inside, enter};
use crate::request::Fault;
use crate::runs::State;
use crate::service::Service;

/// Population that is under way. There is a question in the queue, or an answer to come.
#[derive(Debug)]
pub(super) struct Populating {
    /// What is to be asked for next, or has just been; before it everything has been decided.
    next: usize,
    end: usize,
    /// As if it were touched to write: holes are filled.
    write: bool,
    /// Who waits for its end.
    waiting: Vec<Thread>,
    /// What has been recalled meanwhile.
    again: Range<usize>,
}

impl Populating {
    fn of(range: Range<usize>) -> Self {
        Self { next: range.start, end: range.end, write: false, waiting: Vec::new(), again: 0..0 }
    }

    /// It has ended. What remains to be done.
    fn end(self) -> Option<Self> {
        self.waiting.iter().for_each(Thread::unpark);
        (!self.again.is_empty()).then(|| Self::of(self.again))
    }
}

impl Region {
    /// Has everything mapped that can be, and waits for it, if system calls depend on that
    /// ([`Mapper::serves_system_calls`](crate::Mapper::serves_system_calls)); with `write`, holes are filled for it. It ends where
    /// the pager refuses a page twice: behind the end of the file. From then on, what is recalled is asked for at once.
    pub fn populate(&self, write: bool) {
        {
            let inside = enter();
            let Ok(service) = self.mapper.service(&inside) else { return };
            if service.uffd.serves_system_calls {
                return;
            }
            let mut content = self.lock(&inside);
            if content.standing.is_shut {
                return;
            }
            let before = content.populating.take().map(|under| under.waiting);
            let waiting = before.into_iter().flatten().chain([thread::current()]).collect();
            let write = write && self.writable;
            content.populating = Some(Populating { write, waiting, ..Populating::of(0..self.size) });
            drop(content);
            service.populate(self.addresses());
        }
        let is_waiting =
            || self.lock(&enter()).populating.as_ref().is_some_and(|under| !under.waiting.is_empty());
        while is_waiting() {
            thread::park();
        }
    }

    /// What to ask the pager for, and how many recalls had been seen; nothing if all is done.
    pub(crate) fn next_to_populate(&self) -> Option<(Fault, u64)> {
        let inside = enter();
        let mut content = self.lock(&inside);
        let standing = content.standing;
        while let Some(mut under) = content.populating.take() {
            let is_open = |state| state == State::Armed || (state == State::Zeroes && under.write);
            let next = content.runs.find(under.next, is_open).filter(|next| *next < under.end);
            match next.filter(|_| !standing.is_shut && self.mapper.has_room_ahead()) {
                Some(next) => {
                    under.next = next;
                    let fault = Fault { offset: self.offset + next as u64, write: under.write };
                    content.populating = Some(under);
                    return Some((fault, standing.epoch));
                }
                None => content.populating = under.end(),
            }
        }
        None
    }

    /// Goes on, if this is the answer that was waited for, or it was refused.
    pub(super) fn populate_on(&self, answered: &Range<usize>, service: &Service, inside: &Inside) {
        let content = self.lock(inside);
        if content.populating.as_ref().is_some_and(|under| answered.contains(&under.next)) {
            drop(content);
            service.populate(self.addresses());
        }
    }

    /// The pager has refused these pages, if it was asked ahead: whether it was. It may have been that there is no room to fill holes; if
    /// not, there is nothing behind. Nobody has touched them, so they do not fail; whoever has meanwhile asks for himself.
    pub(super) fn populate_less(&self, refused: &Range<usize>, service: &Service, inside: &Inside) -> bool {
        let mut content = self.lock(inside);
        let Some(under) = content.populating.as_mut().filter(|under| refused.contains(&under.next)) else {
            return false;
        };
        if !std::mem::take(&mut under.write) {
            under.end = under.next;
        }
        drop(content);
        service.uffd.wake(&self.addresses_of(refused));
        service.populate(self.addresses());
        true
    }

    /// Nobody can be asked any more.
    pub(super) fn end_populating(&self, inside: &Inside) {
        if let Some(under) = self.lock(inside).populating.take() {
            let _nothing_is_done_again = under.end();
        }
    }

    /// What was recalled is asked for again, if system calls depend on that. Holes are not filled: they may be what it was
    /// recalled for.
    pub(super) fn populate_again(&self, recalled: &Range<usize>, service: &Service, inside: &Inside) {
        if service.uffd.serves_system_calls || recalled.is_empty() {
            return;
        }
        let mut content = self.lock(inside);
        if let Some(under) = &mut content.populating {
            let again = &under.again;
            under.again = if again.is_empty() {
                recalled.clone()
            } else {
                again.start.min(recalled.start)..again.end.max(recalled.end)
            };
            return;
        }
        content.populating = Some(Populating::of(recalled.clone()));
        drop(content);
        service.populate(self.addresses());
    }
}
