//! How does a program in C reach the files of a mount directly?
//!
//! What `lodefs-direct` can do, in the manner of libpmem2. The header, `include/lodefs_direct.h`, is made of what is written here
//! (`tests/header.rs`).
//!
//! | module | question |
//! |---|---|
//! | [`mapping`] | how is a file mapped, and what is stored to it made durable? |
//! | [`file`] | how is it read and written without a system call? |
//! | [`dax`] | is a file direct, and why? |
//! | [`maps`] | what is mapped in this process, and how? |
//! | `outcome` | what does a function return? |

#![deny(missing_docs)]

pub mod dax;
pub mod file;
pub mod mapping;
pub mod maps;
mod outcome;
