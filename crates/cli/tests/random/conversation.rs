//! How are processes told what calls to make?
//!
//! By sockets: each process connects to the test. Calls and outcomes are numbers.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{Call, Kind, Outcome};

/// The variable with the name of the test's socket.
const SOCKET: &str = "LODEFS_TEST_SOCKET";
/// In place of a number of calls.
const FORK: u64 = u64::MAX;
const END: u64 = 0;

/// The test, to which processes come.
pub(crate) struct Server {
    listener: UnixListener,
    directory: TempDir,
}

impl Server {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { listener: UnixListener::bind(directory.path().join("socket")).unwrap(), directory }
    }

    /// Tells a program where to connect.
    pub(crate) fn tell<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env(SOCKET, self.directory.path().join("socket"))
    }

    pub(crate) fn accept(&self) -> Worker {
        Worker(self.listener.accept().unwrap().0)
    }
}

/// A process, as the test knows it.
pub(crate) struct Worker(UnixStream);

impl Worker {
    /// Has calls made, and says what they have come to.
    pub(crate) fn make(&mut self, calls: impl Iterator<Item = Call>) -> Vec<Outcome> {
        let calls: Vec<Call> = calls.collect();
        let mut message = (calls.len() as u64).to_ne_bytes().to_vec();
        for Call { kind, which, at, size, seed } in &calls {
            let numbers = [*kind as u64, *which, *at, *size, *seed];
            message.extend(numbers.iter().flat_map(|number| number.to_ne_bytes()));
        }
        self.0.write_all(&message).unwrap();
        let mut next = || number(&mut self.0).expect("the process is there");
        calls.iter().map(|_| (next().cast_signed(), next())).collect()
    }

    pub(crate) fn fork(&mut self) {
        self.0.write_all(&FORK.to_ne_bytes()).unwrap();
        number(&mut self.0).expect("the process is there");
    }

    /// Lets it end, and waits until it has.
    pub(crate) fn end(mut self) {
        self.0.write_all(&END.to_ne_bytes()).unwrap();
        let _ended = self.0.read(&mut [0]);
    }
}

fn number(stream: &mut UnixStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

pub(crate) fn connect() -> UnixStream {
    let path = PathBuf::from(std::env::var_os(SOCKET).expect("a socket"));
    UnixStream::connect(path).unwrap()
}

/// What a process is told.
pub(crate) enum Told {
    Calls(Vec<Call>),
    Fork,
    End,
}

pub(crate) fn hear(stream: &mut UnixStream) -> io::Result<Told> {
    Ok(match number(stream)? {
        FORK => Told::Fork,
        END => Told::End,
        count => {
            let mut all = vec![0; count as usize * 40];
            stream.read_exact(&mut all)?;
            let mut numbers = all.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes));
            let mut next = || numbers.next().unwrap();
            let calls = (0..count).map(|_| Call {
                kind: Kind::of(next()),
                which: next(),
                at: next(),
                size: next(),
                seed: next(),
            });
            Told::Calls(calls.collect())
        }
    })
}

pub(crate) fn answer(stream: &mut UnixStream, outcomes: &[Outcome]) {
    let bytes = outcomes.iter().flat_map(|(result, hash)| [result.cast_unsigned(), *hash]);
    stream.write_all(&bytes.flat_map(u64::to_ne_bytes).collect::<Vec<u8>>()).unwrap();
}
