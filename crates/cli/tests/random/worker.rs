//! A process that makes the calls that it is told to make.

use std::collections::HashMap;
use std::ffi::{CString, c_int};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::{io, ptr};

use super::conversation::{Told, answer, connect, hear};
use super::{Call, Kind, MAPPINGS, Outcome, PAGE, bytes, flags, hash};

/// What it has.
struct Worker {
    place: PathBuf,
    descriptors: HashMap<u64, c_int>,
    /// Where each is, and its bytes.
    mappings: HashMap<u64, (*mut u8, usize)>,
}

/// Makes calls until it is told to end, or nobody is there who could tell it.
pub(crate) fn work(place: &Path, stream: &UnixStream) {
    // SAFETY: nobody waits for the children.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let mut stream = stream.try_clone().unwrap();
    let mut worker =
        Worker { place: place.to_owned(), descriptors: HashMap::new(), mappings: HashMap::new() };
    let mut is_child = false;
    loop {
        match hear(&mut stream).unwrap_or(Told::End) {
            Told::Calls(calls) => {
                let outcomes: Vec<Outcome> = calls.into_iter().map(|call| worker.outcome(call)).collect();
                answer(&mut stream, &outcomes);
            }
            Told::Fork => {
                // SAFETY: the process has one thread of its own.
                match unsafe { libc::fork() } {
                    0 => {
                        is_child = true;
                        stream = connect();
                    }
                    child => {
                        assert!(child > 0);
                        answer(&mut stream, &[]);
                        io::Write::write_all(&mut stream, &[0; 8]).unwrap();
                    }
                }
            }
            Told::End if is_child => {
                // SAFETY: ends the process at once: the rest of the program is the parent's.
                unsafe { libc::_exit(0) }
            }
            Told::End => return,
        }
    }
}

fn checked(result: i64) -> Result<i64, i32> {
    if result < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap()) } else { Ok(result) }
}

impl Worker {
    fn outcome(&mut self, call: Call) -> Outcome {
        self.make(call).unwrap_or_else(|errno| (-i64::from(errno), 0))
    }

    fn path(&self, name: u64) -> CString {
        CString::new(self.place.join(format!("file{name}")).as_os_str().as_bytes()).unwrap()
    }

    /// A descriptor; one that is none, if there is none.
    fn descriptor(&self, which: u64) -> c_int {
        self.descriptors.get(&which).copied().unwrap_or(-1)
    }

    fn make(&mut self, call: Call) -> Result<Outcome, i32> {
        let Call { kind, which, at, size, seed } = call;
        let file = self.descriptor(which);
        let offset = at.cast_signed();
        let mut buffer = vec![0; size as usize];
        let written = || bytes(seed, size);
        // SAFETY: descriptors are this process's own, names are strings that end, buffers are as large as is said.
        unsafe {
            let read = match kind {
                Kind::Read => libc::read(file, buffer.as_mut_ptr().cast(), buffer.len()),
                Kind::ReadAt => libc::pread(file, buffer.as_mut_ptr().cast(), buffer.len(), offset),
                Kind::Scatter => libc::readv(file, parts(&mut buffer).as_ptr(), 2),
                Kind::Write => libc::write(file, written().as_ptr().cast(), size as usize),
                Kind::WriteAt => libc::pwrite(file, written().as_ptr().cast(), size as usize, offset),
                Kind::Gather => libc::writev(file, parts(&mut written()).as_ptr(), 2),
                Kind::Seek => libc::lseek(file, offset, libc::SEEK_SET) as isize,
                Kind::SeekEnd => libc::lseek(file, 0, libc::SEEK_END) as isize,
                Kind::Cut => libc::ftruncate(file, offset) as isize,
                Kind::CutName => libc::truncate(self.path(which).as_ptr(), offset) as isize,
                Kind::Rename => libc::rename(self.path(which).as_ptr(), self.path(at).as_ptr()) as isize,
                Kind::Unlink => libc::unlink(self.path(which).as_ptr()) as isize,
                Kind::Sync => libc::fdatasync(file) as isize,
                _ => return self.make_other(call),
            };
            if read < 0 {
                return Err(io::Error::last_os_error().raw_os_error().unwrap());
            }
            let is_read = matches!(kind, Kind::Read | Kind::ReadAt | Kind::Scatter);
            Ok((read as i64, if is_read { hash(&buffer[..read.cast_unsigned()]) } else { 0 }))
        }
    }

    fn make_other(&mut self, call: Call) -> Result<Outcome, i32> {
        let Call { kind, which, at, .. } = call;
        let file = self.descriptor(which);
        // SAFETY: as above.
        unsafe {
            match kind {
                Kind::Open | Kind::Append => return self.open(call),
                Kind::Close => {
                    checked(i64::from(libc::close(file)))?;
                    self.descriptors.remove(&which);
                }
                Kind::Copy => self.copy(file, at)?,
                Kind::Size => {
                    let mut stat = std::mem::zeroed::<libc::stat>();
                    checked(i64::from(libc::fstat(file, &raw mut stat)))?;
                    let offset = checked(libc::lseek(file, 0, libc::SEEK_CUR))?;
                    return Ok((stat.st_size, offset.cast_unsigned()));
                }
                Kind::Map => self.map(call)?,
                _ => return Ok(self.use_mapping(call)),
            }
        }
        Ok((0, 0))
    }

    fn open(&mut self, call: Call) -> Result<Outcome, i32> {
        let (creates, cuts, writable) = flags(call.seed);
        let all = [
            (creates, libc::O_CREAT),
            (cuts, libc::O_TRUNC),
            (writable, libc::O_RDWR),
            (call.kind == Kind::Append, libc::O_APPEND),
        ];
        let flags = all.iter().filter(|(is_set, _)| *is_set).fold(0, |flags, (_, flag)| flags | flag);
        // SAFETY: the name is a string that ends.
        let file = unsafe { libc::open(self.path(call.which).as_ptr(), flags, 0o644) };
        let file = checked(file.into())? as c_int;
        if let Some(old) = self.descriptors.insert(call.at, file) {
            // SAFETY: it is this process's own, and not used any more.
            unsafe { libc::close(old) };
        }
        Ok((0, 0))
    }

    fn copy(&mut self, file: c_int, to: u64) -> Result<(), i32> {
        // SAFETY: both are this process's own.
        let copy = unsafe {
            match self.descriptors.get(&to) {
                Some(old) => libc::dup2(file, *old),
                None => libc::dup(file),
            }
        };
        self.descriptors.insert(to, checked(copy.into())? as c_int);
        Ok(())
    }

    fn map(&mut self, call: Call) -> Result<(), i32> {
        let file = self.descriptor(call.which);
        // SAFETY: asks for a number; nothing that is there is replaced.
        let (start, size) = unsafe {
            let flags = checked(libc::fcntl(file, libc::F_GETFL).into())? as c_int;
            let writable = flags & libc::O_ACCMODE == libc::O_RDWR;
            let protection = libc::PROT_READ | if writable { libc::PROT_WRITE } else { 0 };
            let (size, offset) = ((call.size * PAGE) as usize, (call.at / PAGE * PAGE).cast_signed());
            (libc::mmap(ptr::null_mut(), size, protection, libc::MAP_SHARED, file, offset), size)
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().raw_os_error().unwrap());
        }
        self.unmap(call.seed % MAPPINGS);
        self.mappings.insert(call.seed % MAPPINGS, (start.cast(), size));
        Ok(())
    }

    fn unmap(&mut self, which: u64) {
        if let Some((start, size)) = self.mappings.remove(&which) {
            // SAFETY: nobody uses it any more.
            assert_eq!(unsafe { libc::munmap(start.cast(), size) }, 0);
        }
    }

    fn use_mapping(&mut self, call: Call) -> Outcome {
        let Some((start, whole)) = self.mappings.get(&call.which).copied() else { return (0, 0) };
        let size = call.size as usize;
        match call.kind {
            Kind::Unmap => self.unmap(call.which),
            Kind::SyncMapping => {
                // SAFETY: it is mapped.
                assert_eq!(unsafe { libc::msync(start.cast(), whole, libc::MS_SYNC) }, 0);
            }
            // SAFETY: the test says what lies within the mapping, and the file.
            Kind::Store => unsafe {
                start.add(call.at as usize).copy_from(bytes(call.seed, call.size).as_ptr(), size);
            },
            _ => {
                let mut loaded = vec![0; size];
                // SAFETY: as above.
                unsafe { start.add(call.at as usize).copy_to(loaded.as_mut_ptr(), size) };
                return (0, hash(&loaded));
            }
        }
        (0, 0)
    }
}

/// A buffer in two parts.
fn parts(buffer: &mut [u8]) -> [libc::iovec; 2] {
    let (first, second) = buffer.split_at_mut(buffer.len() / 3);
    [first, second].map(|part| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() })
}
