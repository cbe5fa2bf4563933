//! A million files, in one directory and in a thousand: whether the cost of an operation grows, how long opening takes
//! after a clean close and after a crash, and how much memory it all takes.
//!
//!     cargo run --release -p lodefs-core --example million [VOLUME [FILES]]
//!
//! VOLUME is a file to make (default `/dev/shm/lodefs-million.vol`; it is removed at the end), FILES the number of files
//! (default one million). The durability domain is forced to `memory-controller`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use lodefs_core::{FormatOptions, Fs, NewInode, NewKind, Node, OpenOptions, Result};
use lodefs_pmem::{Access, Domain, Medium, Reserve, create_file};

const FILE: NewInode<'static> = NewInode { kind: NewKind::File, perm: 0o644, umask: 0, uid: 0, gid: 0 };
const DIRECTORY: NewInode<'static> =
    NewInode { kind: NewKind::Directory, perm: 0o755, umask: 0, uid: 0, gid: 0 };

/// Figures are printed for each tenth of the files, so that growth shows.
const PARTS: u64 = 10;

struct Volume {
    path: PathBuf,
}

impl Volume {
    fn medium(&self) -> Medium {
        let options = lodefs_pmem::OpenOptions {
            access: Access::ReadWrite,
            force_domain: Some(Domain::MemoryController),
        };
        Medium::open(&self.path, &options).expect("the volume can be opened")
    }

    fn open(&self, what: &str) -> Result<Arc<Fs>> {
        let start = Instant::now();
        let fs = Fs::open(self.medium(), &OpenOptions::default())?;
        let report = fs.recovery();
        println!(
            "open {what}: {:.1} ms, {} records replayed, {} inodes looked at, memory {:?}",
            start.elapsed().as_secs_f64() * 1e3,
            report.records_replayed,
            report.inodes_scanned,
            fs.memory_use()
        );
        Ok(fs)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Does `operation` for all files and prints nanoseconds each, for each tenth.
fn each(what: &str, files: u64, mut operation: impl FnMut(u64) -> Result<()>) -> Result<()> {
    print!("{what:8}");
    for part in 0..PARTS {
        let range = files * part / PARTS..files * (part + 1) / PARTS;
        let (start, count) = (Instant::now(), range.end - range.start);
        range.into_iter().try_for_each(&mut operation)?;
        print!(" {:6}", start.elapsed().as_nanos() as u64 / count.max(1));
    }
    println!(" ns");
    Ok(())
}

fn list(fs: &Fs, directories: &[Node]) -> Result<()> {
    let start = Instant::now();
    let mut entries = 0u64;
    for directory in directories {
        fs.read_dir(directory, 0, &mut |_| {
            entries += 1;
            true
        })?;
    }
    println!("list     {:6} ns each, {entries} entries", start.elapsed().as_nanos() as u64 / entries);
    Ok(())
}

fn run(path: &Path, files: u64, directories: u64) -> Result<()> {
    println!("-- {files} files in {directories} directories; ns for each tenth of the files");
    let volume = Volume { path: path.to_owned() };
    let size = (files * 1024 + (256 << 20)).next_multiple_of(2 << 20);
    create_file(path, size, Reserve::Full).expect("there is room for the volume");
    Fs::format(&volume.medium(), &FormatOptions::default())?;
    let fs = volume.open("empty")?;
    let name = |i: u64| format!("file-{i:07}").into_bytes();
    let opened = |fs: &Arc<Fs>| -> Result<Vec<Node>> {
        let root = fs.root()?;
        (0..directories).map(|d| fs.lookup(&root, format!("dir-{d}").as_bytes())).collect()
    };
    let root = fs.root()?;
    for d in 0..directories {
        drop(fs.create(&root, format!("dir-{d}").as_bytes(), &DIRECTORY)?);
    }
    let parents = opened(&fs)?;
    let parent = |parents: &[Node], i: u64| parents[(i % directories) as usize].clone();
    each("create", files, |i| fs.create(&parent(&parents, i), &name(i), &FILE).map(drop))?;
    each("stat", files, |i| {
        fs.lookup(&parent(&parents, i), &name(i)).and_then(|node| fs.attr(&node)).map(drop)
    })?;
    list(&fs, &parents)?;
    println!("memory   {:?}", fs.memory_use());
    drop((parents, root));
    fs.close()?;
    drop(fs);
    let fs = volume.open("after a clean close")?;
    let parents = opened(&fs)?;
    // One more file, and then no close: as after a crash.
    drop(fs.create(&parents[0], b"last", &FILE)?);
    drop(parents);
    std::mem::forget(fs);
    unlock(&volume);
    let fs = volume.open("after a crash")?;
    let parents = opened(&fs)?;
    fs.unlink(&parents[0], b"last")?;
    each("delete", files, |i| fs.unlink(&parent(&parents, i), &name(i)))?;
    println!("space    {} blocks of {} free", fs.space().blocks_free, fs.space().blocks);
    Ok(())
}

/// The forgotten file system still has the file open and locked; a copy of the file is what a crash would leave.
fn unlock(volume: &Volume) {
    let copy = volume.path.with_extension("copy");
    std::fs::copy(&volume.path, &copy).expect("there is room for a copy");
    std::fs::rename(&copy, &volume.path).expect("the copy takes the place of the volume");
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().unwrap_or_else(|| "/dev/shm/lodefs-million.vol".into()));
    let files = arguments.next().map_or(1_000_000, |files| files.parse().expect("a number of files"));
    run(&path, files, 1)?;
    run(&path, files, 1000)
}
