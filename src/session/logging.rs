//! The path from a call to the queue: events are encoded and pushed, or refused and counted.

use crate::engine::Priority;
use crate::event::encode::{self, EventPrefix, Exception, Heading};
use crate::event::exception::AnyError;
use crate::event::limits::Limited;
use crate::event::writer::{self, EncodeError, EventWriter, Failed};
use crate::session::shared::Shared;
use crate::stats::Refusal;
use crate::sys::fork::Forked;
use crate::sys::lock::COPY_PIECE;
use crate::sys::panics;
use crate::text::{Reason, Text};
use crate::time::Timestamp;
use core::cell::Cell;
use serde::Serialize;

#[cfg(feature = "std")]
use crate::sys::own_work;

impl Shared {
    /// Encodes and queues the first event of the session.
    pub(crate) fn log_start(&self, at: Timestamp) {
        writer::with(self.max_event_bytes - EventPrefix::MIN, |out| {
            if encode::session_start(out, at).is_ok() {
                let _ = self.push(out.bytes(), Priority::Ordinary);
            }
        });
    }

    /// Encodes and queues an event.
    pub(crate) fn log<D: Serialize>(
        &self,
        at: impl Fn() -> Timestamp + Copy,
        heading: Heading<'_>,
        data: D,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        self.log_with(at, heading, data, priority, encode::generic)
    }

    /// [`log`](Self::log) with another encoder, which is used unless the data must be inspected.
    #[inline]
    pub(crate) fn log_with<A: Fn() -> Timestamp + Copy, D: Serialize>(
        &self,
        at: A,
        heading: Heading<'_>,
        data: D,
        priority: Priority<'_>,
        encode: impl FnOnce(&mut EventWriter<'_>, A, Heading<'_>, &D) -> Result<(), Failed>,
    ) -> Result<(), Refusal> {
        self.admit(heading.severity, priority)?;
        #[cfg(feature = "std")]
        let _caused = self.admit_caller(priority)?;
        // Without an allocator code size matters: there is one path for all events.
        if cfg!(not(feature = "alloc")) || self.inspects_data || heading.is_cut {
            return self.log_inspected(&at, heading, data, priority);
        }
        self.with_writer(|out| match encode(out, at, heading, &data) {
            Ok(()) => self.push(out.bytes(), priority),
            Err(Failed) if out.is_too_deep() => {
                out.clear();
                self.log_limited(out, &at, heading, &data, priority)
            }
            Err(Failed) => self.refuse(out.error(), heading.name),
        })
    }

    /// [`log`](Self::log) with limits, a hook, or data that were cut.
    #[cold]
    #[inline(never)]
    fn log_inspected<D: Serialize>(
        &self,
        at: &dyn Fn() -> Timestamp,
        heading: Heading<'_>,
        data: D,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        #[cfg(feature = "std")]
        if let Some(scrub) = &self.host.scrub {
            return self.log_scrubbed(scrub, at, heading, &data, priority);
        }
        self.with_writer(|out| self.log_limited(out, at, heading, &data, priority))
    }

    /// Encodes data with limits, and queues the event.
    #[cold]
    fn log_limited<D: Serialize>(
        &self,
        out: &mut EventWriter<'_>,
        at: &dyn Fn() -> Timestamp,
        heading: Heading<'_>,
        data: &D,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let is_cut = Cell::new(false);
        let data = Limited::new(data, &self.data_limits, &is_cut);
        let encoded = encode::generic_limited(out, at, heading, &data);
        out.note_truncated(is_cut.get() || heading.is_cut);
        self.push_encoded(out, encoded, heading.name, priority)
    }

    #[cfg_attr(not(feature = "std"), inline(never))]
    fn push_encoded(
        &self,
        out: &mut EventWriter<'_>,
        encoded: Result<(), Failed>,
        name: &str,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        match encoded {
            Ok(()) => self.push_counting_truncation(out, priority),
            Err(Failed) => self.refuse(out.error(), name),
        }
    }

    /// Encodes and queues an error, which has a name of its own.
    pub(crate) fn log_error<E: AnyError + ?Sized>(
        &self,
        at: Timestamp,
        error: &E,
        heading: Heading<'_>,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        // Capturing a stack takes one of the standard library's locks, which the child of a fork must not wait for.
        if self.is_forked() {
            return Err(self.refuse_forked());
        }
        self.admit_error(priority)?;
        #[cfg(feature = "std")]
        let _caused = self.admit_caller(priority)?;
        #[cfg(feature = "std")]
        if let Some(scrub) = &self.host.scrub {
            return self.log_error_scrubbed(scrub, at, error, heading, priority);
        }
        self.with_error_writer(|out| {
            let encode = || {
                self.errors
                    .encode(out, at, error, heading, &self.data_limits)
            };
            let encoded = panics::catch(encode)
                .unwrap_or_else(|| Err(out.fail("its Display or source() panicked")));
            match encoded {
                Ok(severity) => {
                    self.admit(severity, priority)?;
                    self.push_counting_truncation(out, priority.of_severity(severity))
                }
                Err(Failed) => self.refuse_fault(out, at, heading, priority),
            }
        })
    }

    /// Refuses an event from the session's own work. One that comes from another session's passes its origin on.
    #[cfg(feature = "std")]
    #[inline]
    fn admit_caller(&self, priority: Priority<'_>) -> Result<Option<Caused<'_>>, Refusal> {
        if own_work::is_any() {
            return self.admit_own_work(priority);
        }
        Ok(None)
    }

    #[cfg(feature = "std")]
    #[cold]
    fn admit_own_work(&self, priority: Priority<'_>) -> Result<Option<Caused<'_>>, Refusal> {
        if !self.host.own_work.is_here() {
            self.host.own_work.begin_caused();
            return Ok(Some(Caused(self)));
        }
        let refused = self.update(|engine| match priority {
            Priority::Fatal(tail) => engine.refuse_fatal(Refusal::OwnWork, None, tail),
            _ => engine.refuse_with_reason(Refusal::OwnWork, None),
        });
        refused.unwrap_or_else(|Forked| Err(self.refuse_forked()))?;
        Ok(None)
    }

    /// Runs `work` with a writer for one event.
    #[inline(always)]
    pub(crate) fn with_writer<R>(&self, work: impl FnOnce(&mut EventWriter<'_>) -> R) -> R {
        writer::with(self.max_event_bytes - EventPrefix::MIN, |out| {
            out.set_max_depth(self.data_limits.depth);
            work(out)
        })
    }

    /// Runs `work` with a writer for one error. Its texts are cut to fit, so the longest prefix is assumed.
    pub(crate) fn with_error_writer<R>(&self, work: impl FnOnce(&mut EventWriter<'_>) -> R) -> R {
        writer::with(self.max_event_bytes - EventPrefix::MAX, work)
    }

    /// Counts an event that could not be encoded; a fatal error is logged without its texts instead.
    #[cold]
    pub(crate) fn refuse_fault(
        &self,
        out: &mut EventWriter<'_>,
        at: Timestamp,
        heading: Heading<'_>,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let error = out.error();
        if let Priority::Fatal(_) = priority {
            out.clear();
            let placeholder = Exception {
                severity: heading.severity,
                error_type: &"Error",
                message: &"",
                traceback: heading.context.map(|context| context as _),
                kept: 0,
            };
            if encode::exception(out, at, &placeholder).is_ok() {
                return self.push(out.bytes(), priority);
            }
        }
        self.refuse(error, heading.name)
    }

    /// [`push`](Self::push) for an event that may have been truncated.
    pub(crate) fn push_counting_truncation(
        &self,
        out: &EventWriter<'_>,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let result = self.push(out.bytes(), priority);
        if result.is_ok() && out.is_truncated() {
            let _ = self.with(|engine| engine.note_truncated());
        }
        result
    }

    #[cfg(feature = "std")]
    fn push(&self, body: &[u8], priority: Priority<'_>) -> Result<(), Refusal> {
        if self.host.pushes_in_pieces {
            return self.push_in_pieces(body, priority);
        }
        self.update(|engine| engine.push(body, priority))
            .unwrap_or_else(|Forked| Err(self.refuse_forked()))
    }

    #[cfg(not(feature = "std"))]
    fn push(&self, body: &[u8], priority: Priority<'_>) -> Result<(), Refusal> {
        self.push_in_pieces(body, priority)
    }

    /// Locks once per piece, so that an interrupt never waits for the copy of a whole event.
    #[cfg_attr(feature = "std", cold)]
    fn push_in_pieces(&self, body: &[u8], priority: Priority<'_>) -> Result<(), Refusal> {
        let forked = |Forked| self.refuse_forked();
        let reserved = self
            .update(|engine| engine.reserve(body.len(), priority))
            .map_err(forked)?;
        let (mut event, prefix) = reserved?;
        let mut bytes = [0; EventPrefix::MAX];
        let bytes = bytes.get_mut(..prefix.len()).unwrap_or_default();
        prefix.write(bytes);
        for piece in core::iter::once(&*bytes).chain(body.chunks(COPY_PIECE)) {
            self.with(|engine| engine.fill(&mut event, piece))
                .map_err(forked)?;
        }
        self.update(|engine| engine.finish(&event)).map_err(forked)
    }

    #[cold]
    pub(crate) fn refuse(&self, error: EncodeError, name: &str) -> Result<(), Refusal> {
        let (refusal, reason) = match error {
            EncodeError::TooLarge => (Refusal::EventTooLarge, None),
            EncodeError::Unencodable(reason) => {
                // A long name must not displace the reason.
                let name = Text::<48>::new(name);
                let reason = Reason::new(format_args!("event \"{name}\": {reason}"));
                (Refusal::Unencodable, Some(reason))
            }
        };
        self.update(|engine| engine.refuse_with_reason(refusal, reason))
            .unwrap_or_else(|Forked| Err(self.refuse_forked()))
    }
}

/// An event that another session's work has caused, while it is logged.
#[cfg(feature = "std")]
struct Caused<'a>(&'a Shared);

#[cfg(feature = "std")]
impl Drop for Caused<'_> {
    fn drop(&mut self) {
        let accepted = self.0.with(|engine| engine.stats().accepted);
        self.0.host.own_work.end_caused(accepted.unwrap_or(0));
    }
}
