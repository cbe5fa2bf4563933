//! A log of records that are durable one by one.
//!
//! Each record is appended with its length and a checksum in one call, which makes it all or nothing. Opening the log
//! finds every record whose append had returned, whatever happened to the program or (on persistent memory) to the
//! power. On an ordinary file, `sync` decides what survives a power failure.
//!
//! `cargo run -p lodefs --example append_log VOLUME [RECORD...]` adds records and prints the log.

use std::io;
use std::path::Path;

use lodefs::{Dir, File, OpenOptions, Volume};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// The whole program: takes its arguments, and returns what it prints.
pub fn run(arguments: &[String]) -> io::Result<String> {
    let Some((path, records)) = arguments.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "usage: append_log VOLUME [RECORD...]"));
    };
    let path = Path::new(path);
    let volume = if path.exists() { Volume::open(path)? } else { Volume::create(path, 16 << 20)? };
    let log = Log::open(&volume, "log")?;
    for record in records {
        log.append(record.as_bytes())?;
    }
    log.sync()?;
    let text =
        log.records()?.iter().map(|record| String::from_utf8_lossy(record).into_owned() + "\n").collect();
    drop(log);
    volume.close()?;
    Ok(text)
}

/// An append-only log in a file. Threads may share it.
pub struct Log {
    file: File,
}

/// Length and checksum in front of a record, 4 bytes each, little endian.
const HEAD: usize = 8;

impl Log {
    /// Opens a log, or starts one.
    pub fn open(dir: &Dir, path: impl AsRef<Path>) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(dir, path)?;
        Ok(Self { file })
    }

    /// Adds a record, and returns where it is.
    pub fn append(&self, record: &[u8]) -> io::Result<u64> {
        let size = u32::try_from(record.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        let mut bytes = Vec::with_capacity(HEAD + record.len());
        bytes.extend(size.to_le_bytes());
        bytes.extend(checksum(record).to_le_bytes());
        bytes.extend(record);
        self.file.append(&bytes)
    }

    /// Makes everything that was added survive a power failure. Nearly free on persistent memory.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// All records, in the order in which they were added. `InvalidData` if one was damaged.
    pub fn records(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut records = Vec::new();
        let end = self.file.metadata()?.len();
        let mut at = 0;
        while at < end {
            let mut head = [0; HEAD];
            self.file.read_exact_at(&mut head, at)?;
            let [s0, s1, s2, s3, c0, c1, c2, c3] = head;
            let mut record = vec![0; u32::from_le_bytes([s0, s1, s2, s3]) as usize];
            self.file.read_exact_at(&mut record, at + HEAD as u64)?;
            if checksum(&record) != u32::from_le_bytes([c0, c1, c2, c3]) {
                return Err(io::Error::new(io::ErrorKind::InvalidData, format!("damaged record at {at}")));
            }
            at += (HEAD + record.len()) as u64;
            records.push(record);
        }
        Ok(records)
    }
}

/// FNV-1a: short enough for an example.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}
