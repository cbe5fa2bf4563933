//! How does a program prove its right to a file that it has opened?

use std::os::fd::AsFd;

use lodefs_proto::ticket::{Answer, Message, TICKET_IOCTL};
use rustix::io::Errno;

/// A ticket for an open file of a mount. NOTTY if it is none, OPNOTSUPP if nothing of the volume can be reached directly or nobody may
/// attach, PERM if this user may not, ACCESS if it was not opened for reading and that matters for this user.
pub(crate) fn ask(file: impl AsFd) -> Result<Answer, Errno> {
    let mut message = Message::question();
    // SAFETY: the command says how large its argument is, which is read and overwritten: as large as a `Message`, of which any
    // bytes are a valid one. Other drivers that know the command would do the same, for it is part of it.
    unsafe {
        let update = rustix::ioctl::Updater::<TICKET_IOCTL, Message>::new(&mut message);
        rustix::ioctl::ioctl(file, update)?;
    }
    // Somebody else's driver that happens to know the command.
    Answer::parse(&message).map_err(|_| Errno::NOTTY)
}
