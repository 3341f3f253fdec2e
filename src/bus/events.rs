//! Which events a session takes from its bus.

use super::{HTTP_REQUEST_EXCEPTION, HTTP_REQUEST_START, HTTP_REQUEST_STOP, QUEUE_STATE_CHANGE};
use crate::text::Str;
use alloc::borrow::Cow;
use alloc::vec::Vec;
use core::fmt;

/// The names of the events that a session takes from its bus. Default: the [automatic ones](Self::AUTOMATIC).
#[derive(Clone, PartialEq, Eq)]
pub struct Events(Cow<'static, [Str]>);

impl Events {
    /// The events that HTTP clients and the queue's state emit by themselves.
    pub const AUTOMATIC: [&'static str; 4] = [
        HTTP_REQUEST_START,
        HTTP_REQUEST_STOP,
        HTTP_REQUEST_EXCEPTION,
        QUEUE_STATE_CHANGE,
    ];

    const DEFAULT: &'static [Str] = &[
        Str::new(HTTP_REQUEST_START),
        Str::new(HTTP_REQUEST_STOP),
        Str::new(HTTP_REQUEST_EXCEPTION),
        Str::new(QUEUE_STATE_CHANGE),
    ];

    /// The names.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

impl Default for Events {
    fn default() -> Self {
        Self(Cow::Borrowed(Self::DEFAULT))
    }
}

impl<S: Into<Str>> FromIterator<S> for Events {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        let names: Vec<_> = names.into_iter().map(Into::into).collect();
        Self(Cow::Owned(names))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self.0 == *Self::DEFAULT {
            f.write_str("AUTOMATIC")
        } else {
            f.debug_list().entries(self.iter()).finish()
        }
    }
}
