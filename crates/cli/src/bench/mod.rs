//! `lodefs bench`: how fast a volume is on this machine, as ratios to what is as fast as can be.
//!
//! | module | question |
//! |---|---|
//! | `plan` | which rows are there, by which ways, and what is to be reached? |
//! | `arena` | where do volumes and yardsticks lie, and who removes them? |
//! | `affinity` | on which processor? |
//! | `measure` | how are two things timed against each other? |
//! | `work` | what does a row do? |
//! | `targets` | what is it done on? |
//! | `compare` | a row, between two targets |
//! | `embedded`, `reopen`, `threads`, `attached`, `mapped`, `mounted` | what are the targets and yardsticks of the rows? |
//! | `figure` | how is it reported? |
//! | `loop_device` | how is a file system of the kernel mounted here? |
//! | `process` | who runs other programs, and ends them? |
//! | `programs` | how fast are real programs, instead of rows? |
//!
//! Volumes and raw memory are files of one tmpfs, treated as persistent memory behind a memory controller: what makes
//! stores durable there, non-temporal stores, write-back of cache lines and fences, is really done, and costs on this
//! machine's memory what it costs.

mod affinity;
mod arena;
mod attached;
mod compare;
mod embedded;
mod figure;
mod loop_device;
mod mapped;
mod measure;
mod mounted;
pub(crate) mod plan;
mod process;
pub(crate) mod programs;
mod reopen;
mod targets;
mod threads;
mod work;

use std::io::{self, Write as _};

use anyhow::Context;
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressStyle};

use self::arena::Arena;
use self::attached::Attached;
use self::compare::Trial;
use self::embedded::Embedded;
use self::figure::Figure;
use self::mounted::Mounts;
use self::plan::{Effort, Row, Way};
use crate::Usage;
use crate::arguments::BenchArguments;

/// Measures and prints what was asked for.
pub(crate) fn run(arguments: &BenchArguments) -> anyhow::Result<()> {
    if let Some(asked) = &arguments.programs {
        return programs::run(asked, arguments);
    }
    let planned = plan_of(&arguments.row, &arguments.way)?;
    let effort = if arguments.quick { Effort::QUICK } else { Effort::FULL };
    let arena = Arena::set_up(arguments.dir.as_deref(), &arguments.against)?;
    arena.remove_on_signals()?;
    let figures = measure(&planned, &effort, &arena, !arguments.json)?;
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&figures)?)?;
    } else {
        writeln!(io::stdout(), "{}", figure::table(&figures))?;
    }
    Ok(())
}

/// The rows that were asked for, or all, by the ways that were asked for, or all.
fn plan_of(rows: &[Row], ways: &[Way]) -> anyhow::Result<Vec<(Way, Row)>> {
    fn or_all<T: ValueEnum + Copy>(asked: &[T]) -> &[T] {
        if asked.is_empty() { T::value_variants() } else { asked }
    }
    let with_way = |way: Way| or_all(rows).iter().map(move |row| (way, *row));
    let mut planned: Vec<_> = or_all(ways).iter().flat_map(|way| with_way(*way)).collect();
    planned.retain(|(way, row)| row.has(*way));
    if planned.is_empty() {
        let message = "nothing to measure: these rows are not measured that way; see `lodefs bench --help`";
        return Err(Usage(message.into()).into());
    }
    Ok(planned)
}

fn measure(
    planned: &[(Way, Row)],
    effort: &Effort,
    arena: &Arena,
    talks: bool,
) -> anyhow::Result<Vec<Figure>> {
    let embedded = Embedded::new(arena, effort)?;
    if talks {
        writeln!(
            io::stdout(),
            "volumes: on {}; durability domain {}",
            arena.description(),
            embedded.fs().domain()
        )?;
    }
    let is_planned = |wanted: Way| planned.iter().any(|(way, _)| *way == wanted);
    let mounts = is_planned(Way::Mount).then(|| Mounts::new(arena, effort)).transpose()?;
    let attached =
        is_planned(Way::Attached).then(|| Attached::new(arena, effort, embedded.raw())).transpose()?;
    let progress = progress_bar(planned.len());
    let mut figures = Vec::new();
    for &(way, row) in planned {
        progress.set_message(format!("{row} ({way})"));
        let trial = Trial { effort, row, way, tick: &|| progress.tick() };
        let measured = match (way, &mounts, &attached) {
            (Way::Mount, Some(mounts), _) => mounts.measure(&trial, &mut figures),
            (Way::Attached, _, Some(attached)) => attached.measure(&trial, &mut figures),
            _ => embedded.measure(&trial, &mut figures),
        };
        measured.with_context(|| format!("{row} ({way})"))?;
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(figures)
}

/// On standard error, if that is a terminal.
fn progress_bar(rows: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(rows as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_measured_unless_something_is_asked_for() {
        let all = plan_of(&[], &[]).unwrap();
        assert_eq!(all.len(), 12 + 8 + 9);
        assert!(!all.contains(&(Way::Mount, Row::ReopenClean)));
        assert_eq!(plan_of(&[Row::Open], &[Way::Mount]).unwrap(), [(Way::Mount, Row::Open)]);
        assert!(plan_of(&[Row::TwoThreads], &[Way::Mount]).unwrap_err().is::<Usage>());
    }
}
