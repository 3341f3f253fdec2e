//! Patience: with `GiveUp::WhenFull` a batch is tried until it is settled, and yet none blocks the others for good.
//!
//! A batch on which the server fails again and again is cut in half, until the event at fault stands alone. Whether that
//! event or the backend is at fault is then found out with a probe: a copy of an event behind it. If the backend takes
//! the probe, and fails on the event at once afterwards, the event is dropped.

use super::batch::{InFlight, Phase};
use super::ring::HEADER;
use super::{Attempt, AttemptId, Engine, SendOutcome, Wakers};
use crate::stats::DropReason;
use crate::text::Reason;
use crate::time::Instant;
use core::time::Duration;

/// What speaks against a batch in flight.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// How often the server has failed on it, and since when.
    failures: u32,
    since: Option<Instant>,
    /// It will be formed anew, smaller.
    is_cut: bool,
    /// The next attempt is a probe.
    is_probe_due: bool,
    /// Where in the ring the probe under way is.
    probe_at: Option<usize>,
    /// The probes that the backend has not taken: the next one is that many events further on.
    probes_failed: usize,
    /// The backend has just taken a probe.
    has_proof: bool,
}

impl Doubt {
    pub(super) const fn is_cut(&self) -> bool {
        self.is_cut
    }

    pub(super) const fn probe_at(&self) -> Option<usize> {
        self.probe_at
    }

    /// Returns whether a probe was under way.
    pub(super) const fn end_probe(&mut self) -> bool {
        self.probe_at.take().is_some()
    }

    fn note_failure(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.since.get_or_insert(now);
    }

    fn has_lasted(&self, now: Instant) -> bool {
        let lasts = |since| now.saturating_duration_since(since) >= Engine::DOUBT_LASTS;
        self.failures >= Engine::DOUBT_AFTER && self.since.is_some_and(lasts)
    }
}

impl SendOutcome {
    /// A failure of the server counts as any other: the session gives up after some retries.
    pub(super) fn without_blame(self) -> Self {
        match self {
            Self::Failed(retry_after, reason) => Self::Retryable(retry_after, reason),
            other => other,
        }
    }

    const fn is_final(&self) -> bool {
        !matches!(
            self,
            Self::Retryable(..) | Self::Failed(..) | Self::Broke(_)
        )
    }
}

impl Engine {
    /// A batch on which the server has failed this often is cut at each further failure.
    const DOUBT_AFTER: u32 = 8;

    /// How long the server must have failed on a single event before it may be dropped.
    const DOUBT_LASTS: Duration = Duration::from_secs(600);

    /// The backend is away once this many attempts have failed in a row.
    const AWAY_AFTER: u32 = 4;

    /// A batch whose connection broke this often is cut, as the server's answer may have been lost with it.
    const BREAKS: u32 = 4;

    /// A probe is at most this many events further on than the first one.
    const PROBES: usize = 64;

    pub(super) fn settle_patiently(
        &mut self,
        mut in_flight: InFlight,
        outcome: SendOutcome,
        now: Instant,
    ) -> Wakers {
        if outcome.is_final() {
            self.note_back();
        }
        if in_flight.doubt.end_probe() {
            return self.settle_probe(in_flight, outcome, now);
        }
        let events = in_flight.extent.events();
        let has_proof = core::mem::take(&mut in_flight.doubt.has_proof);
        let (retry_after, reason) = match outcome {
            SendOutcome::Failed(_, reason) if events == 1 && has_proof => {
                return self.settle_dropped(&in_flight.extent, DropReason::Rejected, reason);
            }
            SendOutcome::Failed(retry_after, reason) => {
                in_flight.doubt.note_failure(now);
                let has_failed = in_flight.doubt.failures > Self::DOUBT_AFTER
                    || self.halving.is_some_and(|halving| halving.failed());
                if events == 1 {
                    in_flight.doubt.is_probe_due = in_flight.doubt.has_lasted(now);
                } else if has_failed {
                    in_flight.doubt.is_cut = true;
                    self.cut(events, false);
                }
                (retry_after, reason)
            }
            SendOutcome::Broke(reason) => {
                in_flight.breaks = in_flight.breaks.saturating_add(1);
                let has_broken = in_flight.breaks >= Self::BREAKS
                    || self.halving.is_some_and(|halving| halving.broke());
                if events > 1 && has_broken {
                    in_flight.doubt.is_cut = true;
                    self.cut(events, true);
                }
                (None, reason)
            }
            SendOutcome::Retryable(retry_after, reason) => (retry_after, reason),
            settled => return self.settle_attempt(in_flight, settled, now),
        };
        self.try_again(in_flight, retry_after, reason, now)
    }

    /// A probe settles nothing: its event is sent again with its own batch.
    fn settle_probe(
        &mut self,
        mut in_flight: InFlight,
        outcome: SendOutcome,
        now: Instant,
    ) -> Wakers {
        let (retry_after, reason) = match outcome {
            SendOutcome::Delivered | SendOutcome::HandedOver | SendOutcome::Partly { .. } => {
                in_flight.doubt.has_proof = true;
                in_flight.phase = Phase::Retry {
                    until: now,
                    not_before: Instant::ORIGIN,
                };
                self.in_flight = Some(in_flight);
                return Wakers::default();
            }
            SendOutcome::Retryable(retry_after, reason)
            | SendOutcome::Failed(retry_after, reason) => (retry_after, reason),
            SendOutcome::Broke(reason)
            | SendOutcome::InvalidEvents(reason)
            | SendOutcome::Rejected(reason)
            | SendOutcome::TooLarge(reason) => (None, reason),
        };
        in_flight.doubt.probes_failed = (in_flight.doubt.probes_failed + 1) % Self::PROBES;
        self.try_again(in_flight, retry_after, reason, now)
    }

    fn try_again(
        &mut self,
        in_flight: InFlight,
        retry_after: Option<Duration>,
        reason: Reason,
        now: Instant,
    ) -> Wakers {
        self.failures = self.failures.saturating_add(1);
        if self.failures == Self::AWAY_AFTER {
            self.notices.set_away(self.queued(), reason.clone());
        }
        self.retry(in_flight, retry_after, reason, now)
    }

    fn note_back(&mut self) {
        let failures = core::mem::take(&mut self.failures);
        if failures >= Self::AWAY_AFTER {
            self.notices.set_returned(failures);
        }
    }

    /// Begins an attempt with a copy of an event behind the one in flight, if that one is in doubt and there is another.
    pub(super) fn begin_probe(
        &mut self,
        id: AttemptId,
        in_flight: &mut InFlight,
    ) -> Option<Attempt> {
        if !core::mem::take(&mut in_flight.doubt.is_probe_due) {
            return None;
        }
        let first = in_flight.extent.ring_bytes;
        let mut at = first;
        for _ in 0..in_flight.doubt.probes_failed {
            match self.ring.record(at) {
                Some(record) => at += HEADER + record.len,
                None => at = first,
            }
        }
        let finished = |at| self.ring.record(at).filter(|record| record.is_finished);
        let (at, record) = match finished(at) {
            Some(record) => (at, record),
            None => (first, finished(first)?),
        };
        in_flight.doubt.probe_at = Some(at);
        Some(Attempt {
            id,
            key: self.random.uuid(),
            first_index: record.tag,
            events: 1,
            json_bytes: record.len,
            attempt: 0,
            broke_while_sending: false,
        })
    }
}
