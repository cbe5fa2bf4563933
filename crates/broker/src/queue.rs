//! A bounded queue of requests that takes memory only for the requests that wait in it.
//!
//! `std::sync::mpsc::sync_channel` allocates all its slots when it is made: 4096 for each program, though most programs never have
//! more than a few requests waiting.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Slots that an empty queue keeps.
const KEPT: usize = 16;

/// Why a message was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused<T> {
    /// As many wait as may.
    Full(T),
    /// The queue has been closed.
    Closed,
}

/// A queue with a reader, and writers that never wait.
pub(crate) struct Queue<T> {
    most: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    waiting: VecDeque<T>,
    is_closed: bool,
}

impl<T> Queue<T> {
    /// A queue in which at most `most` messages wait.
    pub(crate) fn new(most: usize) -> Self {
        let state = Mutex::new(State { waiting: VecDeque::new(), is_closed: false });
        Self { most, state, changed: Condvar::new() }
    }

    /// Adds a message.
    pub(crate) fn push(&self, message: T) -> Result<(), Refused<T>> {
        let mut state = self.state.lock();
        if state.is_closed {
            return Err(Refused::Closed);
        }
        if state.waiting.len() >= self.most {
            return Err(Refused::Full(message));
        }
        state.waiting.push_back(message);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits for a message. `None` if the queue has been closed, and every message before that was taken.
    pub(crate) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(message) = state.waiting.pop_front() {
                return Some(message);
            }
            if state.is_closed {
                return None;
            }
            state.waiting.shrink_to(KEPT);
            self.changed.wait(&mut state);
        }
    }

    /// Takes no more messages.
    pub(crate) fn close(&self) {
        self.state.lock().is_closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_in_order_and_no_more_than_may() {
        let queue = Queue::new(2);
        assert_eq!((queue.push(1), queue.push(2), queue.push(3)), (Ok(()), Ok(()), Err(Refused::Full(3))));
        assert_eq!((queue.pop(), queue.push(4)), (Some(1), Ok(())));
        queue.close();
        assert_eq!(queue.push(5), Err(Refused::Closed));
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some(2), Some(4), None));
    }

    #[test]
    fn a_reader_that_waits_is_woken() {
        let queue = Queue::new(1000);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>());
            (0..1000).for_each(|number| queue.push(number).unwrap());
            queue.close();
            assert!(reader.join().unwrap().into_iter().eq(0..1000));
        });
    }

    #[test]
    fn an_empty_queue_takes_no_memory() {
        let queue = Queue::new(1 << 20);
        assert_eq!(queue.state.lock().waiting.capacity(), 0);
        (0..4096).for_each(|number| queue.push(number).unwrap());
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| while queue.pop().is_some() {});
            // The reader shrinks the queue before it waits.
            while queue.state.lock().waiting.capacity() > KEPT {
                std::thread::yield_now();
            }
            queue.close();
            reader.join().unwrap();
        });
    }
}
