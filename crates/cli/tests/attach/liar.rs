//! Programs that say anything: random bytes, random messages, messages about what is not theirs, floods, and silence.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use lodefs_proto::attach::{Ask, FromProgram};
use lodefs_proto::server::{FromServer, MESSAGE_MAX, Outcome};
use lodefs_proto::ticket::{Answer, Message, TICKET_IOCTL, Ticket};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
    SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg, socket_with,
};
use zerocopy::IntoBytes;

/// A ticket for an open file.
pub(crate) fn ticket(file: &File) -> Answer {
    let mut message = Message::question();
    // SAFETY: the command's argument is such a message, of which any bytes are a valid one.
    unsafe {
        let update = rustix::ioctl::Updater::<TICKET_IOCTL, Message>::new(&mut message);
        rustix::ioctl::ioctl(file, update).unwrap();
    }
    Answer::parse(&message).unwrap()
}

/// A connection to a server, by which anything can be said.
pub(crate) struct Liar(OwnedFd);

impl Liar {
    pub(crate) fn connect(name: &[u8]) -> Self {
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        connect(&socket, &SocketAddrUnix::new_abstract_name(name).unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn say(&self, message: &FromProgram) -> bool {
        self.say_bytes(message.raw().as_bytes())
    }

    /// Whether it was taken.
    pub(crate) fn say_bytes(&self, bytes: &[u8]) -> bool {
        let mut nothing = SendAncillaryBuffer::default();
        sendmsg(self.0.as_fd(), &[IoSlice::new(bytes)], &mut nothing, SendFlags::NOSIGNAL).is_ok()
    }

    /// What the server says next; `None` if it has ended the conversation, or with `waits` false has nothing to say.
    pub(crate) fn hear(&self, waits: bool) -> Option<FromServer> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; MESSAGE_MAX];
        let flags =
            if waits { RecvFlags::CMSG_CLOEXEC } else { RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT };
        match recvmsg(self.0.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) if received.bytes > 0 => Some(FromServer::parse(&bytes[..received.bytes]).unwrap()),
            Ok(_) | Err(Errno::AGAIN | Errno::CONNRESET) => None,
            Err(errno) => panic!("{errno}"),
        }
    }

    /// What the server answers to a request.
    pub(crate) fn ask(&self, ask: Ask) -> Outcome {
        assert!(self.say(&FromProgram::Ask(1, ask)));
        match self.hear(true) {
            Some(FromServer::Outcome(1, outcome)) => outcome,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn open(&self, ticket: Ticket) -> Outcome {
        self.ask(Ask::Open { ticket })
    }
}

/// A descriptor of the medium, which a program gets with a file.
pub(crate) fn medium(file: &File) -> OwnedFd {
    let ticket = ticket(file);
    let liar = Liar::connect(ticket.name());
    assert!(liar.say(&FromProgram::Ask(1, Ask::Open { ticket: ticket.ticket })));
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [0; MESSAGE_MAX];
    let (mut buffers, flags) = ([IoSliceMut::new(&mut bytes)], RecvFlags::CMSG_CLOEXEC);
    recvmsg(liar.0.as_fd(), &mut buffers, &mut control, flags).unwrap();
    let medium = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    medium.unwrap()
}

/// Random messages: most of them about what there is, with numbers at the ends of what makes sense.
pub(crate) fn babble(liar: &Liar, next: &mut dyn FnMut(u64) -> u64, tickets: &dyn Fn() -> Ticket) {
    for _ in 0..next(400) {
        let number = next(4);
        let numbers = [
            0,
            1,
            next(8),
            4096,
            4096 * next(64),
            (1 << 63) - 4096,
            1 << 63,
            u64::MAX,
            u64::MAX - 4095,
            next(u64::MAX),
        ];
        let mut any = || numbers[next(numbers.len() as u64) as usize];
        let (a, b, c) = (any(), any(), any());
        let (yes, no) = (any() % 2 == 0, any() % 2 == 0);
        let message = match next(15) {
            0 => FromProgram::Ask(number, Ask::Open { ticket: tickets() }),
            1 => FromProgram::Ask(number, Ask::Open { ticket: Ticket([7; 16]) }),
            2 => FromProgram::Ask(number, Ask::Close { file: next(6) }),
            3..=5 => FromProgram::Ask(
                number,
                Ask::Map { file: next(6), offset: b, size: c, writable: yes, sync: no },
            ),
            6 => FromProgram::Ask(number, Ask::Return { lease: a }),
            7 => FromProgram::Ask(number, Ask::Changed { lease: a }),
            12 => FromProgram::Ask(number, Ask::Lease { file: next(6), writable: yes }),
            13 => FromProgram::Ask(number, Ask::Take { lease: next(64), offset: b, write: yes }),
            14 => FromProgram::Ask(number, Ask::Reserve { lease: next(64), offset: b, end: c }),
            8..=10 => FromProgram::Touch { lease: next(64), offset: b, window: c, write: yes },
            _ => FromProgram::Answer { lease: a, epoch: b },
        };
        if !liar.say(&message) {
            return;
        }
        while liar.hear(false).is_some() {}
    }
    let garbage: Vec<u8> = (0..next(200)).map(|_| next(256) as u8).collect();
    liar.say_bytes(&garbage);
}
