//! Golden images: volumes as a released format has stored them, kept for ever, each with a text that says what must be
//! found on it.
//!
//! `recipes` makes them, `furnish` and `changes` fill them, `describe` says what is there. They are made once, with the
//! engine that introduces what is new in them, and never again: an engine that reads the format in another way would
//! otherwise be right by definition.

mod changes;
mod describe;
mod furnish;
mod recipes;

use std::fs;
use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};

use miniz_oxide::deflate::compress_to_vec_zlib;
use miniz_oxide::inflate::decompress_to_vec_zlib_with_limit;

pub use self::describe::{describe, inodes_of};
pub use self::recipes::make;
use crate::hostile::image::{BOOT, Image};

/// The images. The number in front is the version of the format.
pub const ALL: [&str; 6] = ["1-closed", "1-tree", "1-crashed", "1-gated", "1-orphans", "1-keyed"];

/// Another boot of the host than that in which the images were made.
pub const LATER_BOOT: [u8; 16] = [2; 16];

/// Bytes in the largest image, and more.
const SIZE_MAX: usize = 64 << 20;
/// As small as it gets.
const COMPRESSION: u8 = 10;

/// An image and what is on it.
#[derive(PartialEq, Eq)]
pub struct Golden {
    /// The volume.
    pub image: Image,
    /// What is found on it in the boot of the host in which it was made.
    pub text: String,
    /// What is found after the host was started again, if that is something else.
    pub text_later: Option<String>,
}

impl Golden {
    /// An image, and what this engine finds on it.
    pub fn of(image: Image) -> lodefs_core::Result<Self> {
        let text = describe(&image, BOOT)?;
        let text_later = Some(describe(&image, LATER_BOOT)?).filter(|later| *later != text);
        Ok(Self { image, text, text_later })
    }

    /// The stored one of this name.
    pub fn load(name: &str) -> Result<Self> {
        let place = Place::of(name);
        let packed = fs::read(&place.image)?;
        let bytes = decompress_to_vec_zlib_with_limit(&packed, SIZE_MAX)
            .map_err(|error| Error::new(ErrorKind::InvalidData, error.to_string()))?;
        let text = fs::read_to_string(&place.text)?;
        let text_later = match fs::read_to_string(&place.text_later) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            later => Some(later?),
        };
        Ok(Self { image: Image::of(bytes), text, text_later })
    }

    /// Stores it under a name that no other has.
    pub fn store(&self, name: &str) -> Result<()> {
        let place = Place::of(name);
        fs::create_dir_all(directory())?;
        write_new(&place.image, &compress_to_vec_zlib(self.image.bytes(), COMPRESSION))?;
        write_new(&place.text, self.text.as_bytes())?;
        match &self.text_later {
            Some(later) => write_new(&place.text_later, later.as_bytes()),
            None => Ok(()),
        }
    }
}

/// The names under which something is stored.
pub fn stored() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory())? {
        let file = entry?.file_name().to_string_lossy().into_owned();
        names.push(file.split('.').next().unwrap_or_default().to_owned());
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Where an image is stored.
struct Place {
    image: PathBuf,
    text: PathBuf,
    text_later: PathBuf,
}

impl Place {
    fn of(name: &str) -> Self {
        let file = |ending| directory().join(format!("{name}.{ending}"));
        Self { image: file("img.z"), text: file("txt"), text_later: file("later.txt") }
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    let told = |error: Error| Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = fs::File::create_new(path).map_err(told)?;
    file.write_all(bytes)
}
