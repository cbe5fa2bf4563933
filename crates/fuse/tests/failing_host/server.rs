//! A host whose device can fail: a file system of one file, served by a process of its own, because whoever maps a file
//! must not be the one who serves it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, INodeNo, KernelConfig, LockOwner,
    OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyOpen, ReplyWrite, Request, Session, SessionACL,
    WriteFlags,
};
use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

/// Names the directory of the host to the process that serves it.
const DIRECTORY: &str = "LODEFS_TEST_HOST";

/// The name of the ignored test that serves.
const SERVE: &str = "serve";

/// What the device does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Device {
    Works,
    /// No page can be written.
    RefusesWrites,
    /// Pages with an even number cannot be written.
    RefusesEven,
    /// Pages with an odd number cannot be written.
    RefusesOdd,
    /// No page can be read.
    RefusesReads,
}

/// A file, `path()`, on a device that can be told to fail. Unmounted when dropped.
pub(crate) struct Host {
    scratch: TempDir,
    server: Child,
}

impl Host {
    pub(crate) fn new(size: u64) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        File::create(scratch.path().join("device")).unwrap().set_len(size).unwrap();
        File::create(scratch.path().join("volume")).unwrap();
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args([SERVE, "--exact", "--ignored", "--nocapture"])
            .env(DIRECTORY, scratch.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(server.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        let host = Self { scratch, server };
        assert_eq!(line, "ready\n");
        host.set(Device::Works);
        host
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.scratch.path().join("volume")
    }

    pub(crate) fn set(&self, device: Device) {
        fs::write(self.scratch.path().join("does"), format!("{device:?}")).unwrap();
    }

    /// Lets the kernel forget what it has of the file, as it may at any time.
    pub(crate) fn drop_cache(&self) {
        let file = File::open(self.path()).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // If a test failed, its mapping may still be there.
        let unmounted = rustix::mount::unmount(self.path(), UnmountFlags::DETACH);
        let ended = self.server.wait();
        assert!((unmounted.is_ok() && ended.is_ok()) || std::thread::panicking());
    }
}

/// The serving process.
pub(crate) fn serve() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).expect("it is started by a test"));
    let device = OpenOptions::new().read(true).write(true).open(directory.join("device")).unwrap();
    let connection = attach(&directory.join("volume")).unwrap();
    let session =
        Session::from_fd(Server { directory, device }, connection, SessionACL::All, Config::default());
    eprintln!("ready");
    session.unwrap().run().unwrap();
}

/// Mounts a file system whose root is a file.
fn attach(file: &Path) -> io::Result<OwnedFd> {
    let connection = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=100000,user_id=0,group_id=0", connection.as_raw_fd());
    let options = std::ffi::CString::new(options).expect("no zero in it");
    rustix::mount::mount("failing", file, "fuse", MountFlags::empty(), Some(options.as_c_str()))?;
    Ok(connection.into())
}

struct Server {
    directory: PathBuf,
    device: File,
}

impl Server {
    fn does(&self) -> String {
        fs::read_to_string(self.directory.join("does")).unwrap_or_default()
    }

    fn attr(&self) -> FileAttr {
        FileAttr {
            ino: INodeNo(1),
            size: self.device.metadata().map_or(0, |metadata| metadata.len()),
            blocks: 0,
            atime: SystemTime::UNIX_EPOCH,
            mtime: SystemTime::UNIX_EPOCH,
            ctime: SystemTime::UNIX_EPOCH,
            crtime: SystemTime::UNIX_EPOCH,
            kind: FileType::RegularFile,
            perm: 0o600,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // One page at a time, so that each can fail by itself.
        config.set_max_write(4096).map(drop).map_err(|_| io::ErrorKind::Unsupported.into())
    }

    fn getattr(&self, _: &Request, _: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::from_secs(1000), &self.attr());
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.device.read_at(&mut bytes, offset) {
            Ok(count) if self.does() != "RefusesReads" => reply.data(&bytes[..count]),
            _ => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let refused = match self.does().as_str() {
            "RefusesWrites" => true,
            "RefusesEven" => (offset / 4096).is_multiple_of(2),
            "RefusesOdd" => offset / 4096 % 2 == 1,
            _ => false,
        };
        if !refused && self.device.write_all_at(data, offset).is_ok() {
            reply.written(data.len() as u32);
        } else {
            reply.error(Errno::EIO);
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }
}
