//! The engine of lodefs.

pub mod acl;
pub mod alloc;
pub mod xattr_set;
