//! Notices: what has happened and has not been reported yet, at a limited rate.

use super::Engine;
use crate::diagnostic::DiagnosticKind;
use crate::text::Reason;
use crate::time::Instant;
use core::time::Duration;

/// A diagnostic on its way from the engine to the observer.
pub(crate) struct Notice {
    pub(crate) kind: DiagnosticKind,
    pub(crate) count: u64,
    reason: Reason,
    /// The reason where it is one of a few.
    fixed_reason: &'static str,
    pub(crate) limit: Option<usize>,
    pub(crate) limit_name: Option<&'static str>,
}

impl Notice {
    pub(crate) fn reason(&self) -> &str {
        match self.reason.as_str() {
            "" => self.fixed_reason,
            reason => reason,
        }
    }
}

impl Engine {
    /// The next diagnostic to report, with the limit that was reached; `all` ignores the rate limit.
    pub(crate) fn next_notice(&mut self, now: Instant, all: bool) -> Option<Notice> {
        let mut notice = self.notices.next(now, all)?;
        let options = &self.options;
        (notice.limit, notice.limit_name) = match notice.kind {
            DiagnosticKind::QueueFull => match self.notices.queue_limit() {
                QueueLimit::Events => (Some(options.max_queue_size), Some("max_queue_size")),
                // Memory of a fixed size has no other limit in bytes.
                _ if self.ring.is_fixed() => (Some(options.max_queue_bytes), Some("static memory")),
                QueueLimit::Bytes => (Some(options.max_queue_bytes), Some("max_queue_bytes")),
                QueueLimit::Memory => (Some(self.ring.used()), None),
            },
            DiagnosticKind::EventTooLarge => {
                (Some(options.max_event_bytes), Some("max_event_bytes"))
            }
            DiagnosticKind::RetriesExhausted => {
                (Some(options.max_retries as usize), Some("max_retries"))
            }
            _ => (None, None),
        };
        Some(notice)
    }
}

/// Which limit has refused an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum QueueLimit {
    #[default]
    Events,
    Bytes,
    /// It cannot be allocated.
    Memory,
}

/// Why events had not been sent when a stop reached its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// No attempt was made.
    #[default]
    NoTime,
    /// The attempt under way had no response yet.
    NoResponse,
    /// The last attempt had failed, for the reason that was recorded with it.
    Failed,
    NoDriver,
}

impl Unsent {
    const fn reason(self) -> &'static str {
        match self {
            Self::NoTime => "there was no time for an attempt",
            Self::NoResponse => "no response in time",
            Self::Failed => "the last attempt failed",
            Self::NoDriver => "there is no driver",
        }
    }
}

/// What has happened and has not been reported yet, by kind.
#[derive(Default)]
pub(crate) struct Notices {
    counts: [u32; DiagnosticKind::COUNT],
    quiet_until: [QuietUntil; DiagnosticKind::COUNT],
    reasons: Reasons,
    queue_limit: QueueLimit,
    unsent: Unsent,
}

/// The time until which a kind is not reported again.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Default)]
struct QuietUntil(Option<Instant>);

#[cfg(feature = "alloc")]
impl QuietUntil {
    const fn new(at: Option<Instant>) -> Self {
        Self(at)
    }

    fn end(self) -> Instant {
        self.0.unwrap_or(Instant::ORIGIN)
    }
}

/// The time until which a kind is not reported again, in half the memory and rounded up by at most 2 s.
#[cfg(not(feature = "alloc"))]
#[derive(Clone, Copy, Default)]
struct QuietUntil(u32);

#[cfg(not(feature = "alloc"))]
impl QuietUntil {
    const SHIFT: u32 = 20;

    fn new(at: Option<Instant>) -> Self {
        let whole = at.map_or(0, |at| (at.as_micros() >> Self::SHIFT) + 1);
        Self(u32::try_from(whole).unwrap_or(u32::MAX))
    }

    const fn end(self) -> Instant {
        Instant::from_micros((self.0 as u64) << Self::SHIFT)
    }
}

/// The reason of each kind: for refusals the first since the last report, for batches the latest.
#[cfg(feature = "alloc")]
#[derive(Default)]
struct Reasons([Reason; DiagnosticKind::COUNT]);

#[cfg(feature = "alloc")]
impl Reasons {
    fn set(&mut self, kind: DiagnosticKind, reason: Reason) {
        if let Some(slot) = self.0.get_mut(kind as usize) {
            *slot = reason;
        }
    }

    fn get(&self, kind: DiagnosticKind) -> Reason {
        self.0.get(kind as usize).cloned().unwrap_or_default()
    }
}

/// One reason for all kinds, to save memory: a later one replaces it.
#[cfg(not(feature = "alloc"))]
#[derive(Default)]
struct Reasons {
    reason: Reason,
    is_unencodable: bool,
}

#[cfg(not(feature = "alloc"))]
impl Reasons {
    fn set(&mut self, kind: DiagnosticKind, reason: Reason) {
        self.is_unencodable = kind == DiagnosticKind::Unencodable;
        self.reason = reason;
    }

    fn get(&self, kind: DiagnosticKind) -> Reason {
        if self.is_unencodable == (kind == DiagnosticKind::Unencodable) {
            self.reason.clone()
        } else {
            Reason::default()
        }
    }
}

impl Notices {
    const INTERVAL: Duration = Duration::from_secs(10);

    /// Counts events of a kind. Returns true if none were pending, so that the driver must be woken.
    pub(crate) fn add(&mut self, kind: DiagnosticKind, count: u64) -> bool {
        // The other kinds are reported directly, at their source.
        let Some(pending) = self.counts.get_mut(kind as usize) else {
            return false;
        };
        let is_first = *pending == 0;
        *pending = pending.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        is_first
    }

    /// Counts events of a kind and records the reason: for refusals the first until it is reported, for batches the
    /// latest.
    pub(crate) fn add_with_reason(
        &mut self,
        kind: DiagnosticKind,
        count: u64,
        reason: Reason,
    ) -> bool {
        let is_first = self.add(kind, count);
        let is_refusal = matches!(
            kind,
            DiagnosticKind::Unencodable
                | DiagnosticKind::ScrubPanicked
                | DiagnosticKind::ContextIncomplete
        );
        if is_first || !is_refusal {
            self.reasons.set(kind, reason);
        }
        is_first
    }

    /// Records why an attempt failed that is not going to be followed by another.
    pub(crate) fn note_failure(&mut self, reason: Reason) {
        self.reasons.set(DiagnosticKind::AttemptFailed, reason);
    }

    /// Counts events that a stop's deadline dropped.
    pub(crate) fn add_unsent(&mut self, count: u64, unsent: Unsent) {
        self.unsent = unsent;
        self.add(DiagnosticKind::Shutdown, count);
    }

    /// Records that nothing sends the `queued` events. It happens at most twice for each driver, so it is reported at once.
    pub(crate) fn set_undriven(&mut self, queued: u64) {
        self.quiet_until[DiagnosticKind::NoDriver as usize] = QuietUntil::default();
        self.counts[DiagnosticKind::NoDriver as usize] = u32::try_from(queued).unwrap_or(u32::MAX);
    }

    /// Records that the backend is away, with `queued` events waiting for it. Nothing if its return is not reported yet.
    #[cfg(has_arc)]
    pub(crate) fn set_away(&mut self, queued: u64, reason: Reason) {
        if core::mem::take(&mut self.counts[DiagnosticKind::BackendReturned as usize]) == 0 {
            self.add_with_reason(DiagnosticKind::BackendAway, queued, reason);
        }
    }

    /// Records that the backend is back after so many failed attempts. Nothing if its absence is not reported yet.
    #[cfg(has_arc)]
    pub(crate) fn set_returned(&mut self, failures: u32) {
        if core::mem::take(&mut self.counts[DiagnosticKind::BackendAway as usize]) == 0 {
            self.add(DiagnosticKind::BackendReturned, failures.into());
        }
    }

    /// Records the limit that refuses an event; the first one stands until it is reported.
    pub(crate) fn set_queue_limit(&mut self, limit: QueueLimit) {
        if self.counts[DiagnosticKind::QueueFull as usize] == 0 {
            self.queue_limit = limit;
        }
    }

    pub(crate) fn queue_limit(&self) -> QueueLimit {
        self.queue_limit
    }

    /// The next kind to report. `all` includes kinds that were reported less than 10 s ago.
    pub(crate) fn next(&mut self, now: Instant, all: bool) -> Option<Notice> {
        let is_pending = |kind: DiagnosticKind| self.counts[kind as usize] > 0;
        let may_report = |kind: DiagnosticKind| {
            is_pending(kind) && (all || self.quiet_until[kind as usize].end() <= now)
        };
        let mut kinds = DiagnosticKind::COUNTED.into_iter();
        // "Will retry" must not come after "given up".
        let ends_batch = kinds
            .clone()
            .any(|kind| kind.is_final() && may_report(kind));
        let is_due = |kind: &DiagnosticKind| match kind {
            DiagnosticKind::AttemptFailed if ends_batch => is_pending(*kind),
            kind => may_report(*kind),
        };
        let kind = kinds.find(is_due)?;
        self.quiet_until[kind as usize] = QuietUntil::new(now.checked_add(Self::INTERVAL));
        let mut fixed_reason = "";
        let reason = match kind {
            DiagnosticKind::Unencodable
            | DiagnosticKind::ScrubPanicked
            | DiagnosticKind::ContextIncomplete
            | DiagnosticKind::AttemptFailed
            | DiagnosticKind::BackendAway
            | DiagnosticKind::RetriesExhausted
            | DiagnosticKind::Rejected
            | DiagnosticKind::TooLarge => self.reasons.get(kind),
            DiagnosticKind::Shutdown => {
                fixed_reason = self.unsent.reason();
                match self.unsent {
                    Unsent::Failed => self.reasons.get(DiagnosticKind::AttemptFailed),
                    _ => Reason::default(),
                }
            }
            _ => Reason::default(),
        };
        Some(Notice {
            kind,
            count: core::mem::take(&mut self.counts[kind as usize]).into(),
            reason,
            fixed_reason,
            limit: None,
            limit_name: None,
        })
    }

    /// The earliest time at which a pending kind may be reported.
    pub(crate) fn due(&self) -> Option<Instant> {
        let counts = self.counts.iter().zip(&self.quiet_until);
        counts
            .filter(|(count, _)| **count > 0)
            .map(|(_, until)| until.end())
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec::Vec;

    #[test]
    fn ten_thousand_refusals_are_reported_twice_in_ten_seconds_and_none_is_lost() {
        let mut notices = Notices::default();
        let (mut reports, mut counted) = (0, 0);
        for event in 0..10_000 {
            let now = Instant::from_micros(event * 1_100);
            notices.add(DiagnosticKind::QueueFull, 1);
            while let Some(notice) = notices.next(now, false) {
                reports += 1;
                counted += notice.count;
            }
        }
        assert_eq!(reports, 2);
        let rest = notices.next(Instant::ORIGIN, true).unwrap();
        assert_eq!(counted + rest.count, 10_000);
    }

    #[test]
    fn an_attempt_is_never_reported_after_its_batch_was_given_up() {
        let mut notices = Notices::default();
        let failed = |notices: &mut Notices| {
            notices.add_with_reason(DiagnosticKind::AttemptFailed, 1, Reason::new("503"));
        };
        failed(&mut notices);
        assert!(notices.next(Instant::ORIGIN, false).is_some());
        failed(&mut notices);
        failed(&mut notices);
        // It was reported less than ten seconds ago.
        assert!(notices.next(Instant::ORIGIN, false).is_none());
        notices.add_with_reason(DiagnosticKind::RetriesExhausted, 7, Reason::new("504"));
        let mut reported = Vec::new();
        while let Some(notice) = notices.next(Instant::ORIGIN, false) {
            reported.push((notice.kind, notice.count, notice.reason().to_string()));
        }
        let attempts = (DiagnosticKind::AttemptFailed, 2, "503".to_string());
        let batch = (DiagnosticKind::RetriesExhausted, 7, "504".to_string());
        assert_eq!(reported, [attempts, batch]);
    }

    #[test]
    fn each_kind_keeps_its_own_reason() {
        let mut notices = Notices::default();
        notices.add_with_reason(DiagnosticKind::Rejected, 1, Reason::new("401"));
        notices.add_with_reason(DiagnosticKind::AttemptFailed, 1, Reason::new("503"));
        let reasons: Vec<_> = core::iter::from_fn(|| notices.next(Instant::ORIGIN, true))
            .map(|notice| notice.reason().to_string())
            .collect();
        assert_eq!(reasons, ["503", "401"]);
    }
}
