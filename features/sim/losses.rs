//! What the simulated server knows of a session's losses, and what a loss report must agree with.

use super::server::Record;
use crate::wire::losses::Losses;

/// The loss reports of a session, and the requests that had its `SESSION_END`.
#[derive(Debug, Default)]
pub(super) struct LossLog {
    /// Whether the client makes reports; `None` for a session whose options are not known.
    is_expected: Option<bool>,
    /// The latest report that the server has, and its index.
    latest: Option<(u64, Losses)>,
    count: u64,
    /// The first index of the first request with the end.
    end_is_from: Option<u64>,
    /// How many requests had it, and how many of them the client knows to be refused.
    ends_begun: u32,
    ends_refused: u32,
}

impl LossLog {
    pub(super) fn new(is_expected: bool) -> Self {
        Self {
            is_expected: Some(is_expected),
            ..Self::default()
        }
    }

    /// The latest report that the server has, and its index.
    pub(super) const fn latest(&self) -> Option<&(u64, Losses)> {
        self.latest.as_ref()
    }

    /// How many reports the server has.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The client begins to send a request with the end, whether or not it will arrive.
    pub(super) fn begin_end(&mut self, first_index: u64) {
        self.end_is_from.get_or_insert(first_index);
        self.ends_begun += 1;
    }

    /// The client knows that the server has refused a request with the end.
    pub(super) fn refuse_end(&mut self) {
        self.ends_refused += 1;
    }

    /// Reads a report that the server has just stored in `record`.
    pub(super) fn note(
        &mut self,
        index: u64,
        report: Result<Losses, &'static str>,
        record: &Record,
    ) -> Result<(), &'static str> {
        let report = report?;
        if self.is_expected == Some(false) {
            return Err("a loss report of a session that makes none");
        }
        for (indices, is_refused) in report.runs() {
            let mut stored = record.stored(indices.clone());
            if is_refused && stored.next().is_some() {
                return Err("a report says that an event was refused which the server has");
            }
            let mut stored = record.stored(indices.clone());
            if stored.any(|is_confirmed| is_confirmed) {
                return Err(
                    "a report says that an event is lost which the client knows to be here",
                );
            }
        }
        if report.lists(index) {
            return Err("a report says that it is lost");
        }
        let before = self.latest.as_ref().map_or(0, |(_, before)| before.total());
        if report.total() < before {
            return Err("a report tells of fewer losses than the one before");
        }
        self.count += 1;
        self.latest = Some((index, report));
        Ok(())
    }

    /// Checks what is missing before the end, which the server has just stored in `record`.
    pub(super) fn check_end(&self, index: u64, record: &Record) -> Result<(), &'static str> {
        let gaps = record.gaps_before(index);
        if let Some((at, losses)) = &self.latest
            && at + 1 == index
        {
            return match losses.leaves_unexplained(&gaps) {
                true => Err("the report before it does not tell of all that is missing"),
                false => Ok(()),
            };
        }
        if self.is_expected != Some(true) || gaps.is_empty() || record.may_have_failed_before(index)
        {
            return Ok(());
        }
        // The end was sent with the last events, when nothing was missing, and may have arrived: then a report can no
        // longer come before it.
        let was_with_all = self
            .end_is_from
            .is_some_and(|from| gaps.iter().all(|gap| from <= *gap.start()));
        if was_with_all && self.ends_begun > self.ends_refused + 1 {
            return Ok(());
        }
        Err("events are missing before it, and no report tells of them")
    }
}
