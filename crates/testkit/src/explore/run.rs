//! Exploring one recorded workload: crashes in it, crashes in the recoveries from these, and in the recoveries from those.

use std::collections::{BTreeSet, HashSet};
use std::ops::ControlFlow;
use std::rc::Rc;

use lodefs_pmem::{Domain, Event};

use super::distinct::Distinct;
use super::look::{Boot, Looker};
use super::oracle;
use super::workload::{Recorded, Workload};
use super::{Failure, Request, Statistics, Thoroughness, Violation};
use crate::crash::{self, Call, CrashImage, Snapshot};

/// A workload that is being explored.
pub(super) struct Run<'a> {
    workload: &'a Workload,
    recorded: &'a Recorded,
    request: Request,
    looker: Looker,
    distinct: &'a Distinct,
    /// What was found right: what was seen (as an address, which the looker keeps), and what had to be there.
    right: HashSet<(usize, usize, bool)>,
    statistics: Statistics,
    recovery_calls: BTreeSet<Call>,
}

/// What a program does to the medium from one start to the next: the workload, or a recovery.
struct Life {
    start: Snapshot,
    /// The first so many events of each, one log after the other.
    logs: Vec<(Rc<Vec<Event>>, usize)>,
    /// Where in the logs it begins.
    from_event: usize,
    /// How it ends.
    failure: Failure,
    /// The boot that comes after.
    boot: Boot,
    /// The most that any failure so far takes.
    lost: Failure,
    /// Recoveries before it.
    depth: usize,
    /// Operations that had returned before it, if it is a recovery.
    returned: Option<usize>,
}

impl Life {
    /// The logs before event `position`.
    fn logs_until(&self, position: usize) -> Vec<(Rc<Vec<Event>>, usize)> {
        let mut left = position;
        let mut logs = Vec::new();
        for (log, count) in &self.logs {
            let taken = left.min(*count);
            left -= taken;
            logs.push((Rc::clone(log), taken));
        }
        logs
    }
}

/// How thoroughly recoveries are explored, of which there are many alike, and the recoveries from those.
const IN_RECOVERY: [Thoroughness; 2] = [
    Thoroughness { exhaustive_max: 8, singles_max: 2, random: 3, stores_between: 50, recoveries: 25 },
    Thoroughness { exhaustive_max: 4, singles_max: 1, random: 2, stores_between: 50, recoveries: 0 },
];

impl<'a> Run<'a> {
    pub(super) fn new(
        workload: &'a Workload,
        recorded: &'a Recorded,
        request: Request,
        distinct: &'a Distinct,
    ) -> Result<Self, String> {
        let looker = Looker::new(workload.size, workload.domain)?;
        let statistics = Statistics { workloads: 1, ..Statistics::default() };
        Ok(Self {
            workload,
            recorded,
            request,
            looker,
            distinct,
            right: HashSet::new(),
            statistics,
            recovery_calls: BTreeSet::new(),
        })
    }

    /// The calls that made something durable in the recoveries that were explored.
    pub(super) fn recovery_calls(self) -> BTreeSet<Call> {
        self.recovery_calls
    }

    /// What was looked at.
    pub(super) fn statistics(&self) -> Statistics {
        let (recovered, examined) = (self.looker.recovered(), self.looker.examined());
        Statistics { recovered, examined, ..self.statistics }
    }

    /// Explores everything.
    pub(super) fn explore(&mut self) -> Result<(), Violation> {
        let Request { failure, .. } = self.request;
        self.explore_life(&Life {
            start: self.recorded.start.clone(),
            logs: vec![(Rc::clone(&self.recorded.log), self.recorded.log.len())],
            from_event: self.recorded.first_mark,
            failure,
            boot: Boot::FIRST.after(failure),
            lost: failure,
            depth: 0,
            returned: None,
        })
    }

    fn explore_life(&mut self, life: &Life) -> Result<(), Violation> {
        let options = self.options(life);
        let logs: Vec<&[Event]> = life.logs.iter().map(|(log, count)| &log[..*count]).collect();
        let made = crash::for_each_crash_image(&life.start, &logs, &options, |image| {
            let returned = life.returned.unwrap_or_else(|| image.last_mark.unwrap_or(0) as usize);
            let violation = |text| Violation { returned, text };
            let checked = self.check(image, returned, life).map_err(violation);
            match checked.and_then(|()| self.recover(image, returned, life)) {
                Ok(()) => ControlFlow::Continue(()),
                Err(violation) => ControlFlow::Break(violation),
            }
        });
        match made {
            ControlFlow::Break(violation) => Err(violation),
            ControlFlow::Continue(made) => {
                self.statistics.moments += made.moments as u64;
                self.statistics.exhaustive += made.exhaustive as u64;
                self.statistics.images += made.images as u64;
                Ok(())
            }
        }
    }

    fn thoroughness(&self, life: &Life) -> Thoroughness {
        match life.depth {
            0 => self.request.thoroughness,
            depth => IN_RECOVERY[depth - 1],
        }
    }

    fn options(&self, life: &Life) -> crash::Options {
        let Thoroughness { exhaustive_max, singles_max, random, stores_between, .. } =
            self.thoroughness(life);
        crash::Options {
            domain: match life.failure {
                Failure::Power => self.workload.domain,
                Failure::Process => Domain::Volatile,
            },
            exhaustive_max,
            singles_max,
            random,
            stores_between,
            seed: self.request.seed,
            from_event: life.from_event,
            drop_at: self.request.drop_at,
        }
    }

    /// Looks at an image, and compares it with what must be there when so many operations had returned.
    fn check(&mut self, image: &CrashImage<'_>, returned: usize, life: &Life) -> Result<(), String> {
        self.statistics.distinct += u64::from(self.distinct.insert(image.hash()));
        let is_durable = self.workload.domain.is_durable_on_fence();
        let keeps_all = is_durable || life.lost == Failure::Process;
        let found = self.looker.look(image, life.boot);
        let question = (Rc::as_ptr(&found).addr(), returned, keeps_all);
        if self.right.contains(&question) {
            return Ok(());
        }
        let verdict = match found.as_ref() {
            Err(fault) => Err(fault.clone()),
            Ok(view) => {
                let history = &self.recorded.history;
                oracle::judge(view, history, history.allowed(returned, keeps_all)).map(|_| ())
            }
        };
        verdict.map_err(|text| {
            let times =
                ["", "a crash in the recovery: ", "a crash in the recovery from a crash in the recovery: "];
            format!("{}{text}\n  {image:?}", times[life.depth])
        })?;
        self.right.insert(question);
        Ok(())
    }

    /// If it is the turn of this image: records its recovery, and explores the crashes in it.
    fn recover(&mut self, image: &CrashImage<'_>, returned: usize, life: &Life) -> Result<(), Violation> {
        let every = self.thoroughness(life).recoveries;
        if every == 0 || !(image.hash() >> 8).is_multiple_of(every) {
            return Ok(());
        }
        let next = self.next_life(image, returned, life).map_err(|text| Violation { returned, text })?;
        match next.depth {
            1 => self.statistics.recoveries += 1,
            _ => self.statistics.recoveries_again += 1,
        }
        self.explore_life(&next).map_err(|violation| Violation {
            text: format!("{}\n  recovered from {image:?}", violation.text),
            ..violation
        })
    }

    /// The recovery from the crash that left an image, and how it ends.
    ///
    /// If the process died, the host may still hold what is not on the medium; should the power fail then, the logs
    /// of both lives together tell what is lost.
    fn next_life(&mut self, image: &CrashImage<'_>, returned: usize, life: &Life) -> Result<Life, String> {
        let domain = self.workload.domain;
        let failure = match life.failure {
            before if domain != Domain::Page => before,
            _ if image.hash().is_multiple_of(2) => Failure::Process,
            _ => Failure::Power,
        };
        let log = self.looker.recover(image, life.boot)?.log;
        self.recovery_calls.extend(crash::durability_calls(&log));
        let count = log.len();
        let is_torn = image.undecided.iter().any(|it| it.kept < it.stores);
        // A store that was torn is in no log. The host may have brought all the rest to the medium, too.
        let goes_on = domain == Domain::Page && life.failure == Failure::Process && !is_torn;
        let (start, mut logs, from_event) = if goes_on {
            (life.start.clone(), life.logs_until(image.position), image.position)
        } else {
            (image.snapshot(), Vec::new(), 0)
        };
        logs.push((Rc::new(log), count));
        let lost = if life.lost == Failure::Power { Failure::Power } else { failure };
        let (boot, depth) = (life.boot.after(failure), life.depth + 1);
        Ok(Life { start, logs, from_event, failure, boot, lost, depth, returned: Some(returned) })
    }
}
