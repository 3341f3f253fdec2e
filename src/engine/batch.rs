//! Batches: how one is formed, attempted, copied out of the ring and split.

#[cfg(has_arc)]
use super::patience::Doubt;
use super::stopping::End;
use super::{AttemptId, Engine, Step, earliest};
use crate::engine::ring::HEADER;
use crate::time::Instant;
use uuid::Uuid;

/// The extent of a batch: how many events from the head of the queue it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BatchExtent {
    pub(super) records: usize,
    /// With headers, as the ring counts them.
    pub(super) ring_bytes: usize,
    /// Without headers but with commas, as on the wire.
    pub(super) json_bytes: usize,
    /// Whether `SESSION_END` is its last event.
    pub(super) with_end: bool,
    /// Whether a loss report is its first event. Then it has no records.
    #[cfg(has_arc)]
    pub(super) with_report: bool,
}

impl BatchExtent {
    pub(super) const fn events(&self) -> u64 {
        let events = self.records as u64 + self.with_end as u64;
        #[cfg(has_arc)]
        let events = events + self.with_report as u64;
        events
    }

    /// `json_bytes` with one more event.
    pub(super) const fn with_event(&self, len: usize) -> usize {
        let comma = if self.events() > 0 { 1 } else { 0 };
        self.json_bytes + comma + len
    }
}

/// A batch that is not settled.
#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) extent: BatchExtent,
    pub(super) key: Uuid,
    pub(super) attempt: u32,
    /// The attempts that broke while the request was being sent.
    pub(super) breaks: u32,
    pub(super) phase: Phase,
    #[cfg(has_arc)]
    pub(super) doubt: Doubt,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Phase {
    Sending {
        id: AttemptId,
        deadline: Instant,
    },
    Retry {
        until: Instant,
        /// The server asked for no attempt before this time.
        not_before: Instant,
    },
}

impl InFlight {
    /// Whether its next attempt may begin.
    pub(super) fn is_ready(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Retry { until, .. } if until <= now)
    }

    pub(super) fn is_sending(&self, attempt: AttemptId) -> bool {
        matches!(self.phase, Phase::Sending { id, .. } if id == attempt)
    }

    /// The loss report, if the attempt sends it.
    #[cfg(has_arc)]
    fn report<'a>(&self, json: &'a [u8]) -> &'a [u8] {
        let is_sent = self.extent.with_report && self.doubt.probe_at().is_none();
        if is_sent { json } else { &[] }
    }

    /// What the attempt sends: from where in the ring, how many records, and whether `SESSION_END` as well.
    fn sends(&self) -> (usize, usize, bool) {
        #[cfg(has_arc)]
        if let Some(ring_at) = self.doubt.probe_at() {
            return (ring_at, 1, false);
        }
        (0, self.extent.records, self.extent.with_end)
    }
}

/// One attempt at one batch, for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) id: AttemptId,
    pub(crate) key: Uuid,
    pub(crate) first_index: u64,
    pub(crate) events: usize,
    /// The JSON of the events and the commas between them.
    pub(crate) json_bytes: usize,
    pub(crate) attempt: u32,
    /// Whether an earlier attempt at these events broke while it was being sent.
    pub(crate) broke_while_sending: bool,
}

impl Attempt {
    /// A cursor at the beginning of this batch.
    pub(crate) const fn cursor(&self) -> Cursor {
        Cursor {
            send: self.id,
            records: 0,
            ring_at: 0,
            left: 0,
            #[cfg(has_arc)]
            report_at: 0,
            end_at: 0,
        }
    }
}

/// How far a batch has been copied.
#[derive(Debug)]
pub(crate) struct Cursor {
    send: AttemptId,
    /// Records begun so far, the current one included.
    records: usize,
    /// The offset in the ring.
    ring_at: usize,
    /// Bytes left of the current record.
    left: usize,
    /// The offset in the loss report.
    #[cfg(has_arc)]
    report_at: usize,
    /// The offset in `SESSION_END`, its comma included.
    end_at: usize,
}

impl Engine {
    /// Records visited per acquisition of the lock. Each may be a cache miss, and all of them together should take less
    /// time than a waiting `log` spins.
    pub(super) const FORM_STEP: usize = 8;

    /// Continues forming the next batch, and begins its first attempt once it is complete.
    pub(super) fn form(&mut self, now: Instant) -> Step {
        #[cfg(has_arc)]
        if let Some(step) = self.form_report(now) {
            return step;
        }
        let cap = self.batch_cap();
        let before_end = self.records_before_end();
        #[cfg(has_arc)]
        let before_report = self.records_before_report();
        #[cfg(not(has_arc))]
        let before_report = None;
        #[cfg(feature = "std")]
        if let Some(extent) = self.counted(before_end.is_some() || before_report.is_some()) {
            return self.send_formed(extent, now);
        }
        let mut extent = self.forming;
        for _ in 0..Self::FORM_STEP {
            let is_last = extent.with_end || before_report == Some(extent.records as u64);
            let event = if extent.events() >= cap || is_last {
                None
            } else if before_end == Some(extent.records as u64) {
                Some(self.end_json().len())
            } else {
                self.ring
                    .record(extent.ring_bytes)
                    .filter(|record| record.is_finished)
                    .map(|record| record.len)
            };
            match event.filter(|len| extent.with_event(*len) <= self.options.batch_budget) {
                None if extent.events() == 0 => return self.wait_for_event(),
                None => return self.send_formed(extent, now),
                Some(len) => {
                    extent.json_bytes = extent.with_event(len);
                    if before_end == Some(extent.records as u64) {
                        extent.with_end = true;
                    } else {
                        extent.records += 1;
                        extent.ring_bytes += HEADER + len;
                    }
                }
            }
        }
        self.forming = extent;
        Step::Again
    }

    /// The next batch, if it was counted as its events came in. One that ends with something else is not.
    #[cfg(feature = "std")]
    fn counted(&self, has_other_end: bool) -> Option<BatchExtent> {
        if has_other_end || self.halving.is_some() || self.forming != BatchExtent::default() {
            return None;
        }
        let group = self.ring.groups().front()?;
        Some(BatchExtent {
            records: group.records,
            ring_bytes: group.ring_bytes,
            json_bytes: group.json_bytes(),
            ..BatchExtent::default()
        })
    }

    /// The next event is still being written: the driver has preempted its writer.
    fn wait_for_event(&mut self) -> Step {
        self.awaits_writer = true;
        Step::Wait(earliest([self.stop_deadline(), self.notices.due()]))
    }

    pub(super) fn send_formed(&mut self, extent: BatchExtent, now: Instant) -> Step {
        self.forming = BatchExtent::default();
        #[cfg(has_arc)]
        {
            self.idle_since = None;
        }
        #[cfg(feature = "std")]
        self.ring.close_group();
        self.note_formed(&extent, now);
        let in_flight = InFlight {
            extent,
            key: self.random.uuid(),
            attempt: 0,
            breaks: 0,
            phase: Phase::Retry {
                until: now,
                not_before: now,
            },
            #[cfg(has_arc)]
            doubt: Doubt::default(),
        };
        self.begin_attempt(in_flight, now)
    }

    /// The maximum number of events in the next batch.
    pub(super) fn batch_cap(&self) -> u64 {
        match self.halving {
            Some(halving) => halving.cap(self.settled().0),
            None => self.options.max_batch_size as u64,
        }
    }

    /// The number of records in the queue before `SESSION_END`, if it is queued.
    pub(super) fn records_before_end(&self) -> Option<u64> {
        match &self.end {
            End::Queued { position, .. } => Some(position - self.settled().0),
            End::Open | End::Settled => None,
        }
    }

    pub(super) fn begin_attempt(&mut self, mut in_flight: InFlight, now: Instant) -> Step {
        let id = AttemptId(self.next_send);
        self.next_send = self.next_send.wrapping_add(1);
        let deadline = now.after(self.options.http_timeout);
        in_flight.phase = Phase::Sending {
            id,
            deadline: deadline.unwrap_or(Instant::END),
        };
        #[cfg(has_arc)]
        if let Some(probe) = self.begin_probe(id, &mut in_flight) {
            self.in_flight = Some(in_flight);
            return Step::Send(probe);
        }
        let attempt = Attempt {
            id,
            key: in_flight.key,
            #[cfg(has_arc)]
            first_index: self.first_index(&in_flight.extent),
            #[cfg(not(has_arc))]
            first_index: match self.ring.record(0) {
                Some(record) if in_flight.extent.records > 0 => record.tag,
                _ => self.end.index(),
            },
            events: in_flight.extent.events() as usize,
            json_bytes: in_flight.extent.json_bytes,
            attempt: in_flight.attempt,
            broke_while_sending: in_flight.breaks > 0
                || self.halving.is_some_and(|halving| halving.broke()),
        };
        #[cfg(has_arc)]
        if attempt.attempt > 0 {
            self.report.note_retry();
        }
        self.in_flight = Some(in_flight);
        Step::Send(attempt)
    }

    /// The index of the first event of a batch.
    #[cfg(has_arc)]
    pub(super) fn first_index(&self, extent: &BatchExtent) -> u64 {
        if extent.with_report
            && let Some(index) = self.report_index()
        {
            return index;
        }
        match self.ring.record(0) {
            Some(record) if extent.records > 0 => record.tag,
            _ => self.end.index(),
        }
    }

    /// When the current attempt must end: at its timeout, or at the deadline of a stop, which may begin meanwhile.
    pub(crate) fn send_deadline(&self) -> Option<Instant> {
        let in_flight = self.in_flight.as_ref()?;
        let Phase::Sending { deadline, .. } = in_flight.phase else {
            return None;
        };
        earliest([Some(deadline), self.stop_deadline()])
    }

    /// Whether a stop has begun and nothing is queued behind the batch in flight.
    pub(crate) fn is_last(&self) -> bool {
        let events = self.in_flight.as_ref().map(|it| it.extent.events());
        self.is_stopping && events == Some(self.queued())
    }

    /// Copies the next piece of a batch's events, as much as fits into `out`. Returns zero at the end, and when the
    /// batch is no longer in flight.
    pub(crate) fn copy(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        let Some(in_flight) = self.in_flight.as_ref().filter(|f| f.is_sending(at.send)) else {
            return 0;
        };
        let (ring_at, records, with_end) = in_flight.sends();
        if at.records == 0 {
            at.ring_at = ring_at;
        }
        #[cfg(has_arc)]
        let report = in_flight.report(self.report.json());
        #[cfg(not(has_arc))]
        let report: &[u8] = &[];
        let mut written = 0;
        while written < out.len() {
            let out = &mut out[written..];
            #[cfg(has_arc)]
            if let Some(left) = report.get(at.report_at..).filter(|left| !left.is_empty()) {
                let len = left.len().min(out.len());
                out[..len].copy_from_slice(&left[..len]);
                at.report_at += len;
                written += len;
                continue;
            }
            let is_first = at.records == 0 && report.is_empty();
            let step = if at.left > 0 {
                self.copy_record(at, out)
            } else if at.records < records {
                self.begin_record(at, out)
            } else if with_end {
                self.copy_end(at, is_first, out)
            } else {
                0
            };
            if step == 0 && at.left == 0 && at.records == records {
                break;
            }
            written += step;
        }
        written
    }

    fn copy_record(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        let len = at.left.min(out.len());
        self.ring.read(at.ring_at, &mut out[..len]);
        at.ring_at += len;
        at.left -= len;
        len
    }

    /// Skips a record's header and copies what fits, after a comma unless the record is the first.
    fn begin_record(&self, at: &mut Cursor, out: &mut [u8]) -> usize {
        if let Some(record) = self.ring.record(at.ring_at) {
            at.left = record.len;
        }
        at.ring_at += HEADER;
        at.records += 1;
        let comma = comma(at.records > 1, out);
        comma + self.copy_record(at, &mut out[comma..])
    }

    fn copy_end(&self, at: &mut Cursor, is_first: bool, out: &mut [u8]) -> usize {
        let json = self.end_json();
        if at.end_at == 0 && !is_first {
            at.end_at = 1;
            return comma(true, out);
        }
        let from = at.end_at - usize::from(!is_first);
        let len = (json.len() - from).min(out.len());
        out[..len].copy_from_slice(&json[from..from + len]);
        at.end_at += len;
        len
    }
}

fn comma(is_wanted: bool, out: &mut [u8]) -> usize {
    match out.first_mut() {
        Some(byte) if is_wanted => {
            *byte = b',';
            1
        }
        _ => 0,
    }
}
