//! What the process behind a request may do, as far as a server can know.
//!
//! The kernel decides about permissions. Some questions it answers in fields that the FUSE library does not show, or not
//! at all. Here they are answered from `/proc`, on the safe side: a privilege is taken for absent when in doubt. The
//! process waits for the answer, so it does not change meanwhile.

use std::fs;

use fuser::Request;

/// A capability, by its number (capabilities(7)).
#[derive(Clone, Copy)]
pub(crate) enum Capability {
    /// `CAP_FOWNER`: to change files of others as their owner may.
    Owner = 3,
    /// `CAP_FSETID`: to keep set-id bits.
    SetId = 4,
    /// `CAP_SETFCAP`: to set and remove file capabilities.
    SetFileCapabilities = 31,
}

/// Whether the caller has a capability that counts here: one of a process in the server's user namespace.
pub(crate) fn has(request: &Request, capability: Capability) -> bool {
    let thread = request.pid();
    has_capability(&status(thread), capability) && shares_user_namespace(thread)
}

/// Whether the caller belongs to a group.
pub(crate) fn is_in_group(request: &Request, group: u32) -> bool {
    request.gid() == group || supplementary_groups(&status(request.pid())).any(|one| one == group)
}

/// The text of `/proc/PID/status`; empty if the thread cannot be seen.
fn status(thread: u32) -> String {
    fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default()
}

fn has_capability(status: &str, capability: Capability) -> bool {
    let effective = status
        .lines()
        .find_map(|line| u64::from_str_radix(line.strip_prefix("CapEff:")?.trim(), 16).ok())
        .unwrap_or(0);
    effective & (1 << capability as u32) != 0
}

/// A process has all capabilities in a user namespace of its own, and they mean nothing outside.
fn shares_user_namespace(thread: u32) -> bool {
    let of_thread = fs::read_link(format!("/proc/{thread}/ns/user"));
    let own = fs::read_link("/proc/self/ns/user");
    matches!((of_thread, own), (Ok(of_thread), Ok(own)) if of_thread == own)
}

/// The process that a thread belongs to; 0 if the thread is gone, or cannot be seen from here. (Requests name the thread.)
pub(crate) fn process_of(thread: u32) -> u32 {
    status(thread).lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()).unwrap_or(0)
}

/// The groups in the text of `/proc/PID/status`.
fn supplementary_groups(status: &str) -> impl Iterator<Item = u32> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|group| group.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_belong_to_a_process() {
        let thread = std::thread::spawn(|| {
            process_of(rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned())
        });
        assert_eq!(thread.join().unwrap(), std::process::id());
        assert_eq!(process_of(0), 0);
    }

    #[test]
    fn capabilities_are_read_from_the_status() {
        let status = "Name:\tx\nCapPrm:\t000001ffffffffff\nCapEff:\t0000000000000010\n";
        assert!(has_capability(status, Capability::SetId));
        assert!(!has_capability(status, Capability::Owner));
        assert!(!has_capability("", Capability::SetId));
        assert!(shares_user_namespace(std::process::id()) && !shares_user_namespace(0));
    }

    #[test]
    fn groups_are_read_from_the_status() {
        let status = "Name:\tx\nGid:\t7\t7\t7\t7\nGroups:\t4 24 1000 \nVmPeak:\t5 kB\n";
        assert_eq!(supplementary_groups(status).collect::<Vec<_>>(), [4, 24, 1000]);
        assert_eq!(supplementary_groups("").count(), 0);
    }
}
