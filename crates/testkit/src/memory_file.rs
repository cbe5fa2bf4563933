//! A volume in memory that is still there when it was closed, so that it can be opened again.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use lodefs_pmem::{Access, Domain, Medium, MediumError, OpenOptions};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;

/// A file without a name, in the memory of this process.
#[derive(Debug)]
pub struct MemoryFile {
    file: File,
    size: u64,
}

impl MemoryFile {
    /// A file of `size` zeros.
    pub fn new(size: u64) -> io::Result<Self> {
        let file = File::from(memfd_create("lodefs-testkit", MemfdFlags::CLOEXEC)?);
        file.set_len(size)?;
        Ok(Self { file, size })
    }

    /// Takes the last bytes away, as a host may that has it cut.
    pub fn cut(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(self.size - bytes)
    }

    /// The path by which this process opens the file once more.
    fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    /// The file as a medium for reading and writing, treated as of the given domain. There is one at a time.
    pub fn open(&self, domain: Domain) -> Result<Medium, MediumError> {
        self.open_for(domain, Access::ReadWrite)
    }

    /// The same for reading only.
    pub fn open_read_only(&self, domain: Domain) -> Result<Medium, MediumError> {
        self.open_for(domain, Access::ReadOnly)
    }

    fn open_for(&self, domain: Domain, access: Access) -> Result<Medium, MediumError> {
        Medium::open(&self.path(), &OpenOptions { access, force_domain: Some(domain) })
    }

    /// Another file with the same bytes.
    pub fn copy(&self) -> io::Result<Self> {
        let copy = Self::new(self.size)?;
        let mut at = 0;
        loop {
            at = match seek(&self.file, SeekFrom::Data(at)) {
                Err(Errno::NXIO) => return Ok(copy),
                data => data?,
            };
            let end = seek(&self.file, SeekFrom::Hole(at))?;
            let mut bytes = vec![0; (end - at) as usize];
            self.file.read_exact_at(&mut bytes, at)?;
            copy.file.write_all_at(&bytes, at)?;
            at = end;
        }
    }

    /// All its bytes.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.size as usize];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Replaces the bytes from `at` on.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    /// Whether its bytes from `at` on are these.
    pub fn holds(&self, at: u64, bytes: &[u8]) -> io::Result<bool> {
        let mut part = [0; 16_384];
        for (at, expected) in (at..).step_by(part.len()).zip(bytes.chunks(part.len())) {
            let found = &mut part[..expected.len()];
            self.file.read_exact_at(found, at)?;
            if found != expected {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many bytes it has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Replaces all its bytes by `bytes`, of which there must be as many.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        debug_assert_eq!(bytes.len() as u64, self.size, "a medium keeps its size");
        self.file.write_all_at(bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_is_there_when_it_is_opened_again() {
        let file = MemoryFile::new(16384).unwrap();
        for domain in Domain::ALL {
            let medium = file.open(domain).unwrap();
            assert_eq!(medium.domain(), domain);
            let _in_place = medium.fence(medium.write(100, domain.name().as_bytes()).unwrap()).unwrap();
            drop(medium);
            let mut found = vec![0; domain.name().len()];
            file.open(Domain::Volatile).unwrap().read(100, &mut found).unwrap();
            assert_eq!(found, domain.name().as_bytes());
            assert!(file.read().unwrap()[100..].starts_with(domain.name().as_bytes()));
            assert_eq!(file.copy().unwrap().read().unwrap(), file.read().unwrap());
            assert!(file.holds(100, domain.name().as_bytes()).unwrap());
            assert!(!file.holds(101, domain.name().as_bytes()).unwrap());
        }
    }
}
