//! Which programs can be measured, where do they come from, and how much are they to do?

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::{Serialize, Serializer};

use super::super::plan::name_of;

/// A program, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// fio: read 4 KiB somewhere in a file
    #[value(name = "fio-read-4k")]
    FioRead,
    /// fio: overwrite 4 KiB somewhere in a file
    #[value(name = "fio-write-4k")]
    FioWrite,
    /// fio: the same reads of a file that is mapped
    #[value(name = "fio-mmap-read-4k")]
    FioMmapRead,
    /// fio: the same writes to a file that is mapped
    #[value(name = "fio-mmap-write-4k")]
    FioMmapWrite,
    /// sqlite3: inserts, a transaction each, with a log that is written ahead, synchronous=FULL
    SqliteWal,
    /// sqlite3: the same with a journal that is deleted after each transaction
    SqliteDelete,
    /// `mdb_load`: records, a transaction for each hundred
    LmdbLoad,
    /// `db_bench`: records in random order, each synced
    #[value(name = "rocksdb-fill-sync")]
    RocksdbFill,
    /// `db_bench`: reads in random order, most of them out of files
    RocksdbRead,
    /// redis-benchmark: SET, where redis-server syncs its append-only file always
    RedisSet,
}

impl Program {
    /// What must be installed, and the package of Debian that has it.
    pub(crate) fn needs(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::FioRead | Self::FioWrite | Self::FioMmapRead | Self::FioMmapWrite => (&["fio"], "fio"),
            Self::SqliteWal | Self::SqliteDelete => (&["sqlite3"], "sqlite3"),
            Self::LmdbLoad => (&["mdb_load"], "lmdb-utils"),
            Self::RocksdbFill | Self::RocksdbRead => (&["db_bench"], "rocksdb-tools"),
            Self::RedisSet => (&["redis-server", "redis-benchmark"], "redis-server"),
        }
    }

    /// Whether each round begins with nothing. fio goes on with the file of the round before, all of whose blocks are there.
    pub(crate) fn begins_anew(self) -> bool {
        !matches!(self, Self::FioRead | Self::FioWrite | Self::FioMmapRead | Self::FioMmapWrite)
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&name_of(self))
    }
}

impl Serialize for Program {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How much is done in each place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    /// Rounds that count.
    pub(crate) rounds: usize,
    /// Rounds before those: files get their blocks, and pages get into caches.
    pub(crate) rounds_ahead: usize,
    /// How long fio reads or writes in a round.
    pub(crate) fio_time: Duration,
    /// Bytes in its file.
    pub(crate) fio_size: u64,
    pub(crate) sqlite_wal_inserts: u64,
    pub(crate) sqlite_delete_inserts: u64,
    pub(crate) lmdb_records: u64,
    pub(crate) rocksdb_synced: u64,
    /// Records that are there before they are read as often.
    pub(crate) rocksdb_read: u64,
    pub(crate) redis_sets: u64,
}

impl Load {
    /// For figures to be relied on.
    pub(crate) const FULL: Self = Self {
        rounds: 7,
        rounds_ahead: 1,
        fio_time: Duration::from_millis(500),
        fio_size: 128 << 20,
        sqlite_wal_inserts: 4000,
        sqlite_delete_inserts: 500,
        lmdb_records: 30_000,
        rocksdb_synced: 5000,
        rocksdb_read: 50_000,
        redis_sets: 20_000,
    };
    /// For a first look.
    pub(crate) const QUICK: Self = Self {
        rounds: 3,
        rounds_ahead: 1,
        fio_time: Duration::from_millis(200),
        fio_size: 32 << 20,
        sqlite_wal_inserts: 1000,
        sqlite_delete_inserts: 100,
        lmdb_records: 5000,
        rocksdb_synced: 1000,
        rocksdb_read: 10_000,
        redis_sets: 5000,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_report() {
        let names: Vec<String> = Program::value_variants().iter().map(ToString::to_string).collect();
        let expected = [
            "fio-read-4k",
            "fio-write-4k",
            "fio-mmap-read-4k",
            "fio-mmap-write-4k",
            "sqlite-wal",
            "sqlite-delete",
            "lmdb-load",
            "rocksdb-fill-sync",
            "rocksdb-read",
            "redis-set",
        ];
        assert_eq!(names, expected);
    }
}
