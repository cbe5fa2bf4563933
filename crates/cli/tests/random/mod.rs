//! What do the calls of several processes come to? A model: names, files, open files, descriptors, mappings.

pub(crate) mod conversation;
pub(crate) mod worker;

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use libc::{EBADF, EINVAL, ENOENT};

/// Names of files, descriptors of a process, and mappings of a process.
pub(crate) const NAMES: u64 = 6;
pub(crate) const SLOTS: u64 = 6;
pub(crate) const MAPPINGS: u64 = 4;
pub(crate) const PAGE: u64 = 4096;
/// Files are seldom longer.
const SIZE: u64 = 200_000;
const BYTES_MAX: u64 = 12_000;

/// A call: numbers, of which each kind uses some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Call {
    pub(crate) kind: Kind,
    /// A descriptor, a name, or a mapping.
    pub(crate) which: u64,
    /// Another one; flags; an offset.
    pub(crate) at: u64,
    /// Bytes or pages.
    pub(crate) size: u64,
    /// What the bytes are.
    pub(crate) seed: u64,
}

macro_rules! kinds {
    ($($kind:ident = $weight:literal,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind,)* }

        /// Each with how often it is chosen, compared with the others.
        const KINDS: &[(Kind, u64)] = &[$((Kind::$kind, $weight),)*];
    };
}

kinds! {
    Open = 3, Append = 2, Close = 2, Copy = 2, Read = 12, Write = 10, ReadAt = 14, WriteAt = 14, Gather = 4, Scatter = 4,
    Seek = 6, SeekEnd = 2, Cut = 2, CutName = 1, Rename = 1, Unlink = 1, Map = 3, Unmap = 1, Store = 14, Load = 12, Sync = 1,
    SyncMapping = 1, Size = 3,
}

impl Kind {
    pub(crate) fn of(number: u64) -> Self {
        KINDS[usize::try_from(number).unwrap()].0
    }
}

/// Numbers at random, from a seed (splitmix64).
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// The bytes that a call writes.
pub(crate) fn bytes(seed: u64, size: u64) -> Vec<u8> {
    (0..size).map(|at| (seed.wrapping_add(at) % 251) as u8).collect()
}

/// What a call has come to: a number, or that of an error with a minus sign; and a number for the bytes that were read.
pub(crate) type Outcome = (i64, u64);

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

type File = Rc<RefCell<Vec<u8>>>;

/// An open file.
struct Opened {
    file: File,
    offset: u64,
    appends: bool,
    writable: bool,
}

#[derive(Clone)]
struct Mapping {
    file: File,
    from: u64,
    size: u64,
    writable: bool,
}

#[derive(Clone, Default)]
struct Process {
    descriptors: HashMap<u64, Rc<RefCell<Opened>>>,
    mappings: HashMap<u64, Mapping>,
}

/// Names, and processes.
pub(crate) struct Model {
    names: HashMap<u64, File>,
    processes: Vec<Process>,
    refused: u64,
}

impl Default for Model {
    fn default() -> Self {
        Self { names: HashMap::new(), processes: vec![Process::default()], refused: 0 }
    }
}

impl Model {
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    pub(crate) fn fork(&mut self, process: usize) {
        let child = self.processes[process].clone();
        self.processes.push(child);
    }

    pub(crate) fn end(&mut self, process: usize) {
        self.processes.remove(process);
    }

    /// A call for a process: one that must not end it.
    pub(crate) fn choose(&self, process: usize, numbers: &mut Numbers) -> Call {
        let all: u64 = KINDS.iter().map(|(_, weight)| weight).sum();
        let mut chosen = numbers.below(all);
        let kind = KINDS.iter().find(|(_, weight)| {
            let is_it = chosen < *weight;
            chosen = chosen.wrapping_sub(*weight);
            is_it
        });
        let kind = kind.unwrap().0;
        let most = [64, 4096, BYTES_MAX][numbers.below(3) as usize];
        let mut call = Call {
            kind,
            which: numbers.next(),
            at: numbers.below(SIZE),
            size: 1 + numbers.below(most),
            seed: numbers.next(),
        };
        match kind {
            Kind::Open | Kind::Append | Kind::CutName | Kind::Unlink => {
                (call.which, call.at) =
                    (call.which % NAMES, if kind == Kind::CutName { call.at } else { call.at % SLOTS });
            }
            Kind::Rename => (call.which, call.at) = (call.which % NAMES, call.at % NAMES),
            Kind::Copy => (call.which, call.at) = (call.which % SLOTS, call.at % SLOTS),
            Kind::Map => (call.which, call.size) = (call.which % SLOTS, 1 + call.size % 12),
            Kind::Unmap | Kind::Store | Kind::Load | Kind::SyncMapping => {
                call.which %= MAPPINGS;
                self.within(process, &mut call);
            }
            _ => call.which %= SLOTS,
        }
        call
    }

    /// Lets an access of a mapping lie within the mapping and the file; of none, if there is nothing.
    fn within(&self, process: usize, call: &mut Call) {
        let mapping = self.processes[process].mappings.get(&call.which);
        let end = mapping.map_or(0, |mapping| {
            let size = mapping.file.borrow().len() as u64;
            size.saturating_sub(mapping.from).min(mapping.size)
        });
        call.at = if end == 0 { 0 } else { call.at % end };
        call.size = call.size.min(end - call.at);
        if call.kind == Kind::Store && !mapping.is_some_and(|mapping| mapping.writable) {
            call.size = 0;
        }
    }

    /// Makes it.
    pub(crate) fn make(&mut self, process: usize, call: Call) -> Outcome {
        let outcome = self.made(process, call).unwrap_or_else(|errno| (-i64::from(errno), 0));
        self.refused += u64::from(outcome.0 < 0);
        outcome
    }

    fn made(&mut self, process: usize, call: Call) -> Result<Outcome, i32> {
        let Call { kind, which, at, size, seed } = call;
        match kind {
            Kind::Open | Kind::Append => self.open(process, call),
            Kind::CutName => {
                let file = self.names.get(&which).ok_or(ENOENT)?;
                file.borrow_mut().resize(at as usize, 0);
                Ok((0, 0))
            }
            Kind::Rename => {
                let file = self.names.get(&which).cloned().ok_or(ENOENT)?;
                self.names.remove(&which);
                self.names.insert(at, file);
                Ok((0, 0))
            }
            Kind::Unlink => self.names.remove(&which).map(|_| (0, 0)).ok_or(ENOENT),
            Kind::Unmap | Kind::Store | Kind::Load | Kind::SyncMapping => Ok(self.mapped(process, call)),
            Kind::Close => self.processes[process].descriptors.remove(&which).map(|_| (0, 0)).ok_or(EBADF),
            Kind::Copy => {
                let opened = self.opened(process, which)?;
                self.processes[process].descriptors.insert(at, opened);
                Ok((0, 0))
            }
            Kind::Map => {
                let opened = self.opened(process, which)?;
                let opened = opened.borrow();
                let mapping = Mapping {
                    file: Rc::clone(&opened.file),
                    from: at / PAGE * PAGE,
                    size: size * PAGE,
                    writable: opened.writable,
                };
                self.processes[process].mappings.insert(seed % MAPPINGS, mapping);
                Ok((0, 0))
            }
            _ => self.opened(process, which)?.borrow_mut().make(call),
        }
    }

    fn opened(&self, process: usize, which: u64) -> Result<Rc<RefCell<Opened>>, i32> {
        self.processes[process].descriptors.get(&which).cloned().ok_or(EBADF)
    }

    fn open(&mut self, process: usize, call: Call) -> Result<Outcome, i32> {
        let (creates, cuts, writable) = flags(call.seed);
        if creates {
            self.names.entry(call.which).or_default();
        }
        let file = Rc::clone(self.names.get(&call.which).ok_or(ENOENT)?);
        if cuts {
            file.borrow_mut().clear();
        }
        let appends = call.kind == Kind::Append;
        let opened = Opened { file, offset: 0, appends, writable };
        self.processes[process].descriptors.insert(call.at, Rc::new(RefCell::new(opened)));
        Ok((0, 0))
    }

    fn mapped(&mut self, process: usize, call: Call) -> Outcome {
        let mappings = &mut self.processes[process].mappings;
        let Some(mapping) = mappings.get(&call.which) else { return (0, 0) };
        let from = (mapping.from + call.at) as usize;
        let mut file = mapping.file.borrow_mut();
        let end = file.len();
        let range = from.min(end)..(from + call.size as usize).min(end);
        match call.kind {
            Kind::Store => file[range].copy_from_slice(&bytes(call.seed, call.size)),
            Kind::Load => return (0, hash(&file[range])),
            Kind::Unmap => {
                drop(file);
                mappings.remove(&call.which);
            }
            _ => {}
        }
        (0, 0)
    }
}

/// Whether a file is made, cut to nothing, and opened to write too.
pub(crate) fn flags(seed: u64) -> (bool, bool, bool) {
    (!seed.is_multiple_of(4), seed % 16 == 5, seed % 8 != 7)
}

impl Opened {
    fn make(&mut self, call: Call) -> Result<Outcome, i32> {
        let Call { kind, at, size, seed, .. } = call;
        let end = self.file.borrow().len() as u64;
        match kind {
            Kind::Read | Kind::Scatter => {
                let outcome = self.read(self.offset, size);
                self.offset += outcome.0.cast_unsigned();
                Ok(outcome)
            }
            Kind::ReadAt => Ok(self.read(at, size)),
            Kind::Write | Kind::Gather => {
                let from = if self.appends { end } else { self.offset };
                self.write(from, size, seed)?;
                self.offset = from + size;
                Ok((size.cast_signed(), 0))
            }
            Kind::WriteAt => {
                self.write(if self.appends { end } else { at }, size, seed)?;
                Ok((size.cast_signed(), 0))
            }
            Kind::Seek => {
                self.offset = at;
                Ok((at.cast_signed(), 0))
            }
            Kind::SeekEnd => {
                self.offset = end;
                Ok((end.cast_signed(), 0))
            }
            Kind::Cut if !self.writable => Err(EINVAL),
            Kind::Cut => {
                self.file.borrow_mut().resize(at as usize, 0);
                Ok((0, 0))
            }
            Kind::Size => Ok((end.cast_signed(), self.offset)),
            _ => Ok((0, 0)),
        }
    }

    fn read(&self, from: u64, size: u64) -> Outcome {
        let file = self.file.borrow();
        let from = (from as usize).min(file.len());
        let read = &file[from..(from + size as usize).min(file.len())];
        (read.len().cast_signed() as i64, hash(read))
    }

    fn write(&self, from: u64, size: u64, seed: u64) -> Result<(), i32> {
        if !self.writable {
            return Err(EBADF);
        }
        let mut file = self.file.borrow_mut();
        let (from, end) = (from as usize, (from + size) as usize);
        if file.len() < end {
            file.resize(end, 0);
        }
        file[from..end].copy_from_slice(&bytes(seed, size));
        Ok(())
    }
}
