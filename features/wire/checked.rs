//! The result of the check: a body known to be valid, and its events.

use alloc::{borrow::Cow, vec::Vec};
use core::fmt;

/// A request body that passed the check, borrowed from its bytes.
#[derive(Clone, Debug)]
pub struct Checked<'a> {
    pub(crate) session_id: Cow<'a, str>,
    pub(crate) platform: Cow<'a, str>,
    pub(crate) sdk_version: Cow<'a, str>,
    pub(crate) process_uuid: Option<Cow<'a, str>>,
    pub(crate) events: Vec<CheckedEvent<'a>>,
}

impl<'a> Checked<'a> {
    /// The session that the events belong to; never empty.
    pub fn session_id(&self) -> &str {
        &self.session_id
    }

    /// The sender's platform, `family/os`.
    pub fn platform(&self) -> &str {
        &self.platform
    }

    /// The sender's version.
    pub fn sdk_version(&self) -> &str {
        &self.sdk_version
    }

    /// The sender's process; optional.
    pub fn process_uuid(&self) -> Option<&str> {
        self.process_uuid.as_deref()
    }

    /// The events: at least one, in strictly increasing order of index.
    pub fn events(&self) -> &[CheckedEvent<'a>] {
        &self.events
    }
}

/// An event that passed the check, borrowed from the request's body.
#[derive(Clone, Debug)]
pub struct CheckedEvent<'a> {
    pub(crate) kind: EventKind,
    pub(crate) id: Cow<'a, str>,
    pub(crate) index: u64,
    pub(crate) severity: &'static str,
    pub(crate) json: &'a str,
}

impl<'a> CheckedEvent<'a> {
    /// Which of the four kinds of event it is.
    pub fn kind(&self) -> EventKind {
        self.kind
    }

    /// Its `event_id`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its `event_session_index`.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Its `severity`, in upper case.
    pub fn severity(&self) -> &'static str {
        self.severity
    }

    /// The whole event, as it was written.
    pub fn json(&self) -> &'a str {
        self.json
    }
}

/// The four kinds of event on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// `SESSION_START`
    SessionStart,
    /// `SESSION_END`
    SessionEnd,
    /// `GENERIC_EVENT`
    GenericEvent,
    /// `UNHANDLED_EXCEPTION`
    UnhandledException,
}

impl EventKind {
    pub(crate) const ALL: [Self; 4] = [
        Self::SessionStart,
        Self::SessionEnd,
        Self::GenericEvent,
        Self::UnhandledException,
    ];

    /// Its name on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SessionStart => "SESSION_START",
            Self::SessionEnd => "SESSION_END",
            Self::GenericEvent => "GENERIC_EVENT",
            Self::UnhandledException => "UNHANDLED_EXCEPTION",
        }
    }

    /// Its keys, besides the common ones.
    pub(crate) const fn own_keys(self) -> &'static [&'static str] {
        match self {
            Self::SessionStart => &[],
            Self::SessionEnd => &["duration"],
            Self::GenericEvent => &["event_name", "event_data"],
            Self::UnhandledException => &["error_type", "error_message", "traceback"],
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
