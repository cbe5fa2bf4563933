//! Is a file direct, why, and who keeps it so?

use std::os::fd::AsFd;

pub use lodefs_proto::dax::{Answer, Effect, Holder, HolderKind, How, Reason};
use lodefs_proto::dax::{DAX_IOCTL, Message, Request};
use rustix::io::Errno;

/// Asks about an open file or directory of a mount. The file that is asked by is not among the holders.
///
/// # Errors
/// NOTTY if it is not on a mounted lodefs volume, INVAL if it is neither a regular file nor a directory.
pub fn status(file: impl AsFd) -> Result<Answer, Errno> {
    send(file, Request::Ask)
}

/// Sets or clears the DAX flag of an open file or directory of a mount, and says what has come of it.
///
/// It takes effect at once if nobody else holds the file in the way that it is reached now; then `file` reaches
/// no data of the volume any more (ESTALE), only what the kernel may still have in its cache: close it, and open it again. Otherwise it takes effect when the last holder goes.
///
/// # Errors
/// BUSY if it is to take effect now ([`How::Now`], [`How::Revoke`]) and cannot, OPNOTSUPP if it never would, because the mount's option or the medium decides otherwise: nothing has changed then. PERM if the caller is neither the owner nor root, or
/// the file is immutable; ROFS; NOTTY and INVAL as for [`status`].
pub fn set(file: impl AsFd, on: bool, how: How) -> Result<Answer, Errno> {
    send(file, Request::Set { on, how })
}

fn send(file: impl AsFd, request: Request) -> Result<Answer, Errno> {
    let mut message = request.message();
    // SAFETY: the command says how large its argument is, which is read and overwritten: as large as a `Message`, of which any
    // bytes are a valid one. Other drivers that know the command would do the same, for it is part of it.
    unsafe {
        let update = rustix::ioctl::Updater::<DAX_IOCTL, Message>::new(&mut message);
        rustix::ioctl::ioctl(file, update)?;
    }
    // Somebody else's driver that happens to know the command.
    Answer::parse(&message).map_err(|_| Errno::NOTTY)
}
