//! The context of a session, which it logs once, right behind `SESSION_START`.

use super::Builder;
use crate::session::options::OptionError;
use crate::session::shared::Shared;
use crate::time::Timestamp;
use serde::Serialize;

/// # The context
impl<T, C, S> Builder<T, C, S> {
    /// Sets what is true of the whole session, such as the release, the host or the rank: a struct, a map, or
    /// [`fields!`](crate::fields). It travels once, as the event `session.context` of severity INFO right behind
    /// `SESSION_START`, with index 1, whatever [`min_severity`](crate::Options::min_severity) is, and does not count
    /// towards [`flush_threshold`](crate::Options::flush_threshold). Of several calls the last one counts. Default: none, and no event.
    ///
    /// It is encoded in this call. The limits on data cut it, and a [scrub hook](Self::scrub) sees it, as they do other
    /// events; what nests deeper than 120 is cut in any case. No event of the application should be named
    /// `session.context`.
    ///
    /// Starting the session fails with a [`BuildError::Option`](super::BuildError) if it cannot be encoded, if it is
    /// larger than half of `max_event_bytes`, or if the queue has no room for it beside `SESSION_START`.
    ///
    /// For what is true of a part of the program, see [`Handle::with`](crate::Handle::with).
    ///
    /// ```
    /// # use tinkex_telemetry::{Reporter, fields};
    /// let rank = 3;
    /// let builder = Reporter::builder("session-123")
    ///     .fields(fields! { release: "2.4.0", host: "node-17", rank });
    /// # let _ = builder;
    /// ```
    #[cfg(feature = "std")]
    pub fn fields(mut self, fields: impl Serialize) -> Self {
        self.fields = Some(SessionFields::encode(&fields));
        self
    }

    /// Sets what is true of the whole session, such as the release or the reason of the reset: a struct or a map. It
    /// travels once, as the event `session.context` of severity INFO right behind `SESSION_START`, with index 1, and does
    /// not count towards [`flush_threshold`](crate::Options::flush_threshold). Of several calls the last one counts.
    /// Default: none, and no event.
    ///
    /// It is encoded when the session starts, which fails with a [`BuildError::Option`](super::BuildError) if it cannot
    /// be encoded, if it is larger than half of `max_event_bytes`, or if the queue has no room for it beside
    /// `SESSION_START`. No event of the application should be named `session.context`.
    ///
    /// For what is true of a part of the program, see [`Handle::with_in`](crate::Handle::with_in).
    #[cfg(not(feature = "std"))]
    pub fn fields<F: Serialize + Sync>(mut self, fields: &'static F) -> Self {
        self.fields = Some(SessionFields(fields));
        self
    }
}

#[cfg(feature = "std")]
pub(super) use encoded::SessionFields;
#[cfg(not(feature = "std"))]
pub(super) use referenced::SessionFields;

/// With `std`: encoded when it is set, and cut to the session's limits when that starts.
#[cfg(feature = "std")]
mod encoded {
    use super::{OptionError, Serialize, Shared, Timestamp};
    use crate::event::encode;
    use crate::event::limits::{DataLimits, Limited};
    use crate::event::raw::Checked;
    use crate::event::writer::{self, EncodeError, Failed};
    use crate::session::options::Options;
    use crate::text::Reason;
    use alloc::string::String;
    use core::cell::Cell;

    /// The JSON of an object, or why there is none.
    pub(in super::super) struct SessionFields(Result<String, EncodeError>);

    impl SessionFields {
        /// As deep as data for a scrub hook may nest.
        const LIMITS: DataLimits = DataLimits {
            depth: 120,
            string_bytes: usize::MAX,
            fields: usize::MAX,
        };

        /// The sizes that are tried, in bytes: how large an event may be is not known yet.
        const SIZES: [usize; 3] = [64 << 10, 1 << 20, Options::MAX_EVENT_BYTES];

        pub(super) fn encode(fields: &impl Serialize) -> Self {
            let attempt = |size| {
                writer::with(size, |out| {
                    let is_cut = Cell::new(false);
                    let limited = Limited::new(fields, &Self::LIMITS, &is_cut);
                    match encode::object_limited(out, &limited) {
                        Ok(()) => core::str::from_utf8(out.bytes())
                            .map(String::from)
                            .map_err(|_| EncodeError::Unencodable(Reason::default())),
                        Err(Failed) => Err(out.error()),
                    }
                })
            };
            let mut sizes = Self::SIZES.into_iter().map(attempt);
            let fits = sizes.find(|encoded| *encoded != Err(EncodeError::TooLarge));
            Self(fits.unwrap_or(Err(EncodeError::TooLarge)))
        }

        pub(in super::super) fn log(
            &self,
            shared: &Shared,
            at: Timestamp,
        ) -> Result<(), OptionError> {
            match &self.0 {
                Ok(json) => shared.log_session_context(at, Checked(json)),
                Err(EncodeError::TooLarge) => Err(shared.context_too_large()),
                Err(EncodeError::Unencodable(reason)) => Err(OptionError::unencodable(reason)),
            }
        }
    }
}

/// Without `std`: encoded when the session starts.
#[cfg(not(feature = "std"))]
mod referenced {
    use super::{OptionError, Serialize, Shared, Timestamp};

    #[derive(Clone, Copy)]
    pub(in super::super) struct SessionFields(pub(super) &'static dyn Log);

    pub(in super::super) trait Log: Sync {
        fn log(&'static self, shared: &Shared, at: Timestamp) -> Result<(), OptionError>;
    }

    impl<F: Serialize + Sync> Log for F {
        fn log(&'static self, shared: &Shared, at: Timestamp) -> Result<(), OptionError> {
            shared.log_session_context(at, self)
        }
    }

    impl SessionFields {
        pub(in super::super) fn log(
            &self,
            shared: &Shared,
            at: Timestamp,
        ) -> Result<(), OptionError> {
            self.0.log(shared, at)
        }
    }
}
