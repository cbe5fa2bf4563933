//! How a file is opened.

use std::io;
use std::path::Path;

use lodefs_core::{Error, Kind, NewInode, NewKind, Node, OpenIntent, Result, SetAttr};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::file::{Access, File};
use crate::path::{AtEnd, Found, Last, Walker};

/// How a file is opened: as [`std::fs::OpenOptions`], for a file below a [`Dir`].
///
/// ```
/// use lodefs::{OpenOptions, Volume};
///
/// let volume = Volume::in_memory(16 << 20)?;
/// let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&volume, "log")?;
/// log.append(b"one line\n")?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, as in the standard library")]
pub struct OpenOptions {
    access: Access,
    truncate: bool,
    create: bool,
    create_new: bool,
    no_follow: bool,
    mode: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl OpenOptions {
    /// For nothing yet: reading, writing or appending has to be asked for.
    pub fn new() -> Self {
        Self {
            access: Access::default(),
            truncate: false,
            create: false,
            create_new: false,
            no_follow: false,
            mode: 0o666,
        }
    }

    /// For reading.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.access.read = read;
        self
    }

    /// For writing.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.access.write = write;
        self
    }

    /// For writing at the end only: every write goes there, whatever its offset.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.access.append = append;
        self
    }

    /// Empties it. Needs `write`.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Makes it, if there is none. Needs `write` or `append`.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Makes it; `EEXIST` if anything is there, even a symbolic link that leads nowhere. Needs `write` or `append`.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// Refuses with `ELOOP` if the path ends with a symbolic link.
    pub fn no_follow(&mut self, no_follow: bool) -> &mut Self {
        self.no_follow = no_follow;
        self
    }

    /// Permissions of a new file (`0o666` if not given), before the umask.
    pub fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Opens the regular file at `path`. `EISDIR` for a directory (see [`Dir::open_dir`]), `ENXIO` for other kinds.
    pub fn open(&self, dir: &Dir, path: impl AsRef<Path>) -> io::Result<File> {
        self.check()?;
        let node = self.find_or_create(dir, path.as_ref())?;
        Ok(File::new(dir.held.with(node), self.access, dir.credentials))
    }

    /// The combinations that make no sense, as in the standard library.
    fn check(&self) -> Result<(), Errno> {
        let Access { read, write, append } = self.access;
        let changes = self.create || self.create_new || self.truncate;
        let contradicts_itself = append && self.truncate && !self.create_new;
        let makes_sense = (write || append || read && !changes) && !contradicts_itself;
        if makes_sense { Ok(()) } else { Err(Errno::INVAL) }
    }

    fn find_or_create(&self, dir: &Dir, path: &Path) -> Result<Node> {
        let fs = dir.held.fs();
        let creates = self.create || self.create_new;
        let mut walker = Walker::new(&dir.held, path)?;
        loop {
            let last = walker.walk()?;
            let is_directory = last != Last::Name { slash: false };
            if is_directory && creates {
                let is_new = matches!(last, Last::Name { .. }) || !self.create_new;
                return Err(if is_new { Errno::ISDIR } else { Errno::EXIST }.into());
            }
            if self.create_new {
                return fs.create(walker.here(), walker.name(), &self.new_file(dir));
            }
            let at_end = if self.no_follow { AtEnd::Stay } else { AtEnd::Follow };
            match walker.look(last, at_end) {
                Ok(Found::Node(node)) => {
                    self.prepare(dir, &node)?;
                    return Ok(node);
                }
                Ok(Found::Link(link)) => walker.follow_last(&link)?,
                Err(Error::Refused(Errno::NOENT)) if self.create => {
                    match fs.create(walker.here(), walker.name(), &self.new_file(dir)) {
                        // Somebody was quicker: then that is the file.
                        Err(Error::Refused(Errno::EXIST)) => {}
                        made => return made,
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn new_file(&self, dir: &Dir) -> NewInode<'static> {
        dir.new_inode(NewKind::File, self.mode)
    }

    /// Checks an existing file, and empties it if asked to.
    fn prepare(&self, dir: &Dir, node: &Node) -> Result<()> {
        match node.kind() {
            Kind::File => {}
            Kind::Directory => return Err(Errno::ISDIR.into()),
            Kind::Symlink => return Err(Errno::LOOP.into()),
            _ => return Err(Errno::NXIO.into()),
        }
        let Access { write, append, .. } = self.access;
        if write || append {
            let intent = OpenIntent { write: true, append, truncate: self.truncate };
            dir.held.fs().check_open(node, intent)?;
        }
        if self.truncate {
            let empty = SetAttr {
                size: Some(0),
                writer: dir.credentials.writer(dir.held.fs(), node)?,
                ..SetAttr::default()
            };
            dir.held.fs().set_attr(node, &empty)?;
        }
        Ok(())
    }
}
