//! What comes in: events that are queued, and events that are refused.

use super::{Engine, Priority, Watermark};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::{HEADER, NoRoom, Ring};
use crate::event::encode::EventPrefix;
#[cfg(feature = "std")]
use crate::event::encode::SessionEnd;
use crate::stats::Refusal;
use crate::text::Reason;
use core::task::Waker;

impl Engine {
    /// Takes an event: everything of its JSON behind id and index. The waker, if any, is to be woken.
    #[cfg(any(test, feature = "std"))]
    pub(crate) fn push(
        &mut self,
        body: &[u8],
        priority: Priority<'_>,
    ) -> (Result<(), Refusal>, Option<Waker>) {
        self.take(body.len(), priority, |ring, front| {
            ring.push(front.index, front.len(), |out| front.write(out), body)
        })
    }

    /// Takes an event that `put` puts into the ring.
    #[inline]
    pub(super) fn take<R>(
        &mut self,
        body_len: usize,
        priority: Priority<'_>,
        put: impl FnOnce(&mut Ring, EventPrefix) -> Result<R, NoRoom>,
    ) -> (Result<R, Refusal>, Option<Waker>) {
        if self.is_stopping {
            self.note_refused(Refusal::SessionEnded, None);
            return (Err(Refusal::SessionEnded), None);
        }
        let index = self.next_index;
        let is_fatal = matches!(priority, Priority::Fatal(_));
        let result = self.admit(body_len, index, is_fatal, put);
        self.next_index += 1;
        let needs_wake = match result {
            Ok(_) => self.note_accepted(),
            Err(refusal) => self.note_refused(refusal, None),
        };
        if let Priority::Fatal(tail) = priority {
            self.notices.add(DiagnosticKind::ExceptionLogged, 1);
            self.queue_end(tail);
        }
        if matches!(priority, Priority::Ordinary) && !needs_wake {
            return (result, None);
        }
        if !matches!(priority, Priority::Ordinary) {
            self.make_all_due();
        }
        (result, self.driver.wake())
    }

    /// Counts an event that did not get so far as to be pushed, and says why it could not be encoded.
    pub(crate) fn refuse_with_reason(
        &mut self,
        refusal: Refusal,
        reason: Option<Reason>,
    ) -> (Result<(), Refusal>, Option<Waker>) {
        let refusal = if self.is_stopping {
            Refusal::SessionEnded
        } else {
            refusal
        };
        // What was dropped on purpose is no loss, and leaves no gap.
        if !matches!(refusal, Refusal::SessionEnded | Refusal::Scrubbed) {
            self.next_index += 1;
        }
        let needs_wake = self.note_refused(refusal, reason);
        (
            Err(refusal),
            if needs_wake { self.driver.wake() } else { None },
        )
    }

    /// Counts a fatal exception that is not to be sent; the session ends all the same.
    #[cfg(feature = "std")]
    pub(crate) fn refuse_fatal(
        &mut self,
        refusal: Refusal,
        reason: Option<Reason>,
        tail: &SessionEnd,
    ) -> (Result<(), Refusal>, Option<Waker>) {
        let (result, waker) = self.refuse_with_reason(refusal, reason);
        if !self.is_stopping {
            self.queue_end(tail);
            self.make_all_due();
        }
        // A waker comes out once: the one from above must not get lost.
        (result, waker.or_else(|| self.driver.wake()))
    }

    /// Counts an accepted event of which something was left out.
    pub(crate) fn note_truncated(&mut self) {
        self.ledger.truncated += 1;
    }

    /// Puts an event into the ring, unless a limit forbids it. A fatal exception may use the reserve.
    #[inline]
    fn admit<R>(
        &mut self,
        body_len: usize,
        index: u64,
        is_fatal: bool,
        put: impl FnOnce(&mut Ring, EventPrefix) -> Result<R, NoRoom>,
    ) -> Result<R, Refusal> {
        let front = EventPrefix::new(self.random.uuid(), index);
        let len = front.len() + body_len;
        if len > self.options.max_event_bytes {
            return Err(Refusal::EventTooLarge);
        }
        let (mut size, mut bytes) = (self.options.max_queue_size, self.options.max_queue_bytes);
        if is_fatal {
            size = size.saturating_add(1);
            bytes += self.options.max_event_bytes + HEADER;
        }
        if self.ring.records() >= size || self.ring.used() + HEADER + len > bytes {
            return Err(Refusal::QueueFull);
        }
        let put = put(&mut self.ring, front).map_err(|_| Refusal::QueueFull)?;
        self.bytes_since_flush += len;
        Ok(put)
    }

    /// Counts an accepted event. True when the driver should look.
    fn note_accepted(&mut self) -> bool {
        self.ledger.accepted += 1;
        let is_first_after_end =
            !self.end.is_open() && !core::mem::replace(&mut self.logged_after_end_reported, true);
        if is_first_after_end {
            self.notices.add(DiagnosticKind::LoggedAfterEnd, 1);
        }
        let since_flush = self.ledger.accepted - self.flush_watermark.0.max(self.ledger.settled());
        let is_due = since_flush >= self.options.flush_threshold as u64
            || self.bytes_since_flush >= self.options.batch_budget;
        if is_due {
            self.make_all_due();
        }
        // While a batch is in flight the driver looks again by itself. The first event of a queue arms the timer.
        let needs_wake = self.in_flight.is_none() && (is_due || self.queued() == 1);
        needs_wake || is_first_after_end
    }

    /// Counts a refused event. True when the driver should tell.
    fn note_refused(&mut self, refusal: Refusal, reason: Option<Reason>) -> bool {
        *self.ledger.refused.of(refusal) += 1;
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
                Refusal::SessionEnded | Refusal::Disabled | Refusal::Forked | Refusal::Scrubbed,
                _,
            ) => false,
        }
    }

    pub(super) fn make_all_due(&mut self) {
        self.flush_watermark = Watermark(self.ledger.accepted);
        self.bytes_since_flush = 0;
    }
}
