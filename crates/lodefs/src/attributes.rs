//! Attributes of an inode, however it was reached.

use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;

use lodefs_core::{Error, Node, SetAttr, XattrMode};
use rustix::io::Errno;

use crate::metadata::Metadata;
use lodefs_mmap::buffers::own;

pub(crate) fn metadata(node: &Node) -> io::Result<Metadata> {
    Ok(Metadata::new(node.fs().attr(node)?))
}

/// The change that sets permissions.
pub(crate) fn permissions_change(permissions: &Permissions) -> SetAttr {
    SetAttr { perm: Some(permissions.mode()), ..SetAttr::default() }
}

pub(crate) fn xattr(node: &Node, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    match node.fs().get_xattr(node, &own(name.as_bytes())) {
        Ok(value) => Ok(Some(value)),
        Err(Error::Refused(Errno::NODATA)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

pub(crate) fn set_xattr(node: &Node, name: &OsStr, value: &[u8], mode: XattrMode) -> io::Result<()> {
    Ok(node.fs().set_xattr(node, &own(name.as_bytes()), &own(value), mode)?)
}

pub(crate) fn xattr_names(node: &Node) -> io::Result<Vec<OsString>> {
    let list = node.fs().list_xattr(node)?;
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(|name| OsString::from_vec(name.to_vec())).collect())
}

pub(crate) fn remove_xattr(node: &Node, name: &OsStr) -> io::Result<()> {
    Ok(node.fs().remove_xattr(node, &own(name.as_bytes()))?)
}
