//! What comes in: events that are queued, and events that are refused.

use super::{Engine, Kind, Target};
use crate::diagnostic::DiagnosticKind;
use crate::engine::ring::{HEADER, NoRoom, Ring};
use crate::event::encode::Front;
#[cfg(feature = "std")]
use crate::event::encode::SessionEnd;
use crate::stats::Refusal;
use crate::text::Why;
use core::task::Waker;

impl Engine {
    /// Takes an event: everything of its JSON behind id and index. The waker, if any, is to be woken.
    #[cfg(any(test, feature = "std"))]
    pub(crate) fn push(
        &mut self,
        body: &[u8],
        kind: Kind<'_>,
    ) -> (Result<(), Refusal>, Option<Waker>) {
        self.take(body.len(), kind, |ring, front| {
            ring.push(front.index, front.len(), |out| front.write(out), body)
        })
    }

    /// Takes an event that `put` puts into the ring.
    #[inline]
    pub(super) fn take<R>(
        &mut self,
        body_len: usize,
        kind: Kind<'_>,
        put: impl FnOnce(&mut Ring, Front) -> Result<R, NoRoom>,
    ) -> (Result<R, Refusal>, Option<Waker>) {
        if self.is_stopping {
            self.note_refused(Refusal::SessionEnded, None);
            return (Err(Refusal::SessionEnded), None);
        }
        let index = self.next_index;
        let is_fatal = matches!(kind, Kind::Fatal(_));
        let result = self.admit(body_len, index, is_fatal, put);
        self.next_index += 1;
        let news = match result {
            Ok(_) => self.note_accepted(),
            Err(reason) => self.note_refused(reason, None),
        };
        if let Kind::Fatal(tail) = kind {
            self.notices.add(DiagnosticKind::ExceptionLogged, 1);
            self.queue_end(tail);
        }
        if matches!(kind, Kind::Ordinary) && !news {
            return (result, None);
        }
        if !matches!(kind, Kind::Ordinary) {
            self.make_all_due();
        }
        (result, self.driver.wake())
    }

    /// Counts an event that did not get so far as to be pushed, and says why it could not be encoded.
    pub(crate) fn refuse_because(
        &mut self,
        reason: Refusal,
        why: Option<Why>,
    ) -> (Result<(), Refusal>, Option<Waker>) {
        let reason = if self.is_stopping {
            Refusal::SessionEnded
        } else {
            reason
        };
        // What was dropped on purpose is no loss, and leaves no gap.
        if !matches!(reason, Refusal::SessionEnded | Refusal::Scrubbed) {
            self.next_index += 1;
        }
        let news = self.note_refused(reason, why);
        (Err(reason), if news { self.driver.wake() } else { None })
    }

    /// Counts a fatal exception that is not to be sent; the session ends all the same.
    #[cfg(feature = "std")]
    pub(crate) fn refuse_fatal(
        &mut self,
        reason: Refusal,
        why: Option<Why>,
        tail: &SessionEnd,
    ) -> (Result<(), Refusal>, Option<Waker>) {
        let (result, waker) = self.refuse_because(reason, why);
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
        put: impl FnOnce(&mut Ring, Front) -> Result<R, NoRoom>,
    ) -> Result<R, Refusal> {
        let front = Front::new(self.random.uuid(), index);
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
        self.fresh_bytes += len;
        Ok(put)
    }

    /// Counts an accepted event. True when the driver should look.
    fn note_accepted(&mut self) -> bool {
        self.ledger.accepted += 1;
        let is_first_after_end =
            !self.end.is_open() && !core::mem::replace(&mut self.is_after_end_told, true);
        if is_first_after_end {
            self.notices.add(DiagnosticKind::LoggedAfterEnd, 1);
        }
        let fresh = self.ledger.accepted - self.flush_target.0.max(self.ledger.settled());
        let is_due = fresh >= self.options.flush_threshold as u64
            || self.fresh_bytes >= self.options.batch_budget;
        if is_due {
            self.make_all_due();
        }
        // While a batch is in flight the driver looks again by itself. The first event of a queue arms the timer.
        let is_news = self.in_flight.is_none() && (is_due || self.queued() == 1);
        is_news || is_first_after_end
    }

    /// Counts a refused event. True when the driver should tell.
    fn note_refused(&mut self, reason: Refusal, why: Option<Why>) -> bool {
        *self.ledger.refused.of(reason) += 1;
        match (reason, why) {
            (Refusal::QueueFull, _) => self.notices.add(DiagnosticKind::QueueFull, 1),
            (Refusal::EventTooLarge, _) => self.notices.add(DiagnosticKind::EventTooLarge, 1),
            (Refusal::Unencodable, why) => {
                let why = why.unwrap_or_default();
                self.notices.add_why(DiagnosticKind::Unencodable, 1, why)
            }
            (Refusal::ScrubPanicked, why) => {
                let why = why.unwrap_or_default();
                self.notices.add_why(DiagnosticKind::ScrubPanicked, 1, why)
            }
            (
                Refusal::SessionEnded | Refusal::Disabled | Refusal::Forked | Refusal::Scrubbed,
                _,
            ) => false,
        }
    }

    pub(super) fn make_all_due(&mut self) {
        self.flush_target = Target(self.ledger.accepted);
        self.fresh_bytes = 0;
    }
}
