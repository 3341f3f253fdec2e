//! The loss report: an event that tells the backend which indices are missing, and why.
//!
//! It is made when all events before it are settled, because only then is it known what to say. Its numbers are totals
//! since the session's start, so that a report that is lost, or sent twice, changes nothing.

use super::batch::BatchExtent;
use super::runs::{Cause, Runs};
use super::stopping::End;
use super::{Engine, Step};
use crate::engine::ring::HEADER;
use crate::event::encode::EventPrefix;
use crate::stats::{DropReason, Refusal};
use crate::time::{Instant, Timestamp};
use alloc::vec::Vec;
use core::fmt::{self, Write};

/// The name of the event.
pub(crate) const REPORT_NAME: &str = "tinkex.telemetry.report";

/// The maximum length of its JSON in bytes.
pub(crate) const REPORT_BYTES: usize = 2_048;

/// How long after a loss it is reported, and so the shortest time between two reports before the session's end: 5 min.
const DELAY: u64 = 300_000_000;

/// What is lost, and the report of it. A report is not a record in the ring, so a full queue cannot refuse it.
///
/// It has an index like any event, but no position: watermarks and positions count the other events.
pub(super) struct LossReport {
    is_on: bool,
    runs: Runs,
    /// A fatal exception that leaves a gap although it was refused for a reason that leaves none.
    fatal_gap: Option<Refusal>,
    /// Attempts after the first.
    retried: u64,
    /// Reports so far, and how many of them are settled.
    made: u64,
    settled: u64,
    /// How many losses the last one tells of.
    told: u64,
    /// When the next one is due.
    due_at: Option<Instant>,
    /// One that is not settled.
    queued: Option<Queued>,
    /// The index of the one that `SESSION_END` follows directly.
    before_end: Option<u64>,
    /// The JSON of the one whose turn it is, once it is made. Allocated with the engine, so that it never lacks memory.
    json: Vec<u8>,
    /// `SESSION_END` may be at the backend already, so its index is final.
    is_end_exposed: bool,
    /// The report before `SESSION_END` is settled, so the end follows without another.
    has_told: bool,
    /// The session has gone on after its `SESSION_END`, so its last report is still to come.
    owes_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Queued {
    /// How many events are accepted before it.
    position: u64,
    index: u64,
}

impl LossReport {
    pub(super) fn new(is_on: bool, max_event_bytes: usize) -> Self {
        let bytes = if is_on {
            REPORT_BYTES.min(max_event_bytes)
        } else {
            0
        };
        Self {
            is_on,
            runs: Runs::default(),
            fatal_gap: None,
            retried: 0,
            made: 0,
            settled: 0,
            told: 0,
            due_at: None,
            queued: None,
            before_end: None,
            json: Vec::with_capacity(bytes),
            is_end_exposed: false,
            has_told: false,
            owes_last: false,
        }
    }

    pub(super) const fn made(&self) -> u64 {
        self.made
    }

    pub(super) const fn settled(&self) -> u64 {
        self.settled
    }

    pub(super) const fn unsettled(&self) -> u64 {
        self.made - self.settled
    }

    /// The JSON of the report whose turn it is, once it is made.
    pub(super) fn json(&self) -> &[u8] {
        &self.json
    }

    /// Whether a report waits for its turn, or is being sent, that `SESSION_END` does not follow directly.
    pub(super) const fn is_queued(&self) -> bool {
        self.queued.is_some()
    }

    pub(super) fn note_retry(&mut self) {
        self.retried += 1;
    }

    pub(super) fn expose_end(&mut self) {
        self.is_end_exposed = true;
    }

    /// The session has gone on after its end until this stop.
    pub(super) fn owe_last(&mut self) {
        self.owes_last = self.is_on;
    }

    /// The stop has dropped everything.
    pub(super) fn drop_all(&mut self) {
        self.settled = self.made;
        self.queued = None;
        self.before_end = None;
        self.owes_last = false;
        self.json.clear();
    }
}

/// What is lost.
impl Engine {
    /// How many indices are missing at the backend, as far as the session knows.
    fn losses(&self) -> u64 {
        let counted = self.loss_counts().into_iter().map(|(_, count)| count);
        counted.sum()
    }

    /// The events lost so far, by cause. Refused events that leave no gap are not among them.
    fn loss_counts(&self) -> [(Cause, u64); 10] {
        let (refused, dropped) = (self.ledger.refused.all(), &self.ledger.dropped);
        let fatal = |refusal| u64::from(self.report.fatal_gap == Some(refusal));
        [
            (Refusal::QueueFull.into(), refused.queue_full),
            (Refusal::EventTooLarge.into(), refused.event_too_large),
            (Refusal::Unencodable.into(), refused.unencodable),
            (Refusal::ScrubPanicked.into(), refused.scrub_panicked),
            (Refusal::Scrubbed.into(), fatal(Refusal::Scrubbed)),
            (Refusal::OwnWork.into(), fatal(Refusal::OwnWork)),
            (
                DropReason::RetriesExhausted.into(),
                dropped.retries_exhausted,
            ),
            (DropReason::Rejected.into(), dropped.rejected),
            (DropReason::TooLarge.into(), dropped.too_large),
            (DropReason::Discarded.into(), dropped.discarded),
        ]
    }

    /// A refused event leaves this index unused.
    #[cold]
    pub(super) fn note_gap(&mut self, index: u64, refusal: Refusal) {
        if !self.report.is_on {
            return;
        }
        if matches!(refusal, Refusal::Scrubbed | Refusal::OwnWork) {
            self.report.fatal_gap = Some(refusal);
        }
        self.report.runs.add(index, index, refusal.into());
    }

    /// The events of this extent are about to be dropped.
    pub(super) fn note_dropped(&mut self, extent: &BatchExtent, reason: DropReason) {
        if !self.report.is_on {
            return;
        }
        let cause = reason.into();
        if extent.with_report
            && let Some(index) = self.report_index()
        {
            self.report.runs.add(index, index, cause);
        }
        let mut at = 0;
        for _ in 0..extent.records {
            let Some(record) = self.ring.record(at) else {
                break;
            };
            self.report.runs.add(record.tag, record.tag, cause);
            at += HEADER + record.len;
        }
        if extent.with_end {
            let index = self.end.index();
            self.report.runs.add(index, index, cause);
        }
    }

    /// So many events of this extent, it is not known which, are about to be dropped as rejected.
    pub(super) fn note_rejected(&mut self, extent: &BatchExtent, rejected: u64) {
        if rejected >= extent.events() {
            self.note_dropped(extent, DropReason::Rejected);
        } else if self.report.is_on && rejected > 0 {
            let first = self.first_index(extent);
            let last = self.last_index(extent);
            let cause = DropReason::Rejected.into();
            self.report.runs.add_part(first, last, cause, rejected);
        }
    }

    /// The index of the last event of a batch, which has more than one.
    fn last_index(&self, extent: &BatchExtent) -> u64 {
        if extent.with_end {
            return self.end.index();
        }
        let (mut at, mut last) = (0, self.first_index(extent));
        for _ in 0..extent.records {
            let Some(record) = self.ring.record(at) else {
                break;
            };
            last = record.tag;
            at += HEADER + record.len;
        }
        last
    }
}

/// What is discarded.
impl Engine {
    /// Everything queued is about to be dropped.
    pub(super) fn note_discarded(&mut self) {
        let reports = [
            self.report.queued.map(|queued| queued.index),
            self.report.before_end,
        ];
        for index in reports.into_iter().flatten() {
            self.report
                .runs
                .add(index, index, DropReason::Discarded.into());
        }
        let all = BatchExtent {
            records: self.ring.records(),
            with_end: self.end.is_queued(),
            ..BatchExtent::default()
        };
        self.note_dropped(&all, DropReason::Discarded);
    }
}

/// When a report is made.
impl Engine {
    /// Reserves an index for a report, if one is due. Called while no batch is in flight. Returns when one is due.
    pub(super) fn reserve_report(&mut self, now: Instant) -> Option<Instant> {
        let report = &self.report;
        let is_possible = report.is_on
            && report.queued.is_none()
            && self.losses() > report.told
            && !self.is_stopping
            && !self.is_disabled
            && !self.end.is_queued();
        if !is_possible {
            return None;
        }
        let due_at = match report.due_at {
            Some(due_at) => due_at,
            None => now.after(DELAY)?,
        };
        self.report.due_at = Some(due_at);
        let is_idle = self.halving.is_none() && self.forming == BatchExtent::default();
        if due_at > now || !is_idle {
            return Some(due_at);
        }
        self.report.due_at = None;
        self.queue_report();
        None
    }

    /// Queues a report behind everything accepted so far, which is due now.
    fn queue_report(&mut self) {
        self.report.made += 1;
        self.report.queued = Some(Queued {
            position: self.ledger.accepted,
            index: self.next_index,
        });
        self.next_index += 1;
        self.make_all_due();
    }

    /// Reserves an index for the report before `SESSION_END`, which is about to be queued, if anything is lost.
    pub(super) fn reserve_report_before_end(&mut self) {
        if !self.report.is_on || self.losses() == 0 {
            return;
        }
        let last = Queued {
            position: self.ledger.accepted,
            index: self.next_index.wrapping_sub(1),
        };
        // One that comes directly before it, and is not made yet, will do.
        if self.report.queued == Some(last) && self.report.json.is_empty() {
            self.report.queued = None;
            self.report.before_end = Some(last.index);
            return;
        }
        self.report.made += 1;
        self.report.before_end = Some(self.next_index);
        self.next_index += 1;
    }

    /// The last report of a session that has gone on after its end, once everything else is settled.
    pub(super) fn queue_last_report(&mut self) {
        let is_due = self.report.owes_last
            && self.is_stopping
            && !self.is_disabled
            && self.queued() == 0
            && !self.is_unattended()
            && self.losses() > self.report.told;
        if is_due {
            self.report.owes_last = false;
            self.queue_report();
        }
    }

    /// Whether a report comes directly before `SESSION_END`: it has an index, or it can still take that of the end.
    fn has_report_before_end(&self) -> bool {
        let End::Queued { index, .. } = self.end else {
            return false;
        };
        let report = &self.report;
        let is_untold = report.is_on && !report.has_told && !self.is_disabled && self.losses() > 0;
        let can_take_index = !report.is_end_exposed && index + 1 == self.next_index;
        report.before_end.is_some() || (is_untold && can_take_index)
    }

    /// After how many records a batch must end because a report follows.
    pub(super) fn records_before_report(&self) -> Option<u64> {
        let settled = self.settled().0;
        if let Some(queued) = self.report.queued {
            return Some(queued.position - settled);
        }
        self.records_before_end()
            .filter(|_| self.has_report_before_end())
    }

    /// The index of the report whose turn it is, or of the next one.
    pub(super) fn report_index(&self) -> Option<u64> {
        let queued = self.report.queued.map(|queued| queued.index);
        queued.or(self.report.before_end)
    }

    /// Forms a batch of a report, and of `SESSION_END` if that follows directly; `None` if it is not a report's turn.
    pub(super) fn form_report(&mut self, now: Instant) -> Option<Step> {
        if self.records_before_report() != Some(0) {
            return None;
        }
        let is_before_end = self.report.queued.is_none();
        if is_before_end && self.report.before_end.is_none() {
            self.take_index_of_end();
        }
        if self.report.json.is_empty() {
            return Some(Step::Report);
        }
        let mut extent = BatchExtent {
            json_bytes: self.report.json.len(),
            with_report: true,
            ..BatchExtent::default()
        };
        let with_end = extent.with_event(self.end_json().len());
        if is_before_end && self.batch_cap() > 1 && with_end <= self.options.batch_budget {
            extent.json_bytes = with_end;
            extent.with_end = true;
        }
        Some(self.send_formed(extent, now))
    }

    /// Puts a report before `SESSION_END`, of which the backend knows nothing yet.
    fn take_index_of_end(&mut self) {
        let End::Queued { position, index } = self.end else {
            return;
        };
        self.report.made += 1;
        self.report.before_end = Some(index);
        self.next_index += 1;
        self.end = End::Queued {
            position,
            index: index + 1,
        };
        let id = self.random.uuid();
        let old = EventPrefix::new(id, index).len();
        let prefix = EventPrefix::new(id, index + 1);
        self.end_slot.replace_prefix(old, prefix);
        // The rest of a refused batch was to be sent in pieces.
        if let Some(halving) = &mut self.halving {
            halving.leave_end(position);
            self.end_halving();
        }
    }

    /// Whether the next event to send is a report that is made.
    pub(super) fn is_turn_of_report(&self) -> bool {
        self.records_before_report() == Some(0) && !self.report.json.is_empty()
    }

    /// The backend may have a batch that is tried again or given up.
    pub(super) fn note_end_sent(&mut self, extent: &BatchExtent) {
        if extent.with_end {
            self.report.expose_end();
        }
    }

    /// Makes the report whose turn it is.
    pub(crate) fn make_report(&mut self, at: Timestamp) {
        let is_turn = self.records_before_report() == Some(0) && self.report.json.is_empty();
        let Some(index) = self.report_index().filter(|_| is_turn) else {
            return;
        };
        let prefix = EventPrefix::new(self.random.uuid(), index);
        let mut json = core::mem::take(&mut self.report.json);
        let limit = REPORT_BYTES.min(self.options.max_event_bytes);
        // As many runs as there is room for; the counts tell of the others.
        let runs = (0..=self.report.runs.len()).rev();
        let tries = runs.map(|runs| (runs, u64::MAX)).chain([(0, 999_999_999)]);
        for (runs, max_count) in tries {
            json.clear();
            let mut slot = Slot {
                json: &mut json,
                limit,
            };
            let mut start = [0; EventPrefix::MAX];
            let start = start.get_mut(..prefix.len()).unwrap_or_default();
            prefix.write(start);
            let is_written = slot.bytes(start).is_ok()
                && self.write_report(&mut slot, runs, max_count, at).is_ok();
            if is_written {
                break;
            }
        }
        self.report.json = json;
        self.report.told = self.losses();
    }

    fn write_report(
        &self,
        out: &mut Slot<'_>,
        runs: usize,
        max_count: u64,
        at: Timestamp,
    ) -> fmt::Result {
        write!(
            out,
            r#","event":"GENERIC_EVENT","severity":"WARNING","event_name":"{REPORT_NAME}","event_data":{{"lost":["#
        )?;
        for (at, run) in self.report.runs.iter().take(runs).enumerate() {
            let comma = if at > 0 { "," } else { "" };
            let (first, last, reason) = (run.first, run.last, run.cause.as_str());
            write!(
                out,
                r#"{comma}{{"first":{first},"last":{last},"reason":"{reason}""#
            )?;
            if let Some(count) = run.count {
                write!(out, r#","count":{count}"#)?;
            }
            out.write_str("}")?;
        }
        let counts = self.loss_counts();
        for (key, is_dropped) in [("refused", false), ("dropped", true)] {
            let mut comma = if is_dropped { "}," } else { "]," };
            write!(out, r#"{comma}"{key}":{{"#)?;
            comma = "";
            for (cause, count) in counts {
                if count > 0 && cause.is_dropped() == is_dropped {
                    let count = count.min(max_count);
                    write!(out, r#"{comma}"{}":{count}"#, cause.as_str())?;
                    comma = ",";
                }
            }
        }
        let truncated = self.ledger.truncated.min(max_count);
        let retried = self.report.retried.min(max_count);
        write!(
            out,
            r#"}},"truncated":{truncated},"retried":{retried}}},"timestamp":"{at}"}}"#
        )
    }

    /// A report is settled.
    pub(super) fn release_report(&mut self) {
        self.report.settled += 1;
        self.report.json.clear();
        if self.report.queued.take().is_none() {
            self.report.before_end = None;
            self.report.has_told = true;
        }
    }
}

/// The space for a report's JSON: allocated already, and never exceeded.
struct Slot<'a> {
    json: &'a mut Vec<u8>,
    limit: usize,
}

impl Slot<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> fmt::Result {
        if self.json.len() + bytes.len() > self.limit {
            return Err(fmt::Error);
        }
        self.json.extend_from_slice(bytes);
        Ok(())
    }
}

impl Write for Slot<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.bytes(text.as_bytes())
    }
}
