//! Diagnostics: what the reporter says about itself, counted at the source and reported at a limited rate.

use crate::stats::DropReason;
use core::fmt;

#[cfg(feature = "std")]
use crate::sys::console;

/// A diagnostic of the reporter, passed to the observer set with
/// [`Builder::on_diagnostic`](crate::session::Builder::on_diagnostic), or else to the `log` facade.
///
/// The first diagnostic of a kind is reported at once, further ones at most every 10 s, or when a wait ends that has seen
/// losses, a session stops, or its driver is dropped; `count` covers the time since the last report. [`Display`](fmt::Display) prints one line, which never contains the API key.
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
    /// The limit that was reached, as a number of events, bytes or retries; `None` where the kind has no limit.
    pub limit: Option<usize>,
    /// The option that sets the limit, or `static memory` if the size of the session's
    /// [`Memory`](crate::session::Memory) does. `None` where the kind has no limit, or more memory could not be allocated.
    pub limit_name: Option<&'static str>,
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
    /// Events were dropped because a stop reached its deadline; `reason` says why they had not been sent by then.
    Shutdown,
    /// A fatal exception was logged.
    ExceptionLogged,
    /// Events were logged after a fatal exception had ended the session. They are still sent.
    LoggedAfterEnd,
    /// There is no driver to send what is queued, `count` events: its executor has ended, or it was dropped. Reported when
    /// that happens, and for the first event that is accepted after it.
    NoDriver,
    /// What a handle should carry with its events was cut, or left out because it cannot be encoded; `count` is how many
    /// handles, and `reason` says which of the two the first is. See [`Handle::with_in`](crate::Handle::with_in).
    ContextIncomplete,
    /// With [`GiveUp::WhenFull`](crate::GiveUp::WhenFull): four attempts in a row have failed, and `count` events wait;
    /// `reason` is the last attempt's.
    BackendAway,
    /// The backend is back after `count` failed attempts, of which [`BackendAway`](Self::BackendAway) told.
    BackendReturned,
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
    /// Calls of a client have been under way for long, `count` of them; `reason` describes the oldest.
    RequestStalled,
    /// Heartbeats have been failing for a while; `reason` says for how long, or that the backend has ended the session.
    HeartbeatLost,
    /// A setting does not do what it seems to, or exposes the API key; `reason` names it. Reported when a session is
    /// built, whether it is switched off or not.
    Setting,
    /// A client has been waiting for the backend to create its session; `reason` says where and for how long. Always
    /// logged, since there is no session yet whose observer could have it.
    Connecting,
}

impl DiagnosticKind {
    /// The number of kinds that are counted at the source and reported by the driver: the first ones.
    pub(crate) const COUNT: usize = if cfg!(feature = "std") {
        15
    } else if cfg!(feature = "alloc") {
        14
    } else {
        12
    };

    /// The counted kinds, in the order of their slots.
    pub(crate) const COUNTED: [Self; Self::COUNT] = [
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
        Self::NoDriver,
        Self::ContextIncomplete,
        #[cfg(feature = "alloc")]
        Self::BackendAway,
        #[cfg(feature = "alloc")]
        Self::BackendReturned,
        #[cfg(feature = "std")]
        Self::ScrubPanicked,
    ];

    /// The kind that reports events dropped for this reason. What the program itself discards is not reported.
    pub(crate) const fn of(reason: DropReason) -> Self {
        match reason {
            DropReason::RetriesExhausted => Self::RetriesExhausted,
            DropReason::Rejected => Self::Rejected,
            DropReason::TooLarge => Self::TooLarge,
            DropReason::Shutdown | DropReason::Discarded => Self::Shutdown,
        }
    }

    /// Whether events are lost.
    #[cfg(feature = "std")]
    pub(crate) const fn is_loss(self) -> bool {
        matches!(
            self,
            Self::QueueFull
                | Self::EventTooLarge
                | Self::Unencodable
                | Self::RetriesExhausted
                | Self::Rejected
                | Self::TooLarge
                | Self::Shutdown
                | Self::ScrubPanicked
        )
    }

    /// Whether a batch was given up, so that its attempts must be reported before.
    pub(crate) const fn is_final(self) -> bool {
        matches!(
            self,
            Self::RetriesExhausted | Self::Rejected | Self::TooLarge | Self::Shutdown
        )
    }

    /// Its name, as `queue_full`, for metrics and filters.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::EventTooLarge => "event_too_large",
            Self::Unencodable => "unencodable",
            Self::AttemptFailed => "attempt_failed",
            Self::RetriesExhausted => "retries_exhausted",
            Self::Rejected => "rejected",
            Self::TooLarge => "too_large",
            Self::Shutdown => "shutdown",
            Self::ExceptionLogged => "exception_logged",
            Self::LoggedAfterEnd => "logged_after_end",
            Self::NoDriver => "no_driver",
            Self::ContextIncomplete => "context_incomplete",
            Self::ScrubPanicked => "scrub_panicked",
            Self::BackendInfo => "backend_info",
            Self::BackendWarning => "backend_warning",
            Self::BackendError => "backend_error",
            Self::QueuePaused => "queue_paused",
            Self::RequestStalled => "request_stalled",
            Self::HeartbeatLost => "heartbeat_lost",
            Self::Setting => "setting",
            Self::Connecting => "connecting",
            Self::BackendAway => "backend_away",
            Self::BackendReturned => "backend_returned",
        }
    }

    /// The level at which the default observer logs this kind.
    #[must_use]
    pub const fn level(self) -> log::Level {
        match self {
            Self::AttemptFailed => log::Level::Debug,
            Self::ExceptionLogged | Self::BackendInfo | Self::BackendReturned => log::Level::Info,
            Self::BackendError => log::Level::Error,
            _ => log::Level::Warn,
        }
    }
}

impl fmt::Display for DiagnosticKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
        let events = Counted(*count, "event");
        match self.kind {
            DiagnosticKind::QueueFull => match self.limit_name {
                Some(name) => {
                    write!(f, "Telemetry queue full ({name}: {limit}), dropping event ({count} refused)")
                }
                None => {
                    write!(f, "Telemetry queue full (no memory beyond {limit} bytes), dropping event ({count} refused)")
                }
            },
            DiagnosticKind::EventTooLarge => {
                write!(f, "Telemetry event larger than {limit} bytes, dropping event ({count} refused)")
            }
            DiagnosticKind::Unencodable => {
                write!(f, "Telemetry event cannot be encoded, dropping event ({count} refused): {reason}")
            }
            DiagnosticKind::AttemptFailed => {
                let attempts = Counted(*count, "attempt");
                write!(f, "Telemetry send failed, will retry ({attempts}): {reason}")
            }
            DiagnosticKind::RetriesExhausted => {
                let retries = Counted(limit as u64, "retry");
                write!(f, "Telemetry send failed after {retries}: {reason} ({events} dropped)")
            }
            DiagnosticKind::Rejected => {
                write!(f, "Telemetry rejected by the backend: {reason} ({events} dropped)")
            }
            DiagnosticKind::TooLarge => {
                write!(f, "Telemetry event too large for the backend: {reason} ({events} dropped)")
            }
            DiagnosticKind::Shutdown => {
                write!(f, "Telemetry stopped before everything was sent: {reason} ({events} dropped)")
            }
            DiagnosticKind::NoDriver => {
                write!(f, "Telemetry has no driver to send what is queued, which has ended with its executor or was dropped ({events} queued)")
            }
            DiagnosticKind::ContextIncomplete => {
                let handles = Counted(*count, "handle");
                write!(f, "Telemetry context incomplete ({handles}): {reason}")
            }
            DiagnosticKind::BackendAway => {
                write!(f, "Telemetry backend is away, will keep trying: {reason} ({events} queued)")
            }
            DiagnosticKind::BackendReturned => {
                let attempts = Counted(*count, "attempt");
                write!(f, "Telemetry backend is back ({attempts} had failed)")
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
            | DiagnosticKind::RequestStalled
            | DiagnosticKind::HeartbeatLost
            | DiagnosticKind::Setting
            | DiagnosticKind::Connecting => f.write_str(reason),
        }
    }
}

/// A count with its noun, which ends in `s` or, after a `y`, in `ies` unless it is one.
struct Counted(u64, &'static str);

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(count, noun) = *self;
        match noun.strip_suffix('y') {
            _ if count == 1 => write!(f, "{count} {noun}"),
            Some(stem) => write!(f, "{count} {stem}ies"),
            None => write!(f, "{count} {noun}s"),
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
    /// Passes on a diagnostic. Returns false if nothing listens. With `std`, a panic of the observer is caught and
    /// ignored.
    pub(crate) fn notify(&self, diagnostic: &Diagnostic<'_>) -> bool {
        let notify = || match self {
            Self::Log => to_log(diagnostic),
            #[cfg(not(feature = "alloc"))]
            Self::Function(observe) => {
                observe(diagnostic);
                true
            }
            #[cfg(feature = "alloc")]
            Self::Boxed(observe) => {
                observe(diagnostic);
                true
            }
        };
        crate::sys::panics::catch(notify).unwrap_or(true)
    }

    /// Whether nothing listens, and `TINKER_LOG` asks neither for diagnostics nor for silence.
    #[cfg(feature = "std")]
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Log) && !has_logger() && console::wanted() == console::Wanted::Losses
    }

    /// Looks at `TINKER_LOG`, if it counts, to report a value that is unknown.
    #[cfg(feature = "std")]
    pub(crate) fn check_console(&self) {
        let _ = self.is_silent();
    }
}

/// Whether the program has a logger that takes warnings, such as those of losses, from this crate. One that takes none,
/// as where a subscriber's filter for all layers leaves them out, is as good as none.
#[cfg(feature = "std")]
pub(crate) fn has_logger() -> bool {
    let takes_warnings = || log::log_enabled!(target: "tinkex_telemetry", log::Level::Warn);
    // With `max_level` off, this asks no logger.
    crate::sys::panics::catch(takes_warnings).unwrap_or(true)
}

/// Logs a diagnostic; to stderr if the program has no logger and `TINKER_LOG` asks for it.
fn to_log(diagnostic: &Diagnostic<'_>) -> bool {
    let level = diagnostic.kind.level();
    #[cfg(feature = "std")]
    if !has_logger() {
        return match console::wanted() {
            console::Wanted::Losses => false,
            console::Wanted::Nothing => true,
            console::Wanted::Level(least) => {
                if level <= least {
                    let id = diagnostic.session_id;
                    console::write_line(format_args!("{level} {diagnostic} [session {id:?}]"));
                }
                true
            }
        };
    }
    log::log!(target: "tinkex_telemetry", level, "{diagnostic}");
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn one_is_singular() {
        assert_eq!(Counted(1, "event").to_string(), "1 event");
        assert_eq!(Counted(0, "event").to_string(), "0 events");
        assert_eq!(Counted(1, "retry").to_string(), "1 retry");
        assert_eq!(Counted(3, "retry").to_string(), "3 retries");
    }

    #[test]
    fn kinds_are_in_the_order_of_their_slots() {
        for (at, kind) in DiagnosticKind::COUNTED.into_iter().enumerate() {
            assert_eq!(kind as usize, at);
        }
    }

    #[test]
    fn a_kind_displays_as_its_name() {
        assert_eq!(DiagnosticKind::QueueFull.to_string(), "queue_full");
        assert_eq!(DiagnosticKind::Shutdown.to_string(), "shutdown");
    }

    #[test]
    fn a_diagnostic_is_one_line_that_names_count_and_reason() {
        let diagnostic = Diagnostic {
            kind: DiagnosticKind::RetriesExhausted,
            count: 100,
            reason: "connection refused",
            session_id: "s",
            limit: Some(3),
            limit_name: Some("max_retries"),
        };
        assert_eq!(
            diagnostic.to_string(),
            "Telemetry send failed after 3 retries: connection refused (100 events dropped)"
        );
    }
}
