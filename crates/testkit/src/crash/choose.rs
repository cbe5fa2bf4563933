//! Which of the images of one moment are made: how many pieces of each group.

use std::collections::BTreeSet;

use super::Options;
use super::pending::Group;
use crate::rng::Rng;

/// For each group, how many of its pieces are kept.
pub(super) type Choice = Vec<usize>;

/// The choices of one moment.
pub(super) enum Choices {
    /// All there are: the next one, and the number of pieces of each group.
    All { next: Option<Choice>, sizes: Vec<usize> },
    /// Some of them.
    Some(std::vec::IntoIter<Choice>),
}

impl Choices {
    pub(super) fn new(groups: &[Group<'_>], options: &Options, rng: &mut Rng) -> Self {
        let sizes: Vec<usize> = groups.iter().map(|group| group.pieces.len()).collect();
        let total = sizes.iter().fold(1, |total: usize, size| total.saturating_mul(size + 1));
        if total <= options.exhaustive_max {
            return Self::All { next: Some(vec![0; sizes.len()]), sizes };
        }
        let clusters: Vec<u64> = groups.iter().map(|group| group.cluster(options.domain)).collect();
        Self::Some(some(&sizes, &clusters, options, rng).into_iter())
    }

    /// Whether all choices are made.
    pub(super) fn is_exhaustive(&self) -> bool {
        matches!(self, Self::All { .. })
    }
}

impl Iterator for Choices {
    type Item = Choice;

    fn next(&mut self) -> Option<Choice> {
        match self {
            Self::All { next, sizes } => {
                let choice = next.take()?;
                *next = successor(&choice, sizes);
                Some(choice)
            }
            Self::Some(choices) => choices.next(),
        }
    }
}

/// The next choice, counting up; `None` after the last.
fn successor(choice: &[usize], sizes: &[usize]) -> Option<Choice> {
    let mut next = choice.to_vec();
    for (kept, size) in next.iter_mut().zip(sizes) {
        if *kept < *size {
            *kept += 1;
            return Some(next);
        }
        *kept = 0;
    }
    None
}

/// Nothing, everything, single clusters, everything but single clusters, and random parts.
fn some(sizes: &[usize], clusters: &[u64], options: &Options, rng: &mut Rng) -> Vec<Choice> {
    let none = vec![0; sizes.len()];
    let mut choices = vec![none.clone(), sizes.to_vec()];
    let distinct: Vec<u64> = clusters.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    for single in sample(distinct.clone(), options.singles_max, rng) {
        let part = |inside: bool| -> Choice {
            let members = sizes.iter().zip(clusters);
            members.map(|(size, cluster)| if (*cluster == single) == inside { *size } else { 0 }).collect()
        };
        choices.extend([part(true), part(false)]);
    }
    for number in 0..options.random {
        // In turns, clusters are torn or whole: what is torn everywhere hides what needs one thing whole.
        let torn = number % 2 == 0;
        choices.push(random(sizes, clusters, &distinct, torn, rng));
    }
    choices
}

/// A random part of everything. If not `torn`, all groups of a cluster have nothing or everything.
fn random(sizes: &[usize], clusters: &[u64], distinct: &[u64], torn: bool, rng: &mut Rng) -> Choice {
    let whole: BTreeSet<u64> = distinct.iter().copied().filter(|_| rng.one_in(2)).collect();
    let members = sizes.iter().zip(clusters);
    members
        .map(|(size, cluster)| match rng.below(3) {
            0 if torn => rng.below(*size as u64 + 1) as usize,
            _ if whole.contains(cluster) => *size,
            _ => 0,
        })
        .collect()
}

/// Up to `count` of `all`, at random.
fn sample(mut all: Vec<u64>, count: usize, rng: &mut Rng) -> Vec<u64> {
    while all.len() > count {
        all.swap_remove(rng.below(all.len() as u64) as usize);
    }
    all
}
