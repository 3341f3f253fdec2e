//! Diagnostics: what the reporter says about itself, counted at the source and reported at a limited rate.

use crate::stats::DropReason;
use crate::text::Reason;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;

/// A diagnostic of the reporter, passed to the observer set with
/// [`Builder::on_diagnostic`](crate::session::Builder::on_diagnostic), or else to the `log` facade.
///
/// The first diagnostic of a kind is reported at once, further ones at most every 10 s; `count` covers the time since
/// the last report. [`Display`](fmt::Display) prints one line, which never contains the API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Diagnostic<'a> {
    /// What happened.
    pub kind: DiagnosticKind,
    /// The number of events, or of failed attempts, since the last report.
    pub count: u64,
    /// The reason, as given by the transport or the encoder; may be empty.
    pub reason: &'a str,
    /// The id of the session.
    pub session_id: &'a str,
    /// The limit that was reached: `max_queue_size`, `max_event_bytes` or `max_retries`, depending on the kind; `None`
    /// where the kind has no limit.
    pub limit: Option<usize>,
}

/// The kind of a [`Diagnostic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// Events were refused because the queue was full.
    QueueFull,
    /// Events were refused because they were larger than `max_event_bytes`.
    EventTooLarge,
    /// Events were refused because they could not be encoded; `reason` describes the first.
    Unencodable,
    /// An attempt failed and will be retried.
    AttemptFailed,
    /// A batch was dropped after its last attempt.
    RetriesExhausted,
    /// A batch was dropped because the backend rejected it permanently.
    Rejected,
    /// A single event was dropped because the backend found it too large.
    TooLarge,
    /// Events were dropped because a stop reached its deadline.
    Shutdown,
    /// A fatal exception was logged.
    ExceptionLogged,
    /// Events were logged after a fatal exception had ended the session. They are still sent.
    LoggedAfterEnd,
    /// Events were refused because the scrub hook panicked; `reason` describes the first.
    ScrubPanicked,
    /// The backend sent an informational message about the session; `reason` is its text.
    BackendInfo,
    /// The backend sent a warning about the session; `reason` is its text.
    BackendWarning,
    /// The backend reported an error about the session; `reason` is its text.
    BackendError,
    /// Requests are paused in the backend's queue; `reason` says why.
    QueuePaused,
    /// Heartbeats have been failing for a while; `reason` says for how long, or that the backend has ended the session.
    HeartbeatLost,
    /// A setting does not do what it seems to, or exposes the API key; `reason` names it. Reported when a session is
    /// built, whether it is switched off or not.
    Setting,
}

impl DiagnosticKind {
    /// The number of kinds that are counted at the source and reported by the driver: the first ones.
    const COUNT: usize = if cfg!(feature = "std") { 11 } else { 10 };

    /// The counted kinds, in the order of their slots.
    const COUNTED: [Self; Self::COUNT] = [
        Self::QueueFull,
        Self::EventTooLarge,
        Self::Unencodable,
        Self::AttemptFailed,
        Self::RetriesExhausted,
        Self::Rejected,
        Self::TooLarge,
        Self::Shutdown,
        Self::ExceptionLogged,
        Self::LoggedAfterEnd,
        #[cfg(feature = "std")]
        Self::ScrubPanicked,
    ];

    /// The kind that reports events dropped for this reason.
    pub(crate) const fn of(reason: DropReason) -> Self {
        match reason {
            DropReason::RetriesExhausted => Self::RetriesExhausted,
            DropReason::Rejected => Self::Rejected,
            DropReason::TooLarge => Self::TooLarge,
            DropReason::Shutdown => Self::Shutdown,
        }
    }

    /// The level at which the default observer logs this kind.
    #[must_use]
    pub const fn level(self) -> log::Level {
        match self {
            Self::AttemptFailed => log::Level::Debug,
            Self::ExceptionLogged | Self::BackendInfo => log::Level::Info,
            Self::BackendError => log::Level::Error,
            _ => log::Level::Warn,
        }
    }
}

impl fmt::Display for Diagnostic<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            count,
            reason,
            limit,
            ..
        } = self;
        let limit = limit.unwrap_or_default();
        match self.kind {
            DiagnosticKind::QueueFull => {
                write!(f, "Telemetry queue full ({limit}), dropping event ({count} refused)")
            }
            DiagnosticKind::EventTooLarge => {
                write!(f, "Telemetry event larger than {limit} bytes, dropping event ({count} refused)")
            }
            DiagnosticKind::Unencodable => {
                write!(f, "Telemetry event cannot be encoded, dropping event ({count} refused): {reason}")
            }
            DiagnosticKind::AttemptFailed => {
                write!(f, "Telemetry send failed, will retry ({count} attempts): {reason}")
            }
            DiagnosticKind::RetriesExhausted => {
                write!(f, "Telemetry send failed after {limit} retries: {reason} ({count} events dropped)")
            }
            DiagnosticKind::Rejected => {
                write!(f, "Telemetry rejected by the backend: {reason} ({count} events dropped)")
            }
            DiagnosticKind::TooLarge => {
                write!(f, "Telemetry event too large for the backend: {reason} ({count} events dropped)")
            }
            DiagnosticKind::Shutdown => {
                write!(f, "Telemetry stopped before everything was sent ({count} events dropped)")
            }
            DiagnosticKind::ExceptionLogged => {
                write!(f, "Exception logged for session ID: {}", self.session_id)
            }
            DiagnosticKind::ScrubPanicked => {
                write!(f, "Telemetry scrub hook panicked, dropping event ({count} refused): {reason}")
            }
            DiagnosticKind::LoggedAfterEnd => f.write_str(
                "Telemetry events logged after a fatal exception ended the session; they are still sent",
            ),
            DiagnosticKind::BackendInfo
            | DiagnosticKind::BackendWarning
            | DiagnosticKind::BackendError
            | DiagnosticKind::QueuePaused
            | DiagnosticKind::HeartbeatLost
            | DiagnosticKind::Setting => f.write_str(reason),
        }
    }
}

/// Receives diagnostics.
pub(crate) enum Observer {
    /// The `log` facade.
    Log,
    #[cfg(not(feature = "alloc"))]
    Function(fn(&Diagnostic<'_>)),
    #[cfg(feature = "alloc")]
    Boxed(alloc::boxed::Box<dyn Fn(&Diagnostic<'_>) + Send + Sync>),
}

impl Observer {
    /// Passes on a diagnostic. With `std`, a panic of the observer is caught and ignored.
    pub(crate) fn notify(&self, diagnostic: &Diagnostic<'_>) {
        let notify = || match self {
            Self::Log => {
                log::log!(target: "tinkex_telemetry", diagnostic.kind.level(), "{diagnostic}")
            }
            #[cfg(not(feature = "alloc"))]
            Self::Function(observe) => observe(diagnostic),
            #[cfg(feature = "alloc")]
            Self::Boxed(observe) => observe(diagnostic),
        };
        let _ = crate::sys::panics::catch(notify);
    }
}

/// A diagnostic on its way from the engine to the observer.
pub(crate) struct Notice {
    pub(crate) kind: DiagnosticKind,
    pub(crate) count: u64,
    pub(crate) reason: Reason,
}

/// What has happened and has not been reported yet, by kind.
#[derive(Default)]
pub(crate) struct Notices {
    counts: [u32; DiagnosticKind::COUNT],
    quiet_until: [QuietUntil; DiagnosticKind::COUNT],
    reasons: Reasons,
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

/// The pending reason of each kind: for refusals the first since the last report, for batches the latest.
#[cfg(feature = "alloc")]
#[derive(Default)]
struct Reasons {
    unencodable: Reason,
    scrub: Reason,
    send: Reason,
}

#[cfg(feature = "alloc")]
impl Reasons {
    fn set(&mut self, kind: DiagnosticKind, reason: Reason) {
        match kind {
            DiagnosticKind::Unencodable => self.unencodable = reason,
            DiagnosticKind::ScrubPanicked => self.scrub = reason,
            _ => self.send = reason,
        }
    }

    fn get(&self, kind: DiagnosticKind) -> Reason {
        match kind {
            DiagnosticKind::Unencodable => self.unencodable.clone(),
            DiagnosticKind::ScrubPanicked => self.scrub.clone(),
            _ => self.send.clone(),
        }
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
            DiagnosticKind::Unencodable | DiagnosticKind::ScrubPanicked
        );
        if is_first || !is_refusal {
            self.reasons.set(kind, reason);
        }
        is_first
    }

    /// The next kind to report. `all` includes kinds that were reported less than 10 s ago.
    pub(crate) fn next(&mut self, now: Instant, all: bool) -> Option<Notice> {
        let may_report = |until: QuietUntil| all || until.end() <= now;
        let is_due = |kind: &&DiagnosticKind| {
            let at = **kind as usize;
            self.counts[at] > 0 && may_report(self.quiet_until[at])
        };
        let kind = *DiagnosticKind::COUNTED.iter().find(is_due)?;
        self.quiet_until[kind as usize] = QuietUntil::new(now.checked_add(Self::INTERVAL));
        Some(Notice {
            kind,
            count: core::mem::take(&mut self.counts[kind as usize]).into(),
            reason: match kind {
                DiagnosticKind::Unencodable
                | DiagnosticKind::ScrubPanicked
                | DiagnosticKind::AttemptFailed
                | DiagnosticKind::RetriesExhausted
                | DiagnosticKind::Rejected
                | DiagnosticKind::TooLarge => self.reasons.get(kind),
                _ => Reason::default(),
            },
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
    fn kinds_are_in_the_order_of_their_slots() {
        for (at, kind) in DiagnosticKind::COUNTED.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[test]
    fn a_diagnostic_is_one_line_that_names_count_and_reason() {
        let diagnostic = Diagnostic {
            kind: DiagnosticKind::RetriesExhausted,
            count: 100,
            reason: "connection refused",
            session_id: "s",
            limit: Some(3),
        };
        assert_eq!(
            diagnostic.to_string(),
            "Telemetry send failed after 3 retries: connection refused (100 events dropped)"
        );
    }
}
