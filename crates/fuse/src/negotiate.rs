//! Which of the kernel's features are used, and why.

use std::time::Duration;

use fuser::{InitFlags, KernelConfig};

/// How long the kernel may believe names and attributes: all changes pass through it, so in effect for ever.
///
/// A year rather than the largest duration there is, because the kernel computes with it in ticks.
pub const CACHE_TTL: Duration = Duration::from_hours(365 * 24);

/// Bytes in the largest write request: what the kernel is willing to put into one by default.
pub const WRITE_SIZE_MAX: u32 = 1 << 20;

/// Slots for background requests (read-ahead, asynchronous direct I/O) that the server asks for. There are many, so that
/// direct writes that wait for pages to be dropped never occupy all of them (`stale`).
const BACKGROUND_MAX: u16 = 4096;

/// What the kernel gives to a server without `CAP_SYS_ADMIN`, at most.
const BACKGROUND_LIMIT: &str = "/sys/module/fuse/parameters/max_user_bgreq";

/// Features that are switched on wherever the kernel has them.
const WANTED: &[InitFlags] = &[
    // The kernel checks POSIX ACLs; this implies default_permissions. The engine stores them and applies default
    // ACLs to new inodes, for which it needs the umask unapplied.
    InitFlags::FUSE_POSIX_ACL,
    InitFlags::FUSE_DONT_MASK,
    // The engine drops set-id bits and capabilities on write, truncate and chown. Otherwise the kernel would ask
    // for security.capability before each write.
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    // Lookups and reads of one directory do not wait for each other; the engine locks for itself.
    InitFlags::FUSE_PARALLEL_DIROPS,
    // A listing brings attributes along, as long as somebody looks at them.
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_READDIRPLUS_AUTO,
    // An opened directory has no state here: opendir is answered "never ask again", and listings are cached.
    InitFlags::FUSE_NO_OPENDIR_SUPPORT,
    InitFlags::FUSE_CACHE_SYMLINKS,
    InitFlags::FUSE_ASYNC_READ,
    // An asynchronous direct write leaves stale pages behind, which the server has the kernel drop (`stale`).
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_BIG_WRITES,
    InitFlags::FUSE_MAX_PAGES,
    // Nobody changes data behind the kernel's back: cached pages stay until the kernel itself drops them.
    InitFlags::FUSE_EXPLICIT_INVAL_DATA,
    // An inode can be found by its number and generation alone, so file handles survive a dropped cache.
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_HAS_IOCTL_DIR,
    // Not FUSE_ATOMIC_O_TRUNC: with it, opening a program that runs with O_RDONLY | O_TRUNC empties it here before the
    // kernel finds that it runs, and refuses.
];

/// Bytes in the longest name.
pub const NAME_MAX: u32 = 255;

/// How many background requests the kernel lets be under way, at least.
pub(crate) fn background_slots() -> usize {
    let limit = std::fs::read_to_string(BACKGROUND_LIMIT).ok().and_then(|text| text.trim().parse().ok());
    // A limit that cannot be read is taken for the kernel's smallest default.
    usize::from(BACKGROUND_MAX).min(limit.unwrap_or(12))
}

/// Settles with the kernel how the two will work together; says whether it understands that directories need not
/// be opened.
pub(crate) fn negotiate(config: &mut KernelConfig, writeback: bool) -> bool {
    for &feature in WANTED {
        if config.add_capabilities(feature).is_err() {
            tracing::debug!(?feature, "this kernel does not have a feature");
        }
    }
    if writeback && config.add_capabilities(InitFlags::FUSE_WRITEBACK_CACHE).is_err() {
        tracing::warn!("this kernel has no writeback cache; writing through");
    }
    // Both fail only for values out of their range.
    let _ = config.set_max_write(WRITE_SIZE_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
    config.capabilities().contains(InitFlags::FUSE_NO_OPENDIR_SUPPORT)
}
