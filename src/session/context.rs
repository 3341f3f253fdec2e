//! Contexts: that of a handle, which its events carry, and that of a session, which is an event of its own.

use super::handle::Handle;
use super::options::OptionError;
use super::place::Place;
use super::session_ref::{AnySession, Session};
use super::shared::Shared;
use crate::engine::Priority;
use crate::event::context::{self, Context};
use crate::event::encode::{self, Heading};
use crate::event::limits::{DataLimits, Limited};
use crate::event::severity::Severity;
use crate::event::writer::{self, EncodeError, EventWriter, Failed};
use crate::stats::Refusal;
use crate::text::{Reason, Str};
use crate::time::{Instant, Timestamp};
use core::cell::Cell;
use core::fmt;
use serde::Serialize;

#[cfg(feature = "alloc")]
use super::spawning::BoxFuture;
#[cfg(has_arc)]
use alloc::{string::String, sync::Arc, vec};

/// The name of the event that has the session's context.
const SESSION_CONTEXT: &str = "session.context";

/// A session with the context of a handle.
pub(crate) struct Scoped {
    session: Session,
    context: Context,
}

impl AnySession for Scoped {
    fn shared(&self) -> &Shared {
        self.session.shared()
    }

    fn parts(&self) -> (&Shared, Option<&Context>) {
        (self.session.shared(), Some(&self.context))
    }

    fn base(&self) -> Option<&Session> {
        Some(&self.session)
    }

    fn now(&self) -> Instant {
        self.session.now()
    }

    fn utc(&self) -> Timestamp {
        self.session.utc()
    }

    #[cfg(feature = "alloc")]
    fn deadline(&self, at: Instant) -> BoxFuture<'_> {
        self.session.deadline(at)
    }
}

/// # Contexts
impl Handle {
    /// Returns a handle whose events carry `fields`: what is true of a part of the program, such as a request or a job.
    ///
    /// Every event that is logged through it has them as the member `context` of its data, an exception as the first line
    /// of its traceback, `Context: {…}`. That includes captures, the panic hook and the `tracing` layer if they were
    /// given this handle, but no events of the bus. A handle made from it has both contexts; of a key in both, the inner
    /// value counts. Data that have a `context` of their own keep it, and the handle's becomes `context_`.
    ///
    /// `fields` is a struct, a map or [`fields!`](crate::fields), and anything else becomes an object as the data of an
    /// event do; an empty one adds nothing. It is encoded in this call, and copied into each event: `log` costs about a
    /// tenth more. The limits on data cut it, and a [scrub hook](crate::session::Builder::scrub) sees it twice: in this
    /// call, as an event named `context`, and in each event.
    ///
    /// All contexts of a handle together take at most a quarter of `max_event_bytes`. What would take more is cut: texts
    /// end in `… (cut)`, and a member of that name says how many fields are left out. If `fields` cannot be encoded, the
    /// handle carries what this one does. Either is reported as
    /// [`ContextIncomplete`](crate::diagnostic::DiagnosticKind::ContextIncomplete).
    ///
    /// Never panics. Allocates, unlike `log`: make one for a part, not for an event.
    ///
    /// ```
    /// # let telemetry = tinkex_telemetry::Handle::off();
    /// # use tinkex_telemetry::fields;
    /// let request = telemetry.with(fields! { request_id: "r-17" });
    /// let retry = request.with(fields! { attempt: 2 });
    /// // {"tokens": 512, "context": {"request_id": "r-17", "attempt": 2}}
    /// retry.log("sampled", fields! { tokens: 512 });
    /// ```
    #[cfg(has_arc)]
    #[must_use = "the handle that it is called on stays as it is"]
    pub fn with(&self, fields: impl Serialize) -> Self {
        let context = |shared: &Shared, outer: &str| {
            shared.encode_context(usize::MAX, &fields, |inner| {
                let longest = outer.len() + inner.len() + context::MIN_BYTES;
                let mut bytes = vec![0; longest.min(shared.max_context_bytes())];
                let max_fields = shared.data_limits.fields;
                let (len, is_cut) = context::merge(outer, inner, max_fields, &mut bytes);
                bytes.truncate(len);
                (String::from_utf8(bytes).unwrap_or_default().into(), is_cut)
            })
        };
        match self.scoped(context) {
            Some(scoped) => Self::shared(Arc::new(scoped)),
            None => self.clone(),
        }
    }

    /// [`with`](Self::with) without an allocator: the context is stored in `buffer`, and takes no more than its `N` bytes
    /// of JSON.
    ///
    /// If the context is incomplete, the diagnostic says so without a reason where there is no allocator. If telemetry is
    /// switched off, the buffer is not used.
    ///
    /// ```
    /// # let telemetry = tinkex_telemetry::Handle::off();
    /// use tinkex_telemetry::fields;
    /// use tinkex_telemetry::session::ContextBuffer;
    ///
    /// // Without an allocator: in a `static` of the `static_cell` crate.
    /// let buffer: &'static mut ContextBuffer<64> = Box::leak(Box::new(ContextBuffer::new()));
    /// let pump = telemetry.with_in(buffer, fields! { device: "pump", port: 3 });
    /// pump.log("started", ());
    /// ```
    #[must_use = "the handle that it is called on stays as it is"]
    pub fn with_in<const N: usize>(
        &self,
        buffer: &'static mut ContextBuffer<N>,
        fields: impl Serialize,
    ) -> Self {
        let ContextBuffer { place, bytes } = buffer;
        let context = |shared: &Shared, outer: &str| {
            shared.encode_context(N, &fields, move |inner| {
                let room = N.min(shared.max_context_bytes());
                let max_fields = shared.data_limits.fields;
                let (bytes, _) = bytes.split_at_mut_checked(room).unwrap_or_default();
                let (len, is_cut) = context::merge(outer, inner, max_fields, bytes);
                let json = core::str::from_utf8(bytes.get(..len).unwrap_or_default());
                (Str::new(json.unwrap_or_default()), is_cut)
            })
        };
        match self.scoped(context) {
            Some(scoped) => Self::fixed(place.insert(scoped)),
            None => self.clone(),
        }
    }

    /// This handle's session with a context, unless that is the one which it already has.
    fn scoped(&self, encode: impl FnOnce(&Shared, &str) -> Option<Str>) -> Option<Scoped> {
        let (shared, outer) = self.session()?.parts();
        let json = encode(shared, outer.map_or("{}", Context::json))?;
        Some(Scoped {
            session: self.base()?,
            context: Context::new(json),
        })
    }
}

/// The place of a handle's context without an allocator, for [`Handle::with_in`]: `N` bytes of JSON, at least 64.
///
/// Put it into a `static`, in a cell that hands it out once as `&'static mut`, such as those of the `static_cell` crate.
pub struct ContextBuffer<const N: usize> {
    place: Place<Scoped>,
    bytes: [u8; N],
}

impl<const N: usize> ContextBuffer<N> {
    /// Creates an empty buffer. One of less than 64 bytes does not compile.
    ///
    /// ```compile_fail
    /// let buffer_of_63_bytes = tinkex_telemetry::session::ContextBuffer::<63>::new();
    /// ```
    /// ```
    /// let smallest = tinkex_telemetry::session::ContextBuffer::<64>::new();
    /// ```
    #[must_use]
    pub const fn new() -> Self {
        const {
            assert!(
                N >= context::MIN_BYTES,
                "a ContextBuffer needs at least 64 bytes"
            );
            assert!(context::MIN_BYTES == 64);
        }
        Self {
            place: Place::Empty,
            bytes: [0; N],
        }
    }
}

impl<const N: usize> Default for ContextBuffer<N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<const N: usize> fmt::Debug for ContextBuffer<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBuffer").finish_non_exhaustive()
    }
}

/// # Contexts
impl Shared {
    /// The most that the contexts of a handle take together, in bytes of JSON.
    pub(crate) const fn max_context_bytes(&self) -> usize {
        self.max_event_bytes / 4
    }

    /// The limits on a context, which is a member of an event's data.
    pub(crate) fn context_limits(&self) -> DataLimits {
        DataLimits {
            depth: self.data_limits.depth.saturating_sub(1).max(1),
            ..self.data_limits
        }
    }

    /// Encodes the context of a handle in at most `max_bytes`, and passes it on, unless it is empty. What `store` returns
    /// is the context, and whether that was cut.
    fn encode_context<D: Serialize, R>(
        &self,
        max_bytes: usize,
        fields: &D,
        store: impl FnOnce(&str) -> (R, bool),
    ) -> Option<R> {
        let room = max_bytes.min(self.max_context_bytes());
        let stored = writer::with(self.max_event_bytes, |out| {
            let is_cut = self.encode_scrubbed_context(out, fields, room)?;
            let Some(is_cut) = is_cut.filter(|_| out.len() > 2) else {
                return Ok(None);
            };
            let json = core::str::from_utf8(out.bytes())
                .map_err(|_| EncodeError::Unencodable(Reason::new("it is not UTF-8")))?;
            let (stored, is_cut_again) = store(json);
            Ok(Some((stored, is_cut || is_cut_again)))
        });
        match stored {
            Ok(None) => None,
            Ok(Some((stored, is_cut))) => {
                if is_cut {
                    self.report_context(format_args!("cut to {room} bytes and the limits on data"));
                }
                Some(stored)
            }
            Err(EncodeError::TooLarge) => {
                self.report_context(format_args!(
                    "left out, even cut it is longer than {room} bytes"
                ));
                None
            }
            Err(EncodeError::Unencodable(reason)) => {
                self.report_context(format_args!("left out: {reason}"));
                None
            }
        }
    }

    /// Encodes the context of a handle. Returns whether it was cut, or `None` if the hook has dropped it.
    fn encode_scrubbed_context<D: Serialize>(
        &self,
        out: &mut EventWriter<'_>,
        fields: &D,
        room: usize,
    ) -> Result<Option<bool>, EncodeError> {
        let limits = self.context_limits();
        #[cfg(feature = "std")]
        if let Some(scrub) = &self.host.scrub {
            return self.scrub_context(scrub, out, fields, &limits, room);
        }
        context::encode_within(out, fields, &limits, room).map(Some)
    }

    #[cold]
    pub(crate) fn report_context(&self, what: fmt::Arguments<'_>) {
        let reason = Reason::new(what);
        let _ = self.update(|engine| ((), engine.note_context(reason)));
    }

    /// Encodes and queues the session's own context, right behind its start.
    pub(crate) fn log_session_context<D: Serialize>(
        &self,
        at: Timestamp,
        data: D,
    ) -> Result<(), OptionError> {
        let len = self.with_writer(|out| {
            let is_cut = Cell::new(false);
            let limited = Limited::new(&data, &self.data_limits, &is_cut);
            match encode::object_limited(out, &limited) {
                Ok(()) => Ok(out.len()),
                Err(Failed) => Err(out.error()),
            }
        });
        match len {
            Ok(len) if len <= 2 => return Ok(()),
            Ok(len) if len <= self.max_event_bytes / 2 => {}
            Ok(_) | Err(EncodeError::TooLarge) => return Err(self.context_too_large()),
            Err(EncodeError::Unencodable(reason)) => return Err(OptionError::unencodable(&reason)),
        }
        let heading = Heading {
            name: SESSION_CONTEXT,
            severity: Severity::Info,
            context: None,
            is_cut: false,
        };
        let _ = self.with(|engine| engine.set_has_context(true));
        let log = || self.log(|| at, heading, data, Priority::Ordinary);
        match self.gate.while_open(log) {
            Ok(()) => Ok(()),
            Err(refusal) => {
                let _ = self.with(|engine| engine.set_has_context(false));
                match refusal {
                    Refusal::QueueFull => Err(OptionError::no_room_for_context()),
                    // The hook has enlarged it.
                    Refusal::EventTooLarge => Err(self.context_too_large()),
                    // The hook has dropped it, or panicked.
                    _ => Ok(()),
                }
            }
        }
    }

    /// The error for a session's context that is too large.
    pub(crate) const fn context_too_large(&self) -> OptionError {
        OptionError::context_too_large(self.max_event_bytes / 2)
    }
}
