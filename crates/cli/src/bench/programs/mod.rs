//! `lodefs bench --programs`: how fast are real programs under `lodefs run`, compared with file systems of the kernel?
//!
//! | module | question |
//! |---|---|
//! | `plan` | which programs are there, and how much do they do? |
//! | `places` | where do they run? |
//! | `work` | what does a program do in a round? |
//! | `printed` | how fast was it, by what it has printed? |
//! | `figure`, `plot` | how is it reported? |
//!
//! Each program does a short round in one place after the other, and each time another place is first. What counts is
//! the median of a place's rounds. All places lie on the same memory.

mod figure;
mod places;
pub(crate) mod plan;
mod plot;
mod printed;
mod work;

use std::io::{self, Write as _};
use std::{env, fs};

use anyhow::{Context, bail};
use clap::ValueEnum;
use rustix::process::geteuid;

use self::figure::Figure;
use self::places::{Place, Places};
use self::plan::{Load, Program};
use self::work::Rounds;
use super::arena::Arena;
use super::measure::quantile;
use super::progress_bar;
use crate::arguments::BenchArguments;

/// Measures and prints the programs that were asked for, or all.
pub(crate) fn run(asked: &[Program], arguments: &BenchArguments) -> anyhow::Result<()> {
    if !geteuid().is_root() {
        bail!("programs are measured on ext4 and XFS too, which only root may mount; run as root");
    }
    let load = if arguments.quick { Load::QUICK } else { Load::FULL };
    let arena = Arena::set_up(None, &[])?;
    arena.remove_on_signals()?;
    let figures = measure(asked, &load, &arena, !arguments.json)?;
    if arguments.json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&figures)?)?;
    } else {
        writeln!(io::stdout(), "{}", figure::table(&figures))?;
    }
    if let Some(file) = &arguments.svg {
        fs::write(file, plot::svg(&figures))
            .with_context(|| format!("{}: the plot cannot be written there", file.display()))?;
    }
    Ok(())
}

fn measure(asked: &[Program], load: &Load, arena: &Arena, talks: bool) -> anyhow::Result<Vec<Figure>> {
    let places = Places::new(arena)?;
    if talks {
        writeln!(
            io::stdout(),
            "places: on {}; durability domain of the volume memory-controller (forced)",
            arena.description()
        )?;
    }
    let programs = if asked.is_empty() { Program::value_variants() } else { asked };
    let progress = progress_bar(programs.len());
    let mut figures = Vec::new();
    for &program in programs {
        progress.set_message(program.to_string());
        let (needed, package) = program.needs();
        figures.push(if needed.iter().all(|command| is_installed(command)) {
            let rounds = Rounds { program, load, running: arena.running(), root: arena.root() };
            in_turns(&rounds, &places, &|| progress.tick())
        } else {
            Figure::new(program, [None; 4], &[format!("not installed: apt install {package}")])
        });
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(figures)
}

/// Whether there is a command of that name.
fn is_installed(command: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(command).is_file())
}

/// All rounds of a program. Where it fails, it is not run again, and the others go on.
fn in_turns(rounds: &Rounds<'_>, places: &Places, tick: &dyn Fn()) -> Figure {
    let count = places.sites.len();
    let mut samples = vec![Ok(Vec::new()); count];
    for round in 0..rounds.load.rounds_ahead + rounds.load.rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            let Ok(speeds) = &mut samples[index] else { continue };
            match rounds.run_on(&places.sites[index]) {
                Ok(_) if round < rounds.load.rounds_ahead => {}
                Ok(speed) => speeds.push(speed),
                Err(error) => samples[index] = Err(format!("{error:#}")),
            }
            tick();
        }
    }
    let mut notes: Vec<_> = places.missing.clone();
    let mut speeds = [None; Place::ALL.len()];
    for (site, sample) in places.sites.iter().zip(samples) {
        match sample {
            Ok(mut sample) => speeds[site.place as usize] = Some(quantile(&mut sample, 0.5)),
            Err(error) => notes.push((site.place, error)),
        }
        if let Err(error) = rounds.clear(site) {
            notes.push((site.place, format!("{error:#}")));
        }
    }
    let notes: Vec<_> = notes.iter().map(|(place, note)| format!("{}: {note}", place.name())).collect();
    Figure::new(rounds.program, speeds, &notes)
}
