//! Checkpoints of a long computation: the last complete one is always there.
//!
//! A checkpoint is written to a file without a name, so that a crash leaves nothing behind, then linked as `new`, and
//! renamed over the last one. Space for it is set aside first: running out of it loses no checkpoint.
//!
//! `cargo run -p lodefs --example checkpoint VOLUME [STEPS]` counts on from where it was stopped.

use std::io;
use std::path::Path;

use lodefs::{Dir, Volume};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    print!("{}", run(&arguments)?);
    Ok(())
}

/// The whole program: takes its arguments, and returns what it prints: the sum so far.
pub fn run(arguments: &[String]) -> io::Result<String> {
    let usage = || io::Error::new(io::ErrorKind::InvalidInput, "usage: checkpoint VOLUME [STEPS]");
    let path = Path::new(arguments.first().ok_or_else(usage)?);
    let steps: u64 = arguments.get(1).map_or(Ok(10), |steps| steps.parse()).map_err(|_| usage())?;
    let volume = if path.exists() { Volume::open(path)? } else { Volume::create(path, 16 << 20)? };
    let mut state = restore(&volume)?.unwrap_or_else(|| vec![0; 100_000]);
    for _ in 0..steps {
        for (i, number) in state.iter_mut().enumerate() {
            *number += i as u64;
        }
        save(&volume, &state)?;
    }
    // On an ordinary file, a power failure may take the steps since the last sync, but never half a step.
    volume.sync()?;
    volume.close()?;
    Ok(format!("{}\n", state.iter().sum::<u64>()))
}

const LAST: &str = "checkpoint";
const NEW: &str = "checkpoint.new";

/// Makes `state` the last checkpoint.
pub fn save(dir: &Dir, state: &[u64]) -> io::Result<()> {
    let file = dir.tmpfile()?;
    file.allocate(0, size_of_val(state) as u64)?;
    let bytes: Vec<u8> = state.iter().flat_map(|number| number.to_le_bytes()).collect();
    file.write_all_at(&bytes, 0)?;
    if dir.exists(NEW)? {
        // From a crash between the link and the rename.
        dir.remove_file(NEW)?;
    }
    dir.link_file(&file, NEW)?;
    dir.rename(NEW, LAST)
}

/// The last checkpoint.
pub fn restore(dir: &Dir) -> io::Result<Option<Vec<u64>>> {
    if !dir.exists(LAST)? {
        return Ok(None);
    }
    let bytes = dir.read(LAST)?;
    let (numbers, []) = bytes.as_chunks::<8>() else { return Err(io::ErrorKind::InvalidData.into()) };
    Ok(Some(numbers.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect()))
}
