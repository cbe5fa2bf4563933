//! From a path to an inode, by the rules of Linux (`path_resolution(7)`).
//!
//! A path is walked from a directory, or from the root if it starts with a slash. `..` of the root is the root.
//! Symbolic links on the way are followed, at most [`LINKS_MAX`] of them; one that starts with a slash starts at the
//! volume's root. A path that ends with a slash leads to a directory. Names may be any bytes but NUL; there is no limit
//! to the length of a path, but each name has at most 255 bytes.

use std::borrow::Cow;
use std::ops::{Deref, Range};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use lodefs_core::{Error, Kind, Node, Result};
use rustix::io::Errno;

use lodefs_mmap::buffers;

/// Most symbolic links that are followed on one way, as in the kernel.
const LINKS_MAX: u32 = 40;

/// Whether a symbolic link at the end of a path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AtEnd {
    Follow,
    Stay,
}

/// The directory where a walk is: the one it started in, or another. Saves counting references for paths of one name.
enum Here<'a> {
    Start(&'a Node),
    Reached(Node),
}

impl Deref for Here<'_> {
    type Target = Node;

    fn deref(&self) -> &Node {
        match self {
            Self::Start(node) => node,
            Self::Reached(node) => node,
        }
    }
}

/// A walk along a path. It stops at the last component, to let the caller decide what to do with that.
pub(crate) struct Walker<'a> {
    here: Here<'a>,
    path: Cow<'a, [u8]>,
    /// Where the rest of the path starts.
    rest: usize,
    links: u32,
}

/// The last component of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    /// There is none: the path is the root.
    Root,
    /// `.`
    Dot,
    /// `..`
    DotDot,
    /// A name; [`Walker::name`] says which.
    Name {
        /// It is followed by a slash, so that it must lead to a directory.
        slash: bool,
    },
}

impl<'a> Walker<'a> {
    /// A walk along `path` that starts in the directory `start`. `ENOENT` if the path is empty.
    pub(crate) fn new(start: &'a Node, path: &'a Path) -> Result<Self> {
        let path = path.as_os_str().as_bytes();
        let mut walker = Self { here: Here::Start(start), path: buffers::own(path), rest: 0, links: 0 };
        walker.begin()?;
        Ok(walker)
    }

    /// The directory that has been reached.
    pub(crate) fn here(&self) -> &Node {
        &self.here
    }

    /// Looks at the start of a path.
    fn begin(&mut self) -> Result<()> {
        match self.path.first() {
            None => Err(Errno::NOENT.into()),
            Some(b'/') => {
                self.here = Here::Reached(self.here.fs().root()?);
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    /// Walks until only the last component is left.
    pub(crate) fn walk(&mut self) -> Result<Last> {
        loop {
            let Some(component) = self.component() else { return Ok(Last::Root) };
            let name = &self.path[component.clone()];
            let behind = &self.path[component.end..];
            if behind.iter().all(|byte| *byte == b'/') {
                return Ok(match name {
                    b"." => Last::Dot,
                    b".." => Last::DotDot,
                    _ => Last::Name { slash: !behind.is_empty() },
                });
            }
            let next = self.here.fs().lookup(&self.here, name)?;
            self.rest = component.end;
            match next.kind() {
                Kind::Directory => self.here = Here::Reached(next),
                Kind::Symlink => self.follow(&next)?,
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
    }

    /// Walks to the entry of a directory that is to be removed, and returns whether a slash follows its name. Refuses a
    /// path that ends without a name, as rmdir(2) does: such a directory cannot be removed, whatever it holds.
    pub(crate) fn walk_to_entry(&mut self) -> Result<bool> {
        match self.walk()? {
            Last::Name { slash } => Ok(slash),
            Last::Dot => Err(Errno::INVAL.into()),
            Last::DotDot => Err(Errno::NOTEMPTY.into()),
            Last::Root => Err(Errno::BUSY.into()),
        }
    }

    /// The name of the last component.
    pub(crate) fn name(&self) -> &[u8] {
        self.component().map_or(&[], |component| &self.path[component])
    }

    /// What the name of the last component leads to, be it a symbolic link or not.
    pub(crate) fn look_up(&self) -> Result<Node> {
        self.here.fs().lookup(&self.here, self.name())
    }

    /// The first component of the rest.
    fn component(&self) -> Option<Range<usize>> {
        let rest = &self.path[self.rest..];
        let start = self.rest + rest.iter().position(|byte| *byte != b'/')?;
        let size = self.path[start..].iter().position(|byte| *byte == b'/');
        Some(start..size.map_or(self.path.len(), |size| start + size))
    }

    /// Goes on along the symbolic link that the last component leads to.
    pub(crate) fn follow_last(&mut self, link: &Node) -> Result<()> {
        self.rest = self.component().map_or(self.path.len(), |component| component.end);
        self.follow(link)
    }

    /// Puts the target of `link` in front of the rest of the path.
    fn follow(&mut self, link: &Node) -> Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Errno::LOOP.into());
        }
        let mut path = self.here.fs().read_link(link)?;
        path.extend_from_slice(&self.path[self.rest..]);
        self.path = Cow::Owned(path);
        self.rest = 0;
        self.begin()
    }

    /// Looks at what the last component leads to.
    pub(crate) fn look(&mut self, last: Last, at_end: AtEnd) -> Result<Found> {
        let (node, slash) = match last {
            Last::Root | Last::Dot => (Node::clone(&self.here), true),
            Last::DotDot => (self.here.fs().lookup(&self.here, b"..")?, true),
            Last::Name { slash } => (self.look_up()?, slash),
        };
        if node.kind() == Kind::Symlink && (slash || at_end == AtEnd::Follow) {
            return Ok(Found::Link(node));
        }
        if slash && node.kind() != Kind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        Ok(Found::Node(node))
    }
}

/// What the last component leads to.
pub(crate) enum Found {
    /// The end.
    Node(Node),
    /// A symbolic link that has to be followed.
    Link(Node),
}

/// The inode that a path leads to.
pub(crate) fn resolve(start: &Node, path: &Path, at_end: AtEnd) -> Result<Node> {
    let mut walker = Walker::new(start, path)?;
    loop {
        let last = walker.walk()?;
        match walker.look(last, at_end)? {
            Found::Node(node) => return Ok(node),
            Found::Link(link) => walker.follow_last(&link)?,
        }
    }
}

/// Like [`resolve`], with `None` where there is nothing.
pub(crate) fn resolve_if_any(start: &Node, path: &Path, at_end: AtEnd) -> Result<Option<Node>> {
    match resolve(start, path, at_end) {
        Ok(node) => Ok(Some(node)),
        Err(Error::Refused(Errno::NOENT)) => Ok(None),
        Err(error) => Err(error),
    }
}
