//! From a call to the queue: what is logged is encoded, then pushed, or refused and counted.

use crate::engine::{Kind, wake};
use crate::event::encode::{self, Front};
use crate::event::exception::AnyError;
use crate::event::limits::Limited;
use crate::event::severity::Severity;
use crate::event::writer::{self, EncodeError, Failed, Scratch};
use crate::session::shared::Shared;
use crate::stats::Refusal;
use crate::sys::fork::Forked;
#[cfg(not(feature = "std"))]
use crate::sys::lock::COPY_PIECE;
use crate::sys::panics;
use crate::text::{Text, Why};
use crate::time::Timestamp;
use core::cell::Cell;
use serde::Serialize;

#[cfg(feature = "std")]
use crate::event::encode::WriteJson;

impl Shared {
    /// Encodes and queues the first event of the session.
    pub(crate) fn log_start(&self, at: Timestamp) {
        writer::with(self.max_event_bytes - Front::MIN, |out| {
            if encode::session_start(out, at).is_ok() {
                let _ = self.push(out.bytes(), Kind::Ordinary);
            }
        });
    }

    /// Encodes and queues an event.
    pub(crate) fn log<D: Serialize>(
        &self,
        at: impl Fn() -> Timestamp,
        name: &str,
        data: D,
        severity: Severity,
    ) -> Result<(), Refusal> {
        // Where code is scarce there is one way for all.
        if cfg!(not(feature = "alloc")) || self.looks_at_data {
            return self.log_looking(&at, name, data, severity);
        }
        self.with_scratch(
            |out| match encode::generic(out, at, severity, name, &data) {
                Ok(()) => self.push(out.bytes(), Kind::Ordinary),
                Err(Failed) => self.refuse(out.error(), name),
            },
        )
    }

    /// [`log`](Self::log), of data that write their own JSON.
    #[cfg(feature = "std")]
    #[allow(dead_code, reason = "for adapters")]
    pub(crate) fn log_written<D: Serialize + WriteJson>(
        &self,
        at: impl Fn() -> Timestamp,
        name: &str,
        data: &D,
        severity: Severity,
    ) -> Result<(), Refusal> {
        if self.looks_at_data {
            return self.log_looking(&at, name, data, severity);
        }
        self.with_scratch(
            |out| match encode::generic_written(out, at, severity, name, data) {
                Ok(()) => self.push(out.bytes(), Kind::Ordinary),
                Err(Failed) => self.refuse(out.error(), name),
            },
        )
    }

    /// [`log`](Self::log), where there are limits or a hook.
    #[cold]
    #[inline(never)]
    fn log_looking<D: Serialize>(
        &self,
        at: &dyn Fn() -> Timestamp,
        name: &str,
        data: D,
        severity: Severity,
    ) -> Result<(), Refusal> {
        #[cfg(feature = "std")]
        if let Some(scrub) = &self.scrub {
            return self.log_scrubbed(scrub, at, name, &data, severity);
        }
        self.with_scratch(|out| {
            let is_cut = Cell::new(false);
            let data = Limited::new(&data, &self.data_limits, &is_cut);
            let encoded = encode::generic_limited(out, at, severity, name, &data);
            out.note_truncated(is_cut.get());
            match encoded {
                Ok(()) => self.push_noted(out, Kind::Ordinary),
                Err(Failed) => self.refuse(out.error(), name),
            }
        })
    }

    /// Encodes and queues an error.
    pub(crate) fn log_error<E: AnyError + ?Sized>(
        &self,
        at: Timestamp,
        error: &E,
        severity: Severity,
        kind: Kind<'_>,
    ) -> Result<(), Refusal> {
        // Capturing a stack takes a lock of the standard library's.
        if self.is_forked() {
            return Err(self.refuse_forked());
        }
        #[cfg(feature = "std")]
        if let Some(scrub) = &self.scrub {
            return self.log_error_scrubbed(scrub, at, error, severity, kind);
        }
        self.with_error_scratch(|out| {
            let encode = || {
                self.errors
                    .encode(out, at, error, severity, &self.data_limits)
            };
            let encoded = panics::catch(encode)
                .unwrap_or_else(|| Err(out.fail("it panicked while it was looked at")));
            match encoded {
                Ok(()) => self.push_noted(out, kind),
                Err(Failed) => self.refuse_fault(out, at, "exception", severity, kind),
            }
        })
    }

    /// Runs `work` with room for an event.
    #[inline(always)]
    pub(crate) fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch<'_>) -> R) -> R {
        writer::with(self.max_event_bytes - Front::MIN, work)
    }

    /// Runs `work` with room for an error: what is too long is cut to fit, so the longest front counts.
    pub(crate) fn with_error_scratch<R>(&self, work: impl FnOnce(&mut Scratch<'_>) -> R) -> R {
        writer::with(self.max_event_bytes - Front::MAX, work)
    }

    /// Counts an event that could not be encoded; an error that was to end the session leaves word of itself.
    #[cold]
    pub(crate) fn refuse_fault(
        &self,
        out: &mut Scratch<'_>,
        at: Timestamp,
        name: &str,
        severity: Severity,
        kind: Kind<'_>,
    ) -> Result<(), Refusal> {
        let error = out.error();
        if let Kind::Fatal(_) = kind {
            out.clear();
            let unknown = encode::exception(out, at, severity, &"Error", &"", None);
            if unknown.is_ok() {
                return self.push(out.bytes(), kind);
            }
        }
        self.refuse(error, name)
    }

    /// Whether a hook looks at events before they are queued. A panic in it, inside a panic hook, would abort.
    #[cfg(feature = "std")]
    #[allow(dead_code, reason = "for panic hooks")]
    pub(crate) fn has_scrub(&self) -> bool {
        self.scrub.is_some()
    }

    /// [`push`](Self::push), of an event of which something may have been left out.
    pub(crate) fn push_noted(&self, out: &Scratch<'_>, kind: Kind<'_>) -> Result<(), Refusal> {
        let result = self.push(out.bytes(), kind);
        if result.is_ok() && out.is_truncated() {
            let _ = self.with(|engine| engine.note_truncated());
        }
        result
    }

    #[cfg(feature = "std")]
    fn push(&self, body: &[u8], kind: Kind<'_>) -> Result<(), Refusal> {
        let (result, waker) = self
            .with(|engine| engine.push(body, kind))
            .map_err(|Forked| self.refuse_forked())?;
        waker.into_iter().for_each(wake);
        result
    }

    /// In pieces: no interrupt is to wait for the copy of a whole event.
    #[cfg(not(feature = "std"))]
    fn push(&self, body: &[u8], kind: Kind<'_>) -> Result<(), Refusal> {
        let forked = |Forked| self.refuse_forked();
        let (result, waker) = self
            .with(|engine| engine.reserve(body.len(), kind))
            .map_err(forked)?;
        waker.into_iter().for_each(wake);
        let (mut event, front) = result?;
        let mut bytes = [0; Front::MAX];
        let bytes = bytes.get_mut(..front.len()).unwrap_or_default();
        front.write(bytes);
        for piece in core::iter::once(&*bytes).chain(body.chunks(COPY_PIECE)) {
            self.with(|engine| engine.fill(&mut event, piece))
                .map_err(forked)?;
        }
        let waker = self.with(|engine| engine.finish(&event)).map_err(forked)?;
        waker.into_iter().for_each(wake);
        Ok(())
    }

    #[cold]
    pub(crate) fn refuse(&self, error: EncodeError, name: &str) -> Result<(), Refusal> {
        let (reason, why) = match error {
            EncodeError::TooLarge => (Refusal::EventTooLarge, None),
            EncodeError::Unencodable(why) => {
                // A long name must not push the reason out.
                let name = Text::<48>::new(name);
                let why = Why::new(format_args!("event \"{name}\": {why}"));
                (Refusal::Unencodable, Some(why))
            }
        };
        let (result, waker) = self
            .with(|engine| engine.refuse_because(reason, why))
            .map_err(|Forked| self.refuse_forked())?;
        waker.into_iter().for_each(wake);
        result
    }
}
