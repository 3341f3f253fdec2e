//! Runs of lost indices: exact, but a bounded number of them.

use crate::stats::{DropReason, Refusal};

/// Why an index is missing at the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Refused(Refusal),
    Dropped(DropReason),
}

impl Cause {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.as_str(),
            Self::Dropped(reason) => reason.as_str(),
        }
    }

    pub(super) const fn is_dropped(self) -> bool {
        matches!(self, Self::Dropped(_))
    }
}

impl From<Refusal> for Cause {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<DropReason> for Cause {
    fn from(reason: DropReason) -> Self {
        Self::Dropped(reason)
    }
}

/// Indices that were lost for the same reason, without one in between that was not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) cause: Cause,
    /// How many of these indices were lost, if it is not known which. Then runs of other losses may lie in between.
    pub(super) count: Option<u64>,
}

/// The maximum number of runs.
pub(super) const MAX_RUNS: usize = 16;

/// The first runs that occurred, in the order of their indices.
#[derive(Default)]
pub(super) struct Runs(heapless::Vec<Run, MAX_RUNS>);

impl Runs {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Run> {
        self.0.iter()
    }

    /// Adds a run, unless there is no room for another. Indices that are in no run yet may join those next to them.
    pub(super) fn add(&mut self, first: u64, last: u64, cause: Cause) {
        let at = self.0.partition_point(|run| run.first < first);
        let joins = |before: &Run, after: &Run| {
            before.cause == after.cause
                && before.count.or(after.count).is_none()
                && before.last.checked_add(1) == Some(after.first)
        };
        let run = Run {
            first,
            last,
            cause,
            count: None,
        };
        let before = at.checked_sub(1).filter(|before| {
            let before = self.0.get(*before);
            before.is_some_and(|before| joins(before, &run))
        });
        let has_after = self.0.get(at).is_some_and(|after| joins(&run, after));
        if let Some(before) = before {
            let mut last = last;
            if has_after {
                last = self.0.remove(at).last;
            }
            if let Some(before) = self.0.get_mut(before) {
                before.last = last;
            }
        } else if has_after {
            if let Some(after) = self.0.get_mut(at) {
                after.first = first;
            }
        } else {
            // The counts tell of it.
            let _ = self.0.insert(at, run);
        }
    }

    /// Adds indices of which so many were lost, unless there is no room for another run.
    pub(super) fn add_part(&mut self, first: u64, last: u64, cause: Cause, count: u64) {
        let at = self.0.partition_point(|run| run.first < first);
        let run = Run {
            first,
            last,
            cause,
            count: Some(count),
        };
        // The counts tell of it.
        let _ = self.0.insert(at, run);
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use alloc::collections::btree_map::Entry;
    use alloc::vec::Vec;
    use arbtest::arbtest;

    const FULL: Cause = Cause::Refused(Refusal::QueueFull);
    const REJECTED: Cause = Cause::Dropped(DropReason::Rejected);

    fn runs_of(indices: impl IntoIterator<Item = (u64, Cause)>) -> Vec<(u64, u64, Cause)> {
        let mut runs = Runs::default();
        for (index, cause) in indices {
            runs.add(index, index, cause);
        }
        let runs = runs.iter();
        runs.map(|run| (run.first, run.last, run.cause)).collect()
    }

    #[test]
    fn indices_next_to_each_other_become_one_run_in_whatever_order_they_come() {
        for order in [[1, 2, 3], [3, 2, 1], [1, 3, 2], [2, 3, 1]] {
            assert_eq!(runs_of(order.map(|index| (index, FULL))), [(1, 3, FULL)]);
        }
        assert_eq!(
            runs_of([(1, FULL), (2, REJECTED), (3, FULL), (0, REJECTED)]),
            [
                (0, 0, REJECTED),
                (1, 1, FULL),
                (2, 2, REJECTED),
                (3, 3, FULL)
            ]
        );
        assert_eq!(runs_of([(u64::MAX, FULL), (0, FULL)]).len(), 2);
    }

    #[test]
    fn no_run_contains_an_index_that_was_not_lost_however_many_there_are() {
        arbtest(|u| {
            let mut lost = BTreeMap::new();
            let mut runs = Runs::default();
            for _ in 0..u.int_in_range(0..=300)? {
                let index = u.int_in_range(0..=199)?;
                let cause = if u.ratio(1, 3)? { REJECTED } else { FULL };
                if let Entry::Vacant(entry) = lost.entry(index) {
                    entry.insert(cause);
                    runs.add(index, index, cause);
                }
            }
            assert!(runs.len() <= MAX_RUNS);
            let mut next = 0;
            let mut listed = 0;
            for run in runs.iter() {
                assert!(next <= run.first && run.first <= run.last);
                next = run.last + 1;
                listed += next - run.first;
                let is_lost = |index| lost.get(&index) == Some(&run.cause);
                assert!((run.first..=run.last).all(is_lost), "{run:?}");
            }
            if runs.len() < MAX_RUNS && lost.len() < MAX_RUNS {
                assert_eq!(listed, lost.len() as u64, "there was room for all");
            }
            Ok(())
        });
    }
}
