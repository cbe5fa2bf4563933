//! A program that has mapped the file.

/// Number of a block.
pub(crate) type Block = u8;

/// What a mapping shows of the file's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Page {
    /// Zeroes, in place of a hole.
    Zero,
    /// A block of the medium.
    Block(Block),
}

/// What a program has where it has mapped the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mapping {
    /// Nothing: it has not mapped it.
    None,
    /// A direct mapping whose next touch is a fault.
    Armed,
    /// A direct mapping of this.
    Direct(Page),
    /// A page of the kernel's cache.
    Buffered,
}

/// The answer to a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Grant {
    /// What is to be mapped; `None`: the file is not direct.
    pub page: Option<Page>,
    /// Recalls that had been sent when it was given.
    pub epoch: u8,
}

/// What the server sends to a program, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ToClient {
    /// The answer to a fault.
    Grant(Grant),
    /// Give back what is mapped: this is recall number so many.
    Recall(u8),
}

/// Whether a program does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// It runs.
    Alive,
    /// It has been stopped, and may go on.
    Stopped,
    /// It is gone.
    Dead,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Client {
    /// Whether it runs.
    pub life: Life,
    /// What it has mapped.
    pub mapping: Mapping,
    /// Recalls that it has answered.
    pub epoch: u8,
    /// A fault that is waited for, and whether it is for writing.
    pub fault: Option<bool>,
    /// The server has not answered it yet.
    pub is_asked: bool,
    /// Messages on their way to it.
    pub inbox: Vec<ToClient>,
    /// An answer that a thread of it has taken from the socket, and not acted upon yet.
    pub in_hand: Option<Grant>,
}

impl Client {
    /// One that has done nothing yet.
    pub(crate) fn new() -> Self {
        Self {
            life: Life::Alive,
            mapping: Mapping::None,
            epoch: 0,
            fault: None,
            is_asked: false,
            inbox: Vec::new(),
            in_hand: None,
        }
    }

    /// What it holds of the medium.
    pub fn page(&self) -> Option<Page> {
        match self.mapping {
            Mapping::Direct(page) => Some(page),
            _ => None,
        }
    }

    /// Whether a recall is on its way to it.
    pub fn is_recalled(&self) -> bool {
        self.inbox.iter().any(|message| matches!(message, ToClient::Recall(_)))
    }

    /// It lets go of everything, or is gone.
    pub(crate) fn forget(&mut self) {
        *self = Self { life: self.life, epoch: self.epoch, ..Self::new() };
    }
}
