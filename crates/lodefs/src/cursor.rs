//! A position in an open file.

use std::borrow::Borrow;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::io::Errno;

use crate::file::File;

/// A position in a file: [`Read`], [`Write`] and [`Seek`] on a [`File`], an `&File` or an `Arc<File>`.
///
/// Nothing is buffered: `flush` does nothing, and does not make anything durable ([`File::sync_all`] does). For many
/// small pieces, put it into a [`std::io::BufReader`] or [`std::io::BufWriter`].
///
/// ```
/// use std::io::{BufRead, BufReader, Seek, Write};
/// use lodefs::{OpenOptions, Volume};
///
/// let volume = Volume::in_memory(16 << 20)?;
/// let file = OpenOptions::new().read(true).write(true).create(true).open(&volume, "f")?;
/// let mut cursor = file.cursor();
/// writeln!(cursor, "first")?;
/// writeln!(cursor, "second")?;
/// cursor.rewind()?;
/// let lines: Result<Vec<String>, _> = BufReader::new(cursor).lines().collect();
/// assert_eq!(lines?, ["first", "second"]);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FileCursor<F> {
    file: F,
    position: u64,
}

impl<F: Borrow<File>> FileCursor<F> {
    /// A position at the start of `file`.
    pub fn new(file: F) -> Self {
        Self { file, position: 0 }
    }

    /// The file.
    pub fn file(&self) -> &File {
        self.file.borrow()
    }

    /// Gives the file back.
    pub fn into_file(self) -> F {
        self.file
    }

    /// The position, in bytes from the start.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Sets the position.
    pub fn set_position(&mut self, position: u64) {
        self.position = position;
    }
}

impl<F: Borrow<File>> Read for FileCursor<F> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.borrow().read_at(into, self.position)?;
        self.position += read as u64;
        Ok(read)
    }

    fn read_to_end(&mut self, into: &mut Vec<u8>) -> io::Result<usize> {
        let start = into.len();
        loop {
            let left = self.file().metadata()?.len().saturating_sub(self.position);
            if left == 0 {
                return Ok(into.len() - start);
            }
            let end = into.len();
            let left = usize::try_from(left).map_err(|_| io::ErrorKind::OutOfMemory)?;
            into.try_reserve(left)?;
            into.resize(end + left, 0);
            let read = self.read(&mut into[end..]);
            into.truncate(end + *read.as_ref().unwrap_or(&0));
            read?;
        }
    }
}

impl<F: Borrow<File>> Write for FileCursor<F> {
    /// Writes at the position; or at the end, if the file was opened to append.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.borrow();
        if file.appends() {
            self.position = file.append(bytes)? + bytes.len() as u64;
            return Ok(bytes.len());
        }
        let written = file.write_at(bytes, self.position)?;
        self.position += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: Borrow<File>> Seek for FileCursor<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let moved = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(change) => self.position.checked_add_signed(change),
            SeekFrom::End(change) => self.file().metadata()?.len().checked_add_signed(change),
        };
        self.position = moved.ok_or(Errno::INVAL)?;
        Ok(self.position)
    }

    fn stream_position(&mut self) -> io::Result<u64> {
        Ok(self.position)
    }
}
