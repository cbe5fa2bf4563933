//! Are the blobs of an inode right: its extended attributes, and the target of a symbolic link?

use lodefs_layout::SYMLINK_MAX;
use lodefs_layout::inode::{INLINE_SIZE, InodeSlot};

use super::finding::{Code, Finding, Object, Place};
use super::survey::Survey;
use crate::acl::Acl;
use crate::alloc::Run;
use crate::blob;
use crate::error::{Error, Result};
use crate::ops::xattr::{ACL_ACCESS, ACL_DEFAULT, check_attribute};
use crate::types::{Ino, Kind};
use crate::xattr_set::XattrSet;

impl Survey<'_> {
    /// Checks the extended attributes of an inode and claims their blocks; returns how many.
    pub(super) fn look_at_attributes(&mut self, ino: Ino, kind: Kind, slot: &InodeSlot) -> Result<u64> {
        let (block, size) = (slot.xattr_block.get(), slot.xattr_size.get() as usize);
        if block == 0 {
            return Ok(0);
        }
        let Some((content, run)) = self.read_blob(ino, block, size, Code::XattrBlob)? else { return Ok(0) };
        match XattrSet::decode(content) {
            Ok(set) if set.is_empty() => self.report_inode(Code::XattrContent, ino, "there are none"),
            Ok(set) => self.look_at_each_attribute(ino, kind, &set),
            Err(error) => self.report_inode(Code::XattrContent, ino, error.to_string()),
        }
        Ok(run.blocks)
    }

    fn look_at_each_attribute(&mut self, ino: Ino, kind: Kind, set: &XattrSet) {
        for (name, value) in set.iter() {
            let fault = if check_attribute(name, kind).is_err() {
                Some((Code::XattrName, String::new()))
            } else if name == ACL_ACCESS || name == ACL_DEFAULT {
                acl_fault(name, value, kind).map(|fault| (Code::XattrAcl, format!(": {fault}")))
            } else {
                None
            };
            if let Some((code, fault)) = fault {
                let detail = format!("{}{fault}", name.escape_ascii());
                self.report(
                    Finding::new(code, Object::Inode(ino), detail).at(Place::Attribute(name.to_vec())),
                );
            }
        }
    }

    /// Checks the target of a symbolic link and claims its blocks; returns how many.
    pub(super) fn look_at_target(&mut self, ino: Ino, slot: &InodeSlot) -> Result<u64> {
        let size = slot.size.get();
        if size == 0 || size > SYMLINK_MAX as u64 {
            self.report_inode(Code::SymlinkTarget, ino, format!("a length of {size}"));
            return Ok(0);
        }
        let size = size as usize;
        if size <= INLINE_SIZE {
            self.look_at_target_bytes(ino, &slot.inline[..size]);
            return Ok(0);
        }
        let read = self.read_blob(ino, slot.root.get(), size, Code::SymlinkTarget)?;
        let Some((target, run)) = read else { return Ok(0) };
        self.look_at_target_bytes(ino, &target);
        Ok(run.blocks)
    }

    fn look_at_target_bytes(&mut self, ino: Ino, target: &[u8]) {
        if target.contains(&0) {
            self.report_inode(Code::SymlinkTarget, ino, "a zero byte");
        }
    }

    /// Reads a blob and claims its blocks. Whatever is wrong is reported as `code`.
    fn read_blob(&mut self, ino: Ino, block: u64, size: usize, code: Code) -> Result<Option<(Vec<u8>, Run)>> {
        let fault = match blob::read(self.volume, ino, block, size) {
            Ok(content) => {
                let run = blob::run(block, size);
                match self.claims.take(run) {
                    None => return Ok(Some((content, run))),
                    Some(_) => "its blocks belong to something else",
                }
            }
            Err(Error::Corrupt { fault, .. }) => fault,
            Err(error) => return Err(error),
        };
        self.facts(ino).is_broken = true;
        self.complete.claims = false;
        self.report_inode(code, ino, fault);
        Ok(None)
    }
}

/// What is wrong with an access control list.
fn acl_fault(name: &[u8], value: &[u8], kind: Kind) -> Option<String> {
    match Acl::parse(value) {
        Err(error) => Some(error.to_string()),
        Ok(None) => Some("it has no entries".into()),
        Ok(Some(_)) if name == ACL_DEFAULT && kind != Kind::Directory => {
            Some("only directories have one".into())
        }
        Ok(Some(_)) => None,
    }
}
