//! How many operations a second is that, by what a program has printed?

use anyhow::{Context, ensure};

/// The operations a second in fio's JSON. A job that reads has written none, and the other way round.
pub(crate) fn fio(printed: &str) -> anyhow::Result<f64> {
    // Notes may stand before it.
    let json = printed.find('{').and_then(|start| printed.get(start..)).unwrap_or(printed);
    let report: serde_json::Value = serde_json::from_str(json)
        .with_context(|| format!("fio has printed no report: {}", last(printed)))?;
    let job = &report["jobs"][0];
    let of = |direction: &str| job[direction]["iops"].as_f64();
    let (reads, writes) = of("read").zip(of("write")).context("fio's report has no job in it")?;
    rate(reads + writes).context("fio")
}

/// What is done in the time between two readings of the clock that sqlite3 has printed below the mode of its journal.
pub(crate) fn sqlite(printed: &str, journal_mode: &str, operations: u64) -> anyhow::Result<f64> {
    let mut lines = printed.lines();
    let mode = lines.next().unwrap_or_default();
    ensure!(mode == journal_mode, "sqlite3: the mode of the journal is `{mode}` instead of `{journal_mode}`");
    let mut reading = || lines.next().and_then(|line| line.parse::<f64>().ok());
    let (start, end) = reading().zip(reading()).context("sqlite3 has not printed when it began and ended")?;
    per_second(operations, end - start).context("sqlite3")
}

/// The operations a second in the line of `db_bench` about this benchmark, which must have found what it has looked for.
pub(crate) fn rocksdb(printed: &str, benchmark: &str) -> anyhow::Result<f64> {
    // It overwrites its messages about progress on the same line.
    let mut lines = printed.split(['\n', '\r']).map(str::trim_start);
    let line = lines
        .find(|line| line.strip_prefix(benchmark).is_some_and(|rest| rest.trim_start().starts_with(':')))
        .with_context(|| format!("db_bench has printed nothing about {benchmark}: {}", last(printed)))?;
    let found = line.rsplit_once('(').and_then(|(_, rest)| rest.strip_suffix(" found)"));
    if let Some((found, wanted)) = found.and_then(|counts| counts.split_once(" of ")) {
        ensure!(found == wanted, "db_bench: only {found} of {wanted} records were found");
    }
    let before = line.split_once(" ops/sec").map(|(before, _)| before);
    let number = before.and_then(|before| before.split_whitespace().next_back()?.parse().ok());
    rate(number.with_context(|| format!("db_bench has printed no speed: {line}"))?).context("db_bench")
}

/// The operations a second in the table of redis-benchmark about this test.
pub(crate) fn redis(printed: &str, test: &str) -> anyhow::Result<f64> {
    let mut rows = printed.lines().map(|line| line.split(',').map(|cell| cell.trim_matches('"')));
    let mut row = rows
        .find(|row| row.clone().next() == Some(test))
        .with_context(|| format!("redis-benchmark has printed nothing about {test}: {}", last(printed)))?;
    let number = row.nth(1).and_then(|cell| cell.parse().ok());
    rate(number.context("redis-benchmark has printed no speed")?).context("redis-benchmark")
}

/// So many operations in so many seconds.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) fn per_second(operations: u64, seconds: f64) -> anyhow::Result<f64> {
    rate(operations as f64 / seconds)
}

fn rate(per_second: f64) -> anyhow::Result<f64> {
    ensure!(per_second.is_finite() && per_second > 0.0, "it has done nothing, or in no time");
    Ok(per_second)
}

fn last(printed: &str) -> &str {
    printed.trim_end().lines().next_back().unwrap_or("nothing at all")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers with so few digits are read as they are written.
    fn is(found: anyhow::Result<f64>, expected: f64) -> bool {
        found.unwrap().to_bits() == expected.to_bits()
    }

    #[test]
    fn fio_reports_reads_or_writes() {
        let report =
            "fio: a note\n{\"jobs\": [{\"read\": {\"iops\": 0.0}, \"write\": {\"iops\": 858636.5}}]}\n";
        assert!(is(fio(report), 858_636.5));
        let report = report.replace("858636.5", "0").replacen("0.0", "12.25", 1);
        assert!(is(fio(&report), 12.25));
        assert!(fio(&report.replace("12.25", "0")).is_err());
        assert!(fio("{\"jobs\": []}").is_err());
        assert!(fio("fio: no such engine\n").unwrap_err().to_string().ends_with("fio: no such engine"));
    }

    #[test]
    fn sqlite_is_timed_by_its_own_clock_in_the_mode_that_was_asked_for() {
        let printed = "wal\n1795361754.25\n1795361754.75\n";
        assert!(is(sqlite(printed, "wal", 100), 200.0));
        assert!(sqlite(printed, "delete", 100).unwrap_err().to_string().contains("is `wal` instead"));
        assert!(sqlite("wal\n1795361754.25\n", "wal", 100).is_err());
        assert!(sqlite("wal\n5.0\n5.0\n", "wal", 100).is_err());
    }

    #[test]
    fn rocksdb_is_believed_if_it_has_found_everything() {
        let printed = "fillseq      :       4.019 micros/op 248589 ops/sec 0.040 seconds 10000 operations;   27.5 MB/s\n\
            ... finished 100 ops  \rreadrandom   :       2.489 micros/op 401585 ops/sec 0.249 seconds 100 operations;   \
            44.4 MB/s (100 of 100 found)\n\n";
        assert!(is(rocksdb(printed, "readrandom"), 401_585.0));
        assert!(is(rocksdb(printed, "fillseq"), 248_589.0));
        assert!(rocksdb(printed, "read").is_err());
        let lost = printed.replace("(100 of 100 found)", "(99 of 100 found)");
        assert!(rocksdb(&lost, "readrandom").unwrap_err().to_string().contains("only 99 of 100"));
    }

    #[test]
    fn redis_reports_in_a_table() {
        let printed = "\"test\",\"rps\",\"avg_latency_ms\"\n\"SET\",\"131578.95\",\"0.209\"\n";
        assert!(is(redis(printed, "SET"), 131_578.95));
        assert!(redis(printed, "GET").is_err());
        assert!(redis("Could not connect\n", "SET").unwrap_err().to_string().ends_with("Could not connect"));
    }
}
