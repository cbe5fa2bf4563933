//! Exploring one recorded workload: crashes in it, and crashes in the recoveries from these.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use lodefs_core::Fs;
use lodefs_pmem::{Access, Domain, Event, Medium};

use super::look::{Boot, Looker};
use super::oracle;
use super::workload::{Recorded, Workload, open_options};
use super::{Failure, Request, Statistics, Thoroughness, Violation};
use crate::crash::{self, CrashImage};

/// A workload that is being explored.
pub(super) struct Run<'a> {
    workload: &'a Workload,
    recorded: &'a Recorded,
    request: Request,
    looker: Looker,
    statistics: Statistics,
}

/// Crashes are made while a recovery goes on.
struct Again {
    base: Vec<u8>,
    log: Vec<Event>,
    from_event: usize,
    failure: Failure,
    boot: Boot,
}

/// How thoroughly recoveries are explored, of which there are many alike.
const IN_RECOVERY: Thoroughness =
    Thoroughness { exhaustive_max: 8, singles_max: 2, random: 3, stores_between: 50, recoveries: 0 };

impl<'a> Run<'a> {
    pub(super) fn new(
        workload: &'a Workload,
        recorded: &'a Recorded,
        request: Request,
    ) -> Result<Self, String> {
        let looker = Looker::new(workload.size, workload.domain)?;
        let statistics = Statistics { workloads: 1, ..Statistics::default() };
        Ok(Self { workload, recorded, request, looker, statistics })
    }

    /// What was looked at.
    pub(super) fn statistics(&self) -> Statistics {
        let (distinct, examined) = (self.looker.distinct(), self.looker.examined());
        Statistics { distinct, examined, ..self.statistics }
    }

    /// Explores everything.
    pub(super) fn explore(&mut self) -> Result<(), Violation> {
        let recorded = self.recorded;
        let Request { failure, thoroughness, .. } = self.request;
        let options = self.options(failure, thoroughness, recorded.first_mark);
        let boot = match failure {
            Failure::Process => Boot::First,
            Failure::Power => Boot::Second,
        };
        let base = recorded.base.as_ref().clone();
        let result = crash::for_each_crash_image(base, &recorded.log, &options, |image| {
            let returned = image.last_mark.unwrap_or(0) as usize;
            match self.check(image, returned, failure, boot).and_then(|()| self.recover(image, returned)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(text) => ControlFlow::Break(Violation { returned, text }),
            }
        });
        self.count(result)
    }

    fn options(&self, failure: Failure, thoroughness: Thoroughness, from_event: usize) -> crash::Options {
        let Thoroughness { exhaustive_max, singles_max, random, stores_between, .. } = thoroughness;
        crash::Options {
            domain: match failure {
                Failure::Power => self.workload.domain,
                Failure::Process => Domain::Volatile,
            },
            exhaustive_max,
            singles_max,
            random,
            stores_between,
            seed: self.request.seed,
            from_event,
            drop_at: self.request.drop_at,
        }
    }

    fn count(&mut self, result: ControlFlow<Violation, crash::Statistics>) -> Result<(), Violation> {
        match result {
            ControlFlow::Break(violation) => Err(violation),
            ControlFlow::Continue(made) => {
                self.statistics.moments += made.moments as u64;
                self.statistics.images += made.images as u64;
                Ok(())
            }
        }
    }

    /// Looks at an image, and compares it with what must be there after a failure when so many operations had
    /// returned.
    fn check(
        &mut self,
        image: &CrashImage<'_>,
        returned: usize,
        failure: Failure,
        boot: Boot,
    ) -> Result<(), String> {
        let is_durable = self.workload.domain.is_durable_on_fence();
        let keeps_all = is_durable || failure == Failure::Process;
        let found = self.looker.look(image.bytes, image.hash, boot);
        let verdict = match found.as_ref() {
            Err(fault) => Err(fault.clone()),
            Ok(view) => {
                let history = &self.recorded.history;
                oracle::judge(view, history, history.allowed(returned, keeps_all)).map(|_| ())
            }
        };
        verdict.map_err(|text| format!("{text}\n  {image:?}"))
    }

    /// If it is the turn of this image: records its recovery, and explores the crashes in it.
    fn recover(&mut self, image: &CrashImage<'_>, returned: usize) -> Result<(), String> {
        let every = self.request.thoroughness.recoveries;
        if every == 0 || !(image.hash >> 8).is_multiple_of(every) {
            return Ok(());
        }
        let Some(again) = self.record_recovery(image)? else { return Ok(()) };
        self.statistics.recoveries += 1;
        // What is lost is the most that either failure takes.
        let lost = if self.request.failure == Failure::Power { Failure::Power } else { again.failure };
        let options = self.options(again.failure, IN_RECOVERY, again.from_event);
        let result = crash::for_each_crash_image(again.base, &again.log, &options, |second| {
            match self.check(second, returned, lost, again.boot) {
                Ok(()) => ControlFlow::Continue(()),
                Err(text) => {
                    let text = format!("a crash in the recovery: {text}\n  recovered from {image:?}");
                    ControlFlow::Break(Violation { returned, text })
                }
            }
        });
        self.count(result).map_err(|violation| violation.text)
    }

    /// Recovers an image with a log.
    ///
    /// If the process dies, the host may still hold what is not on the medium; should the power fail then, the logs
    /// of both lives together tell what is lost.
    fn record_recovery(&self, image: &CrashImage<'_>) -> Result<Option<Again>, String> {
        let Request { failure, .. } = self.request;
        let first_boot = if failure == Failure::Process { Boot::First } else { Boot::Second };
        let on_pages = self.workload.domain == Domain::Page;
        let second = match failure {
            _ if !on_pages => failure,
            _ if image.hash.is_multiple_of(2) => Failure::Process,
            _ => Failure::Power,
        };
        let both_lives = failure == Failure::Process && second == Failure::Power;
        let is_torn = image.undecided.iter().any(|it| it.kept < it.stores);
        if both_lives && is_torn {
            return Ok(None);
        }
        let log = log_of_recovery(image.bytes, self.workload.domain, first_boot)?;
        let boot = if second == Failure::Power { Boot::Third } else { first_boot };
        Ok(Some(if both_lives {
            let first_life = &self.recorded.log[..image.position];
            let log = [first_life, &log].concat();
            let base = self.recorded.base.as_ref().clone();
            Again { base, log, from_event: image.position, failure: second, boot }
        } else {
            Again { base: image.bytes.to_vec(), log, from_event: 0, failure: second, boot }
        }))
    }
}

fn log_of_recovery(image: &[u8], domain: Domain, boot: Boot) -> Result<Vec<Event>, String> {
    let (medium, recording) =
        Medium::recording_from_image(image, domain, Access::ReadWrite).map_err(|error| error.to_string())?;
    let clock = Arc::new(AtomicU64::new(u64::MAX / 2));
    let _fs = Fs::open(boot.applied_to(medium), &open_options(clock)).map_err(|error| error.to_string())?;
    Ok(recording.take())
}
