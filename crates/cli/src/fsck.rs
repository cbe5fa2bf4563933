//! `lodefs fsck`: checks a volume, and repairs it if asked to. Exit statuses are fsck(8)'s.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use indicatif::{ProgressBar, ProgressStyle};
use lodefs_core::fsck::{self, Finding, Options, Outcome, Report, Severity, Step};
use lodefs_pmem::Access;
use serde::Serialize;

use crate::arguments::FsckArguments;
use crate::text::{self, shown};
use crate::volume;

/// Nothing was wrong.
const CLEAN: u8 = 0;
/// Something was wrong, and is not any more.
const CORRECTED: u8 = 1;
/// Something is wrong.
const UNCORRECTED: u8 = 4;
/// Nothing can be said.
const FAILED: u8 = 8;
/// The command line is wrong.
pub(crate) const USAGE: u8 = 16;

/// A check that is over sooner needs no progress bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// Checks, and perhaps repairs.
pub(crate) fn run(arguments: &FsckArguments) -> ExitCode {
    match check_or_repair(arguments).and_then(|report| {
        print(arguments, &report)?;
        Ok(status(&report))
    }) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            crate::complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn check_or_repair(arguments: &FsckArguments) -> anyhow::Result<Report> {
    let path = arguments.volume.as_path();
    let (options, bar) = (Options::default(), Bar::new());
    let report = if arguments.repair {
        if !arguments.yes && !io::stdin().is_terminal() {
            bail!("--repair has to ask, and standard input is no terminal; add --yes to agree to everything");
        }
        let medium = volume::open(path, Access::ReadWrite)?;
        let mut decide = |finding: &Finding| arguments.yes || bar.suspended(|| ask(finding));
        fsck::repair(medium, &options, &mut decide, &mut |step| bar.show(step))
    } else {
        let medium = volume::open(path, Access::ReadOnly)?;
        fsck::check(medium, &options, &mut |step| bar.show(step))
    };
    bar.finish();
    report.map_err(|error| volume::explain(path, error))
}

/// Asks whether a remedy that loses something is to be applied. No answer means no.
fn ask(finding: &Finding) -> bool {
    let question = format!("{finding}\n  remedy: {}\n  apply it? [y/N] ", finding.code.remedy());
    let mut answer = String::new();
    let is_answered = text::Plain(io::stderr())
        .write_all(question.as_bytes())
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .is_ok();
    is_answered && matches!(answer.trim(), "y" | "Y" | "yes")
}

fn status(report: &Report) -> u8 {
    if report.is_clean() {
        CLEAN
    } else if report.omitted == 0 && report.left().next().is_none() {
        CORRECTED
    } else {
        UNCORRECTED
    }
}

#[derive(Serialize)]
struct JsonReport<'a> {
    volume: String,
    clean: bool,
    closed_cleanly: bool,
    records_replayed: u64,
    inodes: u64,
    directories: u64,
    blocks_used: u64,
    blocks_total: u64,
    findings: Vec<JsonFinding<'a>>,
    findings_omitted: u64,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    code: &'static str,
    severity: &'static str,
    object: String,
    what: &'static str,
    detail: &'a str,
    remedy: &'static str,
    outcome: &'static str,
    reason: Option<&'a str>,
}

impl<'a> JsonFinding<'a> {
    fn new(finding: &'a Finding) -> Self {
        let reason =
            if let Outcome::Failed(reason) = &finding.outcome { Some(reason.as_str()) } else { None };
        Self {
            code: finding.code.name(),
            severity: if finding.code.severity() == Severity::Note { "note" } else { "error" },
            object: finding.object.to_string(),
            what: finding.code.what(),
            detail: &finding.detail,
            remedy: finding.code.remedy(),
            outcome: outcome(finding),
            reason,
        }
    }
}

fn outcome(finding: &Finding) -> &'static str {
    match finding.outcome {
        Outcome::Found => "found",
        Outcome::Repaired => "repaired",
        Outcome::Declined => "declined",
        Outcome::Failed(_) => "failed",
    }
}

fn print(arguments: &FsckArguments, report: &Report) -> anyhow::Result<()> {
    let name = shown(&arguments.volume);
    if arguments.json {
        let json = JsonReport {
            volume: arguments.volume.to_string_lossy().into_owned(),
            clean: report.is_clean(),
            closed_cleanly: report.was_clean,
            records_replayed: report.records_replayed,
            inodes: report.inodes,
            directories: report.directories,
            blocks_used: report.blocks_used,
            blocks_total: report.blocks_total,
            findings: report.findings.iter().map(JsonFinding::new).collect(),
            findings_omitted: report.omitted,
        };
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&json)?)?;
        return Ok(());
    }
    // What a finding says of names and attributes is the image's.
    let mut out = text::output();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
        match &finding.outcome {
            Outcome::Found if finding.code.severity() == Severity::Note => {
                writeln!(out, "  no damage: the next mount puts it right")?;
            }
            Outcome::Found => writeln!(out, "  remedy: {}", finding.code.remedy())?,
            Outcome::Repaired => writeln!(out, "  repaired: {}", finding.code.remedy())?,
            Outcome::Declined => writeln!(out, "  left as it is")?,
            Outcome::Failed(reason) => writeln!(out, "  not repaired: {reason}")?,
        }
    }
    if report.omitted > 0 {
        writeln!(out, "... and {} more", report.omitted)?;
    }
    let verdict = match status(report) {
        CLEAN => "clean",
        CORRECTED => "repaired",
        _ if arguments.repair => "damaged; some of it could not be repaired, or was to be left",
        _ => "damaged; run `lodefs fsck --repair`",
    };
    writeln!(
        out,
        "{name}: {verdict}; {} inodes, {} of them directories, {} of {} blocks in use",
        report.inodes, report.directories, report.blocks_used, report.blocks_total
    )?;
    Ok(())
}

/// A progress bar on standard error, if that is a terminal, for checks that take their time.
struct Bar {
    bar: ProgressBar,
    start: std::time::Instant,
}

impl Bar {
    fn new() -> Self {
        let style =
            ProgressStyle::with_template("{msg:8} {wide_bar} {percent:3} %").expect("a valid template");
        let bar = if io::stderr().is_terminal() { ProgressBar::new(0) } else { ProgressBar::hidden() };
        Self { bar: bar.with_style(style), start: std::time::Instant::now() }
    }

    fn show(&self, step: Step) {
        if self.start.elapsed() < PATIENCE {
            return;
        }
        self.bar.set_length(step.total);
        self.bar.set_message(step.phase.to_string());
        self.bar.set_position(step.done);
    }

    fn suspended<T>(&self, question: impl FnOnce() -> T) -> T {
        self.bar.suspend(question)
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
