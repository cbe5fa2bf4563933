//! What does a program do in a round?

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::super::process::{Process, Running};
use super::places::Site;
use super::plan::{Load, Program};
use super::printed;

/// A round takes seconds at most. Whoever takes so long will not end.
const LIMIT: Duration = Duration::from_mins(2);

/// The value of each record.
const VALUE_SIZE: usize = 100;

/// Rounds of one program.
pub(crate) struct Rounds<'a> {
    pub(crate) program: Program,
    pub(crate) load: &'a Load,
    pub(crate) running: &'a Running,
    /// For what is no file of the program's own; its name is short.
    pub(crate) root: &'a Path,
}

impl Rounds<'_> {
    /// A round in a place; returns the operations a second.
    pub(crate) fn run_on(&self, site: &Site) -> anyhow::Result<f64> {
        let directory = self.directory(site);
        if self.program.begins_anew() {
            remove(&directory)?;
        }
        fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
        match self.program {
            Program::FioRead => self.fio(site, "psync", "randread"),
            Program::FioWrite => self.fio(site, "psync", "randwrite"),
            Program::FioMmapRead => self.fio(site, "mmap", "randread"),
            Program::FioMmapWrite => self.fio(site, "mmap", "randwrite"),
            Program::SqliteWal => self.sqlite(site, "wal", self.load.sqlite_wal_inserts),
            Program::SqliteDelete => self.sqlite(site, "delete", self.load.sqlite_delete_inserts),
            Program::LmdbLoad => self.lmdb(site),
            Program::RocksdbFill => {
                let count = self.load.rocksdb_synced.to_string();
                self.rocksdb(site, "fillrandom", &["--sync=true", "--num", &count])
            }
            Program::RocksdbRead => {
                // Out of files, not out of what has just been written or read.
                let count = self.load.rocksdb_read.to_string();
                let further = ["--sync=false", "--cache_size=1048576", "--num", &count];
                self.rocksdb(site, "fillseq,compact,readrandom", &further)
            }
            Program::RedisSet => self.redis(site),
        }
    }

    /// Removes what the program has left.
    pub(crate) fn clear(&self, site: &Site) -> anyhow::Result<()> {
        remove(&self.directory(site))
    }

    fn directory(&self, site: &Site) -> PathBuf {
        site.directory.join(self.program.to_string())
    }

    /// A command in its directory of a place.
    fn command(&self, site: &Site, program: &str) -> anyhow::Result<Command> {
        let mut command = site.command(program)?;
        command.current_dir(self.directory(site));
        Ok(command)
    }

    fn finish(&self, name: &str, command: &mut Command) -> anyhow::Result<(String, Duration)> {
        Process::start(name, command, self.running)?.finish(LIMIT)
    }

    fn fio(&self, site: &Site, engine: &str, pattern: &str) -> anyhow::Result<f64> {
        let mut command = self.command(site, "fio")?;
        command.args(["--name=bench", "--filename=data", "--bs=4k", "--time_based", "--output-format=json"]);
        // What the kernel has in its cache stays there.
        command.arg("--invalidate=0");
        command.args([format!("--ioengine={engine}"), format!("--rw={pattern}")]);
        command.arg(format!("--size={}", self.load.fio_size));
        command.arg(format!("--runtime={}ms", self.load.fio_time.as_millis()));
        printed::fio(&self.finish("fio", &mut command)?.0)
    }

    fn sqlite(&self, site: &Site, journal_mode: &str, inserts: u64) -> anyhow::Result<f64> {
        let script = self.input(&sqlite_script(journal_mode, inserts))?;
        let mut command = self.command(site, "sqlite3")?;
        // Without the settings of whoever is at home here.
        command.args(["-batch", "-bail", "-init", "/dev/null", "data.db"]).stdin(script);
        printed::sqlite(&self.finish("sqlite3", &mut command)?.0, journal_mode, inserts)
    }

    fn lmdb(&self, site: &Site) -> anyhow::Result<f64> {
        let records = self.load.lmdb_records;
        let mut command = self.command(site, "mdb_load")?;
        command.args(["-n", "data.mdb"]).stdin(self.input(&lmdb_records(records))?);
        let (_, took) = self.finish("mdb_load", &mut command)?;
        printed::per_second(records, took.as_secs_f64())
    }

    fn rocksdb(&self, site: &Site, benchmarks: &str, further: &[&str]) -> anyhow::Result<f64> {
        let mut command = self.command(site, "db_bench")?;
        command.args(["--db=data", "--threads=1", "--seed=1", "--compression_type=none"]);
        command.arg(format!("--benchmarks={benchmarks}")).arg(format!("--value_size={VALUE_SIZE}"));
        let (printed, _) = self.finish("db_bench", command.args(further))?;
        let (_, measured) = benchmarks.rsplit_once(',').unwrap_or(("", benchmarks));
        printed::rocksdb(&printed, measured)
    }

    fn redis(&self, site: &Site) -> anyhow::Result<f64> {
        let socket = self.root.join("redis.sock");
        let mut command = self.command(site, "redis-server")?;
        command.args(["--port", "0", "--dir", ".", "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", "", "--auto-aof-rewrite-percentage", "0", "--unixsocket"]).arg(&socket);
        let mut server = Process::start("redis-server", &mut command, self.running)?;
        wait_for(&socket, &mut server)?;
        let mut command = Command::new("redis-benchmark");
        command.arg("-s").arg(&socket).args(["-t", "set", "-q", "--csv", "-n"]);
        let (printed, _) = self.finish("redis-benchmark", command.arg(self.load.redis_sets.to_string()))?;
        printed::redis(&printed, "SET")
    }

    /// A file with what a program is to read from its standard input. It lies beside the places, on the same memory.
    fn input(&self, contents: &str) -> anyhow::Result<File> {
        let path = self.root.join("input");
        fs::write(&path, contents)
            .and_then(|()| File::open(&path))
            .with_context(|| path.display().to_string())
    }
}

/// Removes a directory that may not be there.
fn remove(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| directory.display().to_string())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Waits until a server answers there.
fn wait_for(socket: &Path, server: &mut Process) -> anyhow::Result<()> {
    const STEP: Duration = Duration::from_millis(5);
    for _ in 0..LIMIT.as_millis() / STEP.as_millis() {
        if UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if server.has_ended_within(Duration::ZERO)? {
            bail!(server.failure("has ended before anybody could ask it anything")?);
        }
        thread::sleep(STEP);
    }
    bail!(server.failure("does not answer")?)
}

/// Inserts, a transaction each, between two readings of the clock.
fn sqlite_script(journal_mode: &str, inserts: u64) -> String {
    const CLOCK: &str = "SELECT printf('%.3f', (julianday('now') - 2440587.5) * 86400);";
    let mut script = format!(
        "PRAGMA journal_mode={journal_mode};\nPRAGMA synchronous=FULL;\n\
         CREATE TABLE records(number INTEGER PRIMARY KEY, value TEXT);\n{CLOCK}\n"
    );
    for number in 0..inserts {
        // Nothing can go wrong where a text grows.
        let _ = writeln!(script, "INSERT INTO records VALUES({number}, '{number:0VALUE_SIZE$}');");
    }
    script + CLOCK + "\n"
}

/// Records in mixed order, as `mdb_load` reads them; with a header, because without one there is room for 10 MiB only.
fn lmdb_records(records: u64) -> String {
    /// Prime, and no divisor of the count, so that each number comes up once.
    const STRIDE: u64 = 7919;
    let mut text = "VERSION=3\nformat=print\ntype=btree\nmapsize=268435456\nHEADER=END\n".to_owned();
    for number in 0..records {
        let key = number * STRIDE % records;
        // As above.
        let _ = writeln!(text, " {key:08}\n {number:0VALUE_SIZE$}");
    }
    text + "DATA=END\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_have_what_is_counted() {
        let script = sqlite_script("wal", 3);
        assert_eq!(script.matches("INSERT INTO").count(), 3);
        assert_eq!(script.matches("julianday").count(), 2);
        let text = lmdb_records(5000);
        let keys: Vec<&str> = text.lines().skip(5).step_by(2).filter(|line| line.starts_with(' ')).collect();
        let different: std::collections::HashSet<&str> = keys.iter().copied().collect();
        assert_eq!((keys.len(), different.len()), (5000, 5000));
        assert!(!keys.is_sorted());
    }
}
