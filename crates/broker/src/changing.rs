//! Which files may programs change by themselves, so that nobody can rely on attributes that he has seen?

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use lodefs_core::Ino;
use parking_lot::Mutex;

/// Told of a file whose attributes, as they were seen before, may be wrong from now on.
type Expire = Box<dyn Fn(Ino) + Send + Sync>;

/// How many programs may change which file.
#[derive(Default)]
pub(crate) struct Changing {
    programs: Mutex<HashMap<Ino, usize>>,
    /// Files among them.
    files: AtomicUsize,
    expire: OnceLock<Expire>,
}

/// A program may change a file by itself until this is dropped, which is to be when its last change has been noted.
pub(crate) struct Change {
    changing: Arc<Changing>,
    ino: Ino,
}

impl Changing {
    pub(crate) fn watch(&self, expire: Expire) -> bool {
        self.expire.set(expire).is_ok()
    }

    pub(crate) fn contains(&self, ino: Ino) -> bool {
        self.files.load(Ordering::Acquire) > 0 && self.programs.lock().contains_key(&ino)
    }

    /// From now on a program may.
    pub(crate) fn begin(self: &Arc<Self>, ino: Ino) -> Change {
        let mut programs = self.programs.lock();
        *programs.entry(ino).or_insert(0) += 1;
        self.files.store(programs.len(), Ordering::Release);
        drop(programs);
        self.expire(ino);
        Change { changing: Arc::clone(self), ino }
    }

    /// Tells that attributes of a file that were seen before may be wrong.
    pub(crate) fn expire(&self, ino: Ino) {
        if let Some(expire) = self.expire.get() {
            expire(ino);
        }
    }
}

impl Drop for Change {
    fn drop(&mut self) {
        let mut programs = self.changing.programs.lock();
        if let Some(count) = programs.get_mut(&self.ino) {
            *count -= 1;
            if *count == 0 {
                programs.remove(&self.ino);
            }
        }
        self.changing.files.store(programs.len(), Ordering::Release);
        drop(programs);
        // Whoever was told before this that he need not ask again may have been told of an earlier moment.
        self.changing.expire(self.ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_in_it_as_long_as_one_program_may_change_it() {
        let changing = Arc::new(Changing::default());
        let told = Arc::new(Mutex::new(Vec::new()));
        let (to_tell, known) = (Arc::clone(&told), Arc::clone(&changing));
        assert!(changing.watch(Box::new(move |ino| to_tell.lock().push((ino, known.contains(ino))))));
        let (file, other) = (Ino(7), Ino(8));
        let first = changing.begin(file);
        let second = changing.begin(file);
        assert!(changing.contains(file) && !changing.contains(other));
        drop(first);
        assert!(changing.contains(file));
        drop(second);
        assert!(!changing.contains(file));
        assert_eq!(*told.lock(), [(file, true), (file, true), (file, true), (file, false)]);
    }
}
