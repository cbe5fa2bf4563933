//! One damage for each thing that fsck can say.

mod basics;
mod directories;
mod entries;
mod extents;
mod inodes;
mod map;
mod names;
mod saved;
mod sharing;
