//! What the process behind a request may do, as far as a server can know.
//!
//! The kernel decides about permissions. Two questions it answers in fields that the FUSE library does not show, and
//! here they are answered again, on the safe side: a privilege is taken for absent when in doubt.

use std::fs;

use fuser::Request;

/// Whether set-id bits and capabilities of a file go when this caller changes its data: everybody but root
/// (strictly: whoever lacks `CAP_FSETID`).
pub(crate) fn drops_privileges(request: &Request) -> bool {
    request.uid() != 0
}

/// Whether the caller belongs to `group`, or is root.
pub(crate) fn is_in_group(request: &Request, group: u32) -> bool {
    request.uid() == 0
        || request.gid() == group
        || fs::read_to_string(format!("/proc/{}/status", request.pid()))
            .is_ok_and(|status| supplementary_groups(&status).any(|one| one == group))
}

/// The process that a thread belongs to; 0 if the thread is gone, or cannot be seen from here. (Requests name the thread.)
pub(crate) fn process_of(thread: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok()).unwrap_or(0)
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
    fn groups_are_read_from_the_status() {
        let status = "Name:\tx\nGid:\t7\t7\t7\t7\nGroups:\t4 24 1000 \nVmPeak:\t5 kB\n";
        assert_eq!(supplementary_groups(status).collect::<Vec<_>>(), [4, 24, 1000]);
        assert_eq!(supplementary_groups("").count(), 0);
    }
}
