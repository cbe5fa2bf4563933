//! Which open files of this process share what is granted of a file?
//!
//! The server takes from one what another one asks for, even of the same process. So those that are open for the same, to write or not, have
//! one lease. Only such as are watched: each looks for itself whether its descriptor is still the file, whoever has asked for the grant.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use lodefs_mapping::{Inside, enter};

use crate::attachment::give_back;
use crate::data::{Data, Leased};
use crate::identity::{FileKey, Identity};

/// The file, and whether it is open to be written.
type Key = (FileKey, bool);

/// Used inside the gate only, so that no child finds it locked.
static SHARED: Mutex<BTreeMap<Key, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// What is granted to some open files. The last of them gives it back.
pub(crate) struct Shared {
    data: Arc<Data>,
    key: Option<Key>,
}

impl Shared {
    /// For one that shares it with nobody.
    pub(crate) fn alone() -> Arc<Self> {
        Arc::new(Self { data: Data::new(), key: None })
    }

    /// For a watched one.
    pub(crate) fn of(identity: &Identity, writable: bool) -> Arc<Self> {
        let key = (identity.file(), writable);
        let inside = enter();
        let mut all = shared(&inside);
        if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let new = Arc::new(Self { data: Data::new(), key: Some(key) });
        all.insert(key, Arc::downgrade(&new));
        new
    }
}

impl Deref for Shared {
    type Target = Arc<Data>;

    fn deref(&self) -> &Arc<Data> {
        &self.data
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let inside = enter();
            let mut all = shared(&inside);
            if all.get(&key).is_some_and(|known| known.strong_count() == 0) {
                all.remove(&key);
            }
        }
        // In a child, it is its own: those of its parent are forgotten.
        let leased = self.data.leased().take();
        self.data.lose();
        if let Some(Leased { link, lease, .. }) = leased {
            give_back(&link, lease);
        }
    }
}

fn shared(_: &Inside) -> MutexGuard<'static, BTreeMap<Key, Weak<Shared>>> {
    SHARED.lock().unwrap_or_else(PoisonError::into_inner)
}
