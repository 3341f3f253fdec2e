//! The gate: whether a session takes events at the moment, and how severe they must be; decided with one load.

use super::handle::Handle;
use super::shared::Shared;
use crate::engine::Priority;
use crate::event::severity::Severity;
use crate::stats::Refusal;
use crate::sys::fork::Forked;
use core::sync::atomic::{AtomicU8, Ordering};

/// # Consent and severity
///
/// What a session takes can change while it runs. To look at both settings costs `log` one relaxed load.
impl Handle {
    /// Switches the session off, or on again: while it is off, every event is refused as
    /// [`Disabled`](crate::stats::Refusal::Disabled), at once and without an index. Nothing that is logged afterwards, on
    /// any thread, is accepted. What was queued before is sent as ever; [`discard`](Self::discard) drops it.
    ///
    /// A session that is off logs nothing by itself, either: a fatal exception does not end it, and a stop ends it
    /// without `SESSION_END`. Switched on again before a stop, it continues as if nothing had been logged meanwhile.
    ///
    /// Does nothing to a handle without a session: telemetry that was off when the session was built stays off.
    ///
    /// ```
    /// # fn example(telemetry: &tinkex_telemetry::Handle) {
    /// fn on_consent_changed(telemetry: &tinkex_telemetry::Handle, consents: bool) {
    ///     telemetry.set_enabled(consents);
    ///     if !consents {
    ///         telemetry.discard(); // what is queued is dropped
    ///     }
    /// }
    /// # on_consent_changed(telemetry, false);
    /// # }
    /// # example(&tinkex_telemetry::Handle::off());
    /// ```
    pub fn set_enabled(&self, is_enabled: bool) {
        if let Some(session) = self.session() {
            let shared = session.shared();
            // Under the lock, as every change of the gate.
            let _ = shared.with(|engine| {
                engine.set_enabled(is_enabled);
                shared.gate.set_closed(!is_enabled);
            });
        }
    }

    /// Discards everything that is queued, `SESSION_END` included, and counts it as
    /// [`Discarded`](crate::stats::DropReason::Discarded). Returns how many events these were.
    ///
    /// They start no request any more. The attempt under way is abandoned when the driver is polled next, which happens
    /// at once where an executor runs it: what the backend has by then cannot be recalled, and a blocking HTTP client
    /// finishes the call that it has begun. Its events count as discarded in any case. Waits and stops end at once. The
    /// session goes on: call [`set_enabled(false)`](Self::set_enabled) before, or it accepts the next event.
    ///
    /// What the transport has taken over is no longer the session's: a spool still sends what is on its disk, unless its
    /// directory is removed.
    ///
    /// Without an allocator a transport may begin, or go on with, the attempt under way until it is polled a second time.
    ///
    /// In the child of a `fork()` it does nothing: the queue is the parent's.
    pub fn discard(&self) -> u64 {
        let discarded = self.session().map(|session| {
            let discarded = session.shared().update(|engine| engine.discard());
            discarded.unwrap_or(0)
        });
        discarded.unwrap_or(0)
    }

    /// Sets the lowest severity that the session takes, from now on; [`Options::min_severity`](crate::Options) is the
    /// one that it begins with. A milder event is refused as
    /// [`BelowMinSeverity`](crate::stats::Refusal::BelowMinSeverity), without an index, and at once unless it is an
    /// exception, whose severity is known only when its causes are.
    ///
    /// It holds for all events, automatic ones, those of the bus and of the tracing layer, and exceptions included, but
    /// not for `SESSION_START`, `SESSION_END` and a fatal exception, which ends the session whatever its severity. For
    /// an exception the severity counts with which it would be sent: a user error is a warning. A scrub hook does not
    /// see events that are too mild, and what it makes too mild is refused as well.
    pub fn set_min_severity(&self, severity: Severity) {
        if let Some(session) = self.session() {
            let shared = session.shared();
            let _ = shared.with(|_| shared.gate.set_min_severity(severity));
        }
    }

    /// Whether the session takes events: false if telemetry was off when it was built, and after
    /// [`set_enabled(false)`](Self::set_enabled). An ended session is not off.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.session()
            .is_some_and(|session| !session.shared().gate.is_closed())
    }
}

/// The lowest severity that is admitted, and whether the session is off; changed under the session's lock only.
pub(crate) struct Gate(AtomicU8);

impl Gate {
    /// Beyond every severity, so that one comparison answers both questions.
    const CLOSED: u8 = 0x80;

    pub(super) const fn new(min_severity: Severity) -> Self {
        Self(AtomicU8::new(min_severity as u8))
    }

    /// Whether an event passes; if not, [`refusal`](Self::refusal) has the last word.
    #[inline]
    fn admits(&self, severity: Severity) -> bool {
        severity as u8 >= self.0.load(Ordering::Relaxed)
    }

    /// Runs `work` with the gate open, while nothing else can log to the session.
    pub(super) fn while_open<R>(&self, work: impl FnOnce() -> R) -> R {
        let before = self.0.load(Ordering::Relaxed);
        self.0.store(0, Ordering::Relaxed);
        let result = work();
        self.0.store(before, Ordering::Relaxed);
        result
    }

    fn is_closed(&self) -> bool {
        self.0.load(Ordering::Relaxed) & Self::CLOSED != 0
    }

    #[cold]
    fn refusal(&self, priority: Priority<'_>) -> Option<Refusal> {
        match priority {
            _ if self.is_closed() => Some(Refusal::Disabled),
            Priority::Fatal(_) => None,
            _ => Some(Refusal::BelowMinSeverity),
        }
    }

    fn set_closed(&self, is_closed: bool) {
        let severity = self.0.load(Ordering::Relaxed) & !Self::CLOSED;
        let closed = if is_closed { Self::CLOSED } else { 0 };
        self.0.store(severity | closed, Ordering::Relaxed);
    }

    fn set_min_severity(&self, severity: Severity) {
        let closed = self.0.load(Ordering::Relaxed) & Self::CLOSED;
        self.0.store(severity as u8 | closed, Ordering::Relaxed);
    }
}

impl Shared {
    /// Refuses an event that the gate does not admit.
    #[inline]
    pub(super) fn admit(&self, severity: Severity, priority: Priority<'_>) -> Result<(), Refusal> {
        if self.gate.admits(severity) {
            return Ok(());
        }
        self.refuse_at_gate(priority)
    }

    /// [`admit`](Self::admit) for an error, whose severity is not known yet.
    pub(super) fn admit_error(&self, priority: Priority<'_>) -> Result<(), Refusal> {
        if self.gate.is_closed() {
            return self.refuse_at_gate(priority);
        }
        Ok(())
    }

    #[cold]
    fn refuse_at_gate(&self, priority: Priority<'_>) -> Result<(), Refusal> {
        match self.gate.refusal(priority) {
            Some(refusal) => self
                .update(|engine| engine.refuse_with_reason(refusal, None))
                .unwrap_or_else(|Forked| Err(self.refuse_forked())),
            None => Ok(()),
        }
    }
}
