//! Intake: events are queued, or refused and counted.

use super::notices::QueueLimit;
use super::options::Place;
use super::{Engine, EngineOptions, Wakers, Watermark};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::{HEADER, NoRoom, Ring};
use crate::event::encode::EventPrefix;
use crate::event::encode::SessionEnd;
use crate::event::severity::Severity;
use crate::stats::Refusal;
use crate::text::Reason;

/// What happens when an event is pushed, besides queueing it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Priority<'a> {
    /// Nothing: the event waits for the next flush.
    Ordinary,
    /// Nothing, but the event may use the reserve for errors.
    Important,
    /// Everything queued becomes due.
    Urgent { is_important: bool },
    /// Everything queued becomes due and the session ends, with this tail for `SESSION_END`. May use the reserve for
    /// errors, and the place of a fatal exception beyond it.
    Fatal(&'a SessionEnd),
}

impl Priority<'_> {
    /// The priority of an event whose severity turns out to be this one: only errors use the reserve for errors. The
    /// place of a fatal exception belongs to what ends the session, whatever its severity.
    #[must_use]
    pub(crate) const fn of_severity(self, severity: Severity) -> Self {
        match self {
            _ if severity.is_error() => self,
            Self::Important => Self::Ordinary,
            Self::Urgent { .. } => Self::Urgent {
                is_important: false,
            },
            Self::Ordinary | Self::Fatal(_) => self,
        }
    }

    const fn place(self) -> Place {
        match self {
            Self::Fatal(_) => Place::Fatal,
            Self::Important | Self::Urgent { is_important: true } => Place::Reserved,
            Self::Ordinary | Self::Urgent { .. } => Place::Ordinary,
        }
    }
}

impl Engine {
    /// Takes an event; `body` is its JSON after id and index.
    #[cfg(any(test, feature = "std"))]
    pub(crate) fn push(
        &mut self,
        body: &[u8],
        priority: Priority<'_>,
    ) -> (Result<(), Refusal>, Wakers) {
        self.take(body.len(), priority, |ring, prefix| {
            ring.push(prefix.index, prefix.len(), |out| prefix.write(out), body)
        })
    }

    /// Takes an event that `put` writes to the ring.
    #[inline]
    pub(super) fn take<R>(
        &mut self,
        body_len: usize,
        priority: Priority<'_>,
        put: impl FnOnce(&mut Ring, EventPrefix) -> Result<R, NoRoom>,
    ) -> (Result<R, Refusal>, Wakers) {
        if self.is_stopping | self.is_disabled {
            let refusal = self.closed(Refusal::Disabled);
            self.note_refused(refusal, None);
            return (Err(refusal), Wakers::default());
        }
        let index = self.next_index;
        let result = self.admit(body_len, index, priority, put);
        self.next_index += 1;
        let needs_wake = match result {
            Ok(_) => self.note_accepted(),
            Err(refusal) => {
                #[cfg(has_arc)]
                self.note_gap(index, refusal);
                self.note_refused(refusal, None)
            }
        };
        if let Priority::Fatal(tail) = priority {
            self.notices.add(DiagnosticKind::ExceptionLogged, 1);
            self.queue_end(tail);
        }
        let is_urgent = matches!(priority, Priority::Urgent { .. } | Priority::Fatal(_));
        if !is_urgent && !needs_wake {
            return (result, Wakers::default());
        }
        if is_urgent {
            self.make_all_due();
        }
        (result, self.driver.wake())
    }

    /// Counts an event that was refused before it could be pushed, and reports the reason.
    pub(crate) fn refuse_with_reason(
        &mut self,
        refusal: Refusal,
        reason: Option<Reason>,
    ) -> (Result<(), Refusal>, Wakers) {
        let refusal = self.closed(refusal);
        // An event that is not wanted is no loss, so it leaves no gap in the indices.
        if !matches!(
            refusal,
            Refusal::SessionEnded
                | Refusal::Disabled
                | Refusal::BelowMinSeverity
                | Refusal::Scrubbed
                | Refusal::OwnWork
        ) {
            #[cfg(has_arc)]
            self.note_gap(self.next_index, refusal);
            self.next_index += 1;
        }
        let needs_wake = self.note_refused(refusal, reason);
        let wakers = if needs_wake {
            self.driver.wake()
        } else {
            Wakers::default()
        };
        (Err(refusal), wakers)
    }

    /// Counts a refused fatal exception, which still ends the session. It leaves a gap in the indices whatever the reason,
    /// for a backend could not tell why the session ended, and would not expect events after that.
    #[cfg(feature = "std")]
    pub(crate) fn refuse_fatal(
        &mut self,
        refusal: Refusal,
        reason: Option<Reason>,
        tail: &SessionEnd,
    ) -> (Result<(), Refusal>, Wakers) {
        let index = self.next_index;
        let (result, wakers) = self.refuse_with_reason(refusal, reason);
        if !self.is_stopping && !self.is_disabled {
            if self.end.is_open() {
                #[cfg(has_arc)]
                if self.next_index == index {
                    self.note_gap(index, refusal);
                }
                self.next_index = index + 1;
            }
            self.queue_end(tail);
            self.make_all_due();
        }
        (result, wakers.and_driver(&mut self.driver))
    }

    /// The reason to refuse an event: one for which the session refuses all of them comes first.
    const fn closed(&self, refusal: Refusal) -> Refusal {
        match refusal {
            _ if self.is_stopping => Refusal::SessionEnded,
            _ if self.is_disabled => Refusal::Disabled,
            refusal => refusal,
        }
    }

    /// Sets whether the event behind `SESSION_START` is the session's context, which does not count towards the threshold.
    pub(crate) fn set_has_context(&mut self, has_context: bool) {
        self.has_context = has_context;
    }

    /// Reports that a handle's context is incomplete.
    pub(crate) fn note_context(&mut self, reason: Reason) -> Wakers {
        let kind = DiagnosticKind::ContextIncomplete;
        if self.notices.add_with_reason(kind, 1, reason) {
            self.driver.wake()
        } else {
            Wakers::default()
        }
    }

    /// Counts an accepted event that was truncated.
    pub(crate) fn note_truncated(&mut self) {
        self.ledger.truncated += 1;
    }

    /// Writes an event to the ring, unless a limit forbids it. An important event may use the reserve for errors, and a
    /// fatal exception has a place beyond it.
    #[inline]
    fn admit<R>(
        &mut self,
        body_len: usize,
        index: u64,
        priority: Priority<'_>,
        put: impl FnOnce(&mut Ring, EventPrefix) -> Result<R, NoRoom>,
    ) -> Result<R, Refusal> {
        let prefix = EventPrefix::new(self.random.uuid(), index);
        let len = prefix.len() + body_len;
        if len > self.options.max_event_bytes {
            return Err(Refusal::EventTooLarge);
        }
        let fits = |size: usize, bytes: usize| {
            self.ring.records() < size && self.ring.used() + HEADER + len <= bytes
        };
        let EngineOptions {
            max_queue_size: size,
            max_queue_bytes: bytes,
            ..
        } = self.options;
        if !fits(size, bytes) {
            let (size, bytes) = self.options.limits(priority.place());
            if !fits(size, bytes) {
                self.notices
                    .set_queue_limit(if self.ring.records() >= size {
                        QueueLimit::Events
                    } else {
                        QueueLimit::Bytes
                    });
                return Err(Refusal::QueueFull);
            }
        }
        let put = match put(&mut self.ring, prefix) {
            Ok(put) => put,
            Err(NoRoom) => {
                self.notices.set_queue_limit(QueueLimit::Memory);
                return Err(Refusal::QueueFull);
            }
        };
        self.bytes_since_flush += len;
        Ok(put)
    }

    /// Counts an accepted event. Returns whether to wake the driver.
    fn note_accepted(&mut self) -> bool {
        self.ledger.accepted += 1;
        let is_first_after_end =
            !self.end.is_open() && !core::mem::replace(&mut self.logged_after_end_reported, true);
        if is_first_after_end {
            self.notices.add(DiagnosticKind::LoggedAfterEnd, 1);
        }
        let is_missed = self.driver.is_missed_first();
        if is_missed {
            self.notices.set_undriven(self.queued());
        }
        let mut is_due = self.is_threshold_reached();
        if is_due {
            if self.is_look_near() {
                is_due = !self.can_wait_for_look();
            } else {
                self.make_all_due();
            }
        }
        // With a batch in flight the driver polls again anyway. The first event after an idle time makes it arm the
        // timer.
        let is_first =
            self.queued() == 1 && self.flush_at.is_none() && self.options.flush_interval > 0;
        let needs_wake = self.in_flight.is_none() && (is_due || is_first);
        needs_wake || is_first_after_end || is_missed
    }

    /// Counts a refused event. Returns whether to wake the driver, to report it.
    fn note_refused(&mut self, refusal: Refusal, reason: Option<Reason>) -> bool {
        self.ledger.refused.add(refusal);
        match (refusal, reason) {
            (Refusal::QueueFull, _) => self.notices.add(DiagnosticKind::QueueFull, 1),
            (Refusal::EventTooLarge, _) => self.notices.add(DiagnosticKind::EventTooLarge, 1),
            (Refusal::Unencodable, reason) => {
                let reason = reason.unwrap_or_default();
                self.notices
                    .add_with_reason(DiagnosticKind::Unencodable, 1, reason)
            }
            (Refusal::ScrubPanicked, reason) => {
                let reason = reason.unwrap_or_default();
                self.notices
                    .add_with_reason(DiagnosticKind::ScrubPanicked, 1, reason)
            }
            (
                Refusal::SessionEnded
                | Refusal::Disabled
                | Refusal::BelowMinSeverity
                | Refusal::Forked
                | Refusal::Scrubbed
                | Refusal::OwnWork,
                _,
            ) => false,
        }
    }

    pub(super) fn make_all_due(&mut self) {
        self.flush_watermark = Watermark(self.ledger.accepted);
        self.bytes_since_flush = 0;
    }
}
