//! What the reporter says of itself: counted where it happens, told by the driver, at most so often.

use crate::text::Why;
use crate::time::Instant;
use core::fmt;
use core::time::Duration;

/// Something the reporter has to say of itself, given to the observer set with
/// [`Builder::on_diagnostic`](crate::Builder::on_diagnostic), or to the `log` facade.
///
/// `count` is how often it happened since the last time it was told: each kind is told at once the first time, then at
/// most every ten seconds. The [`Display`](fmt::Display) form is one line without the session's id. It never contains
/// the API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Diagnostic<'a> {
    /// What happened.
    pub kind: DiagnosticKind,
    /// How many events it concerns.
    pub count: u64,
    /// Why, in words of the transport or the encoder; may be empty.
    pub why: &'a str,
    /// The session it happened in.
    pub session_id: &'a str,
    /// The limit that was met: `max_queue_size`, `max_event_bytes` or `max_retries`, as the kind has it; else 0.
    pub limit: usize,
}

/// The kinds of [`Diagnostic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DiagnosticKind {
    /// Events were refused because the queue is full.
    QueueFull,
    /// Events were refused because they are larger than `max_event_bytes`.
    EventTooLarge,
    /// Events were refused because they cannot be encoded; `why` names the first.
    Unencodable,
    /// An attempt failed and will be repeated.
    AttemptFailed,
    /// A batch was dropped after its last attempt.
    RetriesExhausted,
    /// A batch was dropped because the backend refused it for good.
    Rejected,
    /// A single event was dropped because the backend found it too large.
    TooLarge,
    /// Events were dropped because a stop met its deadline.
    Shutdown,
    /// A fatal exception was logged.
    ExceptionLogged,
    /// Events come in after a fatal exception has ended the session. They are sent all the same.
    LoggedAfterEnd,
    /// Events were refused because the scrub hook panicked; `why` names the first.
    ScrubPanicked,
    /// The backend has something to say of the session; `why` is what.
    BackendInfo,
    /// A warning of the backend's; `why` is what it says.
    BackendWarning,
    /// An error that the backend tells of; `why` is what it says.
    BackendError,
    /// Requests wait in the backend's queue; `why` says for what.
    QueuePaused,
    /// The backend has not heard of the session for a while; `why` says for how long, or that it has given it up.
    HeartbeatLost,
}

impl DiagnosticKind {
    /// How many are counted where they happen, to be told by the driver: the first ones.
    const COUNT: usize = if cfg!(feature = "std") { 11 } else { 10 };

    /// Those, in the order of their slots.
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

    /// How the default observer tells it.
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
            count, why, limit, ..
        } = self;
        match self.kind {
            DiagnosticKind::QueueFull => {
                write!(f, "Telemetry queue full ({limit}), dropping event ({count} refused)")
            }
            DiagnosticKind::EventTooLarge => {
                write!(f, "Telemetry event larger than {limit} bytes, dropping event ({count} refused)")
            }
            DiagnosticKind::Unencodable => {
                write!(f, "Telemetry event cannot be encoded, dropping event ({count} refused): {why}")
            }
            DiagnosticKind::AttemptFailed => {
                write!(f, "Telemetry send failed, will retry ({count} attempts): {why}")
            }
            DiagnosticKind::RetriesExhausted => {
                write!(f, "Telemetry send failed after {limit} retries: {why} ({count} events dropped)")
            }
            DiagnosticKind::Rejected => {
                write!(f, "Telemetry rejected by the backend: {why} ({count} events dropped)")
            }
            DiagnosticKind::TooLarge => {
                write!(f, "Telemetry event too large for the backend: {why} ({count} events dropped)")
            }
            DiagnosticKind::Shutdown => {
                write!(f, "Telemetry stopped before everything was sent ({count} events dropped)")
            }
            DiagnosticKind::ExceptionLogged => {
                write!(f, "Exception logged for session ID: {}", self.session_id)
            }
            DiagnosticKind::ScrubPanicked => {
                write!(f, "Telemetry scrub hook panicked, dropping event ({count} refused): {why}")
            }
            DiagnosticKind::LoggedAfterEnd => f.write_str(
                "Telemetry events logged after a fatal exception ended the session; they are still sent",
            ),
            DiagnosticKind::BackendInfo
            | DiagnosticKind::BackendWarning
            | DiagnosticKind::BackendError
            | DiagnosticKind::QueuePaused
            | DiagnosticKind::HeartbeatLost => f.write_str(why),
        }
    }
}

/// Who is told.
pub(crate) enum Observer {
    /// The `log` facade.
    Log,
    #[cfg(not(feature = "alloc"))]
    Function(fn(&Diagnostic<'_>)),
    #[cfg(feature = "alloc")]
    Boxed(alloc::boxed::Box<dyn Fn(&Diagnostic<'_>) + Send + Sync>),
}

impl Observer {
    /// Tells it. An observer that panics is survived with `std`.
    pub(crate) fn tell(&self, diagnostic: &Diagnostic<'_>) {
        let tell = || match self {
            Self::Log => {
                log::log!(target: "tinkex_telemetry", diagnostic.kind.level(), "{diagnostic}")
            }
            #[cfg(not(feature = "alloc"))]
            Self::Function(observe) => observe(diagnostic),
            #[cfg(feature = "alloc")]
            Self::Boxed(observe) => observe(diagnostic),
        };
        let _ = crate::sys::panics::catch(tell);
    }
}

/// A diagnostic on its way from the engine to the observer.
pub(crate) struct Notice {
    pub(crate) kind: DiagnosticKind,
    pub(crate) count: u64,
    pub(crate) why: Why,
}

/// What has happened and has not been told yet, by kind.
#[derive(Default)]
pub(crate) struct Notices {
    counts: [u32; DiagnosticKind::COUNT],
    quiet_until: [Quiet; DiagnosticKind::COUNT],
    reasons: Reasons,
}

/// Until when a kind is quiet.
#[cfg(feature = "alloc")]
#[derive(Clone, Copy, Default)]
struct Quiet(Option<Instant>);

#[cfg(feature = "alloc")]
impl Quiet {
    const fn until(at: Option<Instant>) -> Self {
        Self(at)
    }

    fn end(self) -> Instant {
        self.0.unwrap_or(Instant::ORIGIN)
    }
}

/// Until when a kind is quiet: where memory is scarce up to two seconds longer, in half of it.
#[cfg(not(feature = "alloc"))]
#[derive(Clone, Copy, Default)]
struct Quiet(u32);

#[cfg(not(feature = "alloc"))]
impl Quiet {
    const SHIFT: u32 = 20;

    fn until(at: Option<Instant>) -> Self {
        let whole = at.map_or(0, |at| (at.as_micros() >> Self::SHIFT) + 1);
        Self(u32::try_from(whole).unwrap_or(u32::MAX))
    }

    const fn end(self) -> Instant {
        Instant::from_micros((self.0 as u64) << Self::SHIFT)
    }
}

/// Why: of the first event of a kind that was refused, until it is told, and of what befell batches last.
#[cfg(feature = "alloc")]
#[derive(Default)]
struct Reasons {
    unencodable: Why,
    scrub: Why,
    send: Why,
}

#[cfg(feature = "alloc")]
impl Reasons {
    fn set(&mut self, kind: DiagnosticKind, why: Why) {
        match kind {
            DiagnosticKind::Unencodable => self.unencodable = why,
            DiagnosticKind::ScrubPanicked => self.scrub = why,
            _ => self.send = why,
        }
    }

    fn get(&self, kind: DiagnosticKind) -> Why {
        match kind {
            DiagnosticKind::Unencodable => self.unencodable.clone(),
            DiagnosticKind::ScrubPanicked => self.scrub.clone(),
            _ => self.send.clone(),
        }
    }
}

/// Where memory is scarce there is one place: what comes later takes it.
#[cfg(not(feature = "alloc"))]
#[derive(Default)]
struct Reasons {
    why: Why,
    is_unencodable: bool,
}

#[cfg(not(feature = "alloc"))]
impl Reasons {
    fn set(&mut self, kind: DiagnosticKind, why: Why) {
        self.is_unencodable = kind == DiagnosticKind::Unencodable;
        self.why = why;
    }

    fn get(&self, kind: DiagnosticKind) -> Why {
        if self.is_unencodable == (kind == DiagnosticKind::Unencodable) {
            self.why.clone()
        } else {
            Why::default()
        }
    }
}

impl Notices {
    const GAP: Duration = Duration::from_secs(10);

    /// Counts something. True when nothing of the kind was waiting to be told, so that somebody should be woken.
    pub(crate) fn add(&mut self, kind: DiagnosticKind, count: u64) -> bool {
        // Other kinds are told by whom they happen to.
        let Some(waiting) = self.counts.get_mut(kind as usize) else {
            return false;
        };
        let is_first = *waiting == 0;
        *waiting = waiting.saturating_add(u32::try_from(count).unwrap_or(u32::MAX));
        is_first
    }

    /// Counts something that has a reason. Of events that were refused the first keeps its reason until it is told; of
    /// what befell batches the last reason counts.
    pub(crate) fn add_why(&mut self, kind: DiagnosticKind, count: u64, why: Why) -> bool {
        let is_first = self.add(kind, count);
        let is_of_event = matches!(
            kind,
            DiagnosticKind::Unencodable | DiagnosticKind::ScrubPanicked
        );
        if is_first || !is_of_event {
            self.reasons.set(kind, why);
        }
        is_first
    }

    /// The next thing to tell. `all` tells also what should still be quiet.
    pub(crate) fn next(&mut self, now: Instant, all: bool) -> Option<Notice> {
        let may_be_told = |until: Quiet| all || until.end() <= now;
        let is_due = |kind: &&DiagnosticKind| {
            let at = **kind as usize;
            self.counts[at] > 0 && may_be_told(self.quiet_until[at])
        };
        let kind = *DiagnosticKind::COUNTED.iter().find(is_due)?;
        self.quiet_until[kind as usize] = Quiet::until(now.checked_add(Self::GAP));
        Some(Notice {
            kind,
            count: core::mem::take(&mut self.counts[kind as usize]).into(),
            why: match kind {
                DiagnosticKind::Unencodable
                | DiagnosticKind::ScrubPanicked
                | DiagnosticKind::AttemptFailed
                | DiagnosticKind::RetriesExhausted
                | DiagnosticKind::Rejected
                | DiagnosticKind::TooLarge => self.reasons.get(kind),
                _ => Why::default(),
            },
        })
    }

    /// When something that waits may be told.
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
    fn ten_thousand_refusals_are_told_twice_in_ten_seconds_and_none_is_lost() {
        let mut notices = Notices::default();
        let (mut told, mut counted) = (0, 0);
        for event in 0..10_000 {
            let now = Instant::from_micros(event * 1_100);
            notices.add(DiagnosticKind::QueueFull, 1);
            while let Some(notice) = notices.next(now, false) {
                told += 1;
                counted += notice.count;
            }
        }
        assert_eq!(told, 2);
        let rest = notices.next(Instant::ORIGIN, true).unwrap();
        assert_eq!(counted + rest.count, 10_000);
    }

    #[test]
    fn kinds_stand_in_the_order_of_their_slots() {
        for (at, kind) in DiagnosticKind::COUNTED.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[test]
    fn a_diagnostic_is_one_line_that_names_count_and_reason() {
        let diagnostic = Diagnostic {
            kind: DiagnosticKind::RetriesExhausted,
            count: 100,
            why: "connection refused",
            session_id: "s",
            limit: 3,
        };
        assert_eq!(
            diagnostic.to_string(),
            "Telemetry send failed after 3 retries: connection refused (100 events dropped)"
        );
    }
}
