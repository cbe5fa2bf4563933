//! Timing two things against each other.
//!
//! A machine that others use as well is now faster and now slower. So yardstick and subject take turns in short rounds,
//! each goes first every other time, and what counts is the median of their rounds.
//!
//! A round is timed as a whole, because reading the clock takes a good part of the time that a short step takes. The
//! 99th percentile needs the time of each step; it comes from rounds of their own, and includes one reading of the clock,
//! for both sides.

use std::time::{Duration, Instant};

use super::plan::Effort;

/// Something that is done again and again.
pub(crate) trait Work {
    /// Gets ready for a round; not measured.
    fn prepare(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// One step.
    fn step(&mut self) -> anyhow::Result<()>;
}

/// One round in so many is timed step by step.
const DETAILED_EVERY: usize = 4;

/// Time that one step takes, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Timing {
    /// The median of the rounds' means.
    pub(crate) median_ns: f64,
    /// The 99th percentile of single steps.
    pub(crate) p99_ns: f64,
}

/// Rounds of one side.
#[derive(Default)]
struct Samples {
    rounds_ns: Vec<f64>,
    steps_ns: Vec<f64>,
}

impl Samples {
    fn timing(&mut self) -> Timing {
        Timing { median_ns: quantile(&mut self.rounds_ns, 0.5), p99_ns: quantile(&mut self.steps_ns, 0.99) }
    }
}

/// Measures both in turns; returns the yardstick's timing and the subject's. `tick` is called after each round.
pub(crate) fn compare(
    effort: &Effort,
    steps: usize,
    yardstick: &mut impl Work,
    subject: &mut impl Work,
    tick: &dyn Fn(),
) -> anyhow::Result<(Timing, Timing)> {
    for _ in 0..effort.rounds_ahead {
        run_round(yardstick, steps)?;
        run_round(subject, steps)?;
        tick();
    }
    let (mut theirs, mut ours) = (Samples::default(), Samples::default());
    for round in 0..effort.rounds {
        let detailed = round % DETAILED_EVERY == 0;
        if round % 2 == 0 {
            sample(yardstick, steps, detailed, &mut theirs)?;
            sample(subject, steps, detailed, &mut ours)?;
        } else {
            sample(subject, steps, detailed, &mut ours)?;
            sample(yardstick, steps, detailed, &mut theirs)?;
        }
        tick();
    }
    Ok((theirs.timing(), ours.timing()))
}

fn sample(work: &mut impl Work, steps: usize, detailed: bool, into: &mut Samples) -> anyhow::Result<()> {
    into.rounds_ns.push(nanoseconds(run_round(work, steps)?) / as_float(steps));
    if detailed {
        work.prepare()?;
        let mut last = Instant::now();
        for _ in 0..steps {
            work.step()?;
            let now = Instant::now();
            into.steps_ns.push(nanoseconds(now - last));
            last = now;
        }
    }
    Ok(())
}

fn run_round(work: &mut impl Work, steps: usize) -> anyhow::Result<Duration> {
    work.prepare()?;
    let start = Instant::now();
    for _ in 0..steps {
        work.step()?;
    }
    Ok(start.elapsed())
}

pub(crate) fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// A count of steps or files, which are fewer than 2^52.
#[expect(clippy::cast_precision_loss, reason = "counts are small")]
pub(crate) fn as_float(count: usize) -> f64 {
    count as f64
}

/// The value below which the share `q` of `values` lies; zero if there are none. Sorts them.
#[expect(clippy::cast_sign_loss, reason = "a share of a count is positive")]
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let place = as_float(values.len().saturating_sub(1)) * q;
    values.get(place.round() as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!((quantile(&mut values, 0.5), quantile(&mut values, 0.99)), (50.0, 99.0));
        assert_eq!(quantile(&mut [], 0.5).to_bits(), 0);
        assert_eq!(quantile(&mut [7.0], 0.99).to_bits(), 7.0_f64.to_bits());
    }

    /// Counts what is asked of it.
    #[derive(Default)]
    struct Counter {
        prepared: usize,
        steps: usize,
    }

    impl Work for Counter {
        fn prepare(&mut self) -> anyhow::Result<()> {
            self.prepared += 1;
            Ok(())
        }

        fn step(&mut self) -> anyhow::Result<()> {
            self.steps += 1;
            Ok(())
        }
    }

    #[test]
    fn both_sides_do_the_same_in_prepared_rounds() {
        let effort = Effort { rounds: 5, rounds_ahead: 1, ..Effort::QUICK };
        let (mut yardstick, mut subject) = (Counter::default(), Counter::default());
        compare(&effort, 3, &mut yardstick, &mut subject, &|| ()).unwrap();
        // One ahead, five that count, and two of these once more in detail.
        assert_eq!(yardstick.prepared, 8);
        assert_eq!(yardstick.steps, 3 * 8);
        assert_eq!((subject.prepared, subject.steps), (yardstick.prepared, yardstick.steps));
    }
}
