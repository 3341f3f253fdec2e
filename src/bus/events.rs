//! The events that a session subscribes to on its bus.

use super::{
    HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP, QUEUE_STATE_CHANGE,
    REQUEST_STALL_ENDED, REQUEST_STALLED, USAGE,
};
use crate::text::Str;
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

/// The names of the events that a session subscribes to on its bus. Default: the [automatic ones](Self::AUTOMATIC).
#[derive(Clone, PartialEq, Eq)]
pub struct EventNames(Cow<'static, [Str]>);

impl EventNames {
    /// The events that this crate's HTTP instrumentation, queue state trackers and clients emit.
    pub const AUTOMATIC: [&'static str; 7] = [
        HTTP_REQUEST_START,
        HTTP_REQUEST_STOP,
        HTTP_REQUEST_EXCEPTION,
        QUEUE_STATE_CHANGE,
        REQUEST_STALLED,
        REQUEST_STALL_ENDED,
        USAGE,
    ];

    const DEFAULT: &'static [Str] = &[
        Str::new(HTTP_REQUEST_START),
        Str::new(HTTP_REQUEST_STOP),
        Str::new(HTTP_REQUEST_EXCEPTION),
        Str::new(QUEUE_STATE_CHANGE),
        Str::new(REQUEST_STALLED),
        Str::new(REQUEST_STALL_ENDED),
        Str::new(USAGE),
    ];

    /// A name of this crate's own kind that it never emits. Other names are the application's.
    pub(crate) fn unknown(&self) -> Option<&Str> {
        let is_known = |name: &str| Self::AUTOMATIC.contains(&name);
        let mut names = self.0.iter();
        names.find(|name| name.starts_with("tinkex.") && !is_known(name))
    }

    /// Iterates over the names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl Default for EventNames {
    fn default() -> Self {
        Self(Cow::Borrowed(Self::DEFAULT))
    }
}

impl<S: Into<Str>> FromIterator<S> for EventNames {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let names: Vec<_> = names.into_iter().map(Into::into).collect();
        Self(Cow::Owned(names))
    }
}

impl fmt::Debug for EventNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == *Self::DEFAULT {
            f.write_str("AUTOMATIC")
        } else {
            f.debug_list().entries(self.iter()).finish()
        }
    }
}
