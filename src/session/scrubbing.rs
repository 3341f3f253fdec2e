//! From a call to the queue where there is a scrub hook: what is logged is encoded, shown to the hook, and queued.

use super::shared::Shared;
use crate::engine::{Kind, wake};
use crate::event::encode;
use crate::event::exception::{AnyError, Described, cut_user_error, room_for_user_error};
use crate::event::limits::{DataLimits, Limited};
use crate::event::scrub::{Data, Draft, Scrub};
use crate::event::severity::Severity;
use crate::event::writer::{EncodeError, Failed, Scratch};
use crate::stats::Refusal;
use crate::sys::fork::Forked;
use crate::sys::panics;
use crate::text::{Text, Why};
use crate::time::Timestamp;
use alloc::borrow::Cow;
use core::cell::Cell;
use core::fmt;
use serde::Serialize;
use serde_json::Value;

/// What is given to the hook has to be parsed, which serde_json does up to a depth of 127.
const MAX_DEPTH: usize = 120;

/// An event on its way through the hook.
struct Incoming<'a> {
    name: &'a str,
    severity: Severity,
    kind: Kind<'a>,
}

/// # With a scrub hook
impl Shared {
    /// Encodes data, shows it to the hook, and queues the event.
    pub(crate) fn log_scrubbed<D: Serialize + ?Sized>(
        &self,
        scrub: &Scrub,
        at: &dyn Fn() -> Timestamp,
        name: &str,
        data: &D,
        severity: Severity,
    ) -> Result<(), Refusal> {
        let event = Incoming {
            name,
            severity,
            kind: Kind::Ordinary,
        };
        if Scrub::is_asked() {
            return self.refuse_scrubbed(Refusal::Scrubbed, &event);
        }
        let limits = DataLimits {
            depth: self.data_limits.depth.min(MAX_DEPTH),
            ..self.data_limits
        };
        // Half a secret is not recognized: where there is room, the hook sees texts that are cut only afterwards.
        let whole = DataLimits {
            string_bytes: usize::MAX,
            ..limits
        };
        self.with_scratch(|out| {
            let is_cut = Cell::new(false);
            let mut encode = |limits: &DataLimits| {
                out.clear();
                is_cut.set(false);
                let data = Limited::new(data, limits, &is_cut);
                encode::object_limited(out, &data).map_err(|Failed| out.error())
            };
            let encoded = match encode(&whole) {
                Err(EncodeError::TooLarge) if whole != limits => encode(&limits),
                encoded => encoded,
            };
            if let Err(error) = encoded {
                return self.refuse(error, name);
            }
            let json = out.bytes().to_vec();
            out.clear();
            out.note_truncated(is_cut.get());
            self.scrub_generic(scrub, out, &event, Data::of_json(&json), at)
        })
    }

    /// Shows an event to the hook, and queues what that leaves of it.
    fn scrub_generic(
        &self,
        scrub: &Scrub,
        out: &mut Scratch<'_>,
        event: &Incoming<'_>,
        data: Data<'_>,
        at: &dyn Fn() -> Timestamp,
    ) -> Result<(), Refusal> {
        let mut draft = Draft {
            name: Cow::Borrowed(event.name),
            severity: event.severity,
            is_exception: false,
            data,
        };
        if let Err(reason) = scrub.ask(&mut draft) {
            return self.refuse_scrubbed(reason, event);
        }
        let Draft {
            name,
            severity,
            mut data,
            ..
        } = draft;
        if data.is_broken() {
            let error = EncodeError::Unencodable(Why::new("its data are not JSON"));
            return self.refuse(error, &name);
        }
        if event.name == "user_error" && data.json.is_empty() {
            cut_user_error(data.get_mut(), room_for_user_error(out));
        }
        let is_long = data.json.len() > self.data_limits.string_bytes;
        let encoded = if data.is_changed || is_long {
            let is_cut = Cell::new(false);
            let limits = DataLimits {
                depth: self.data_limits.depth.min(MAX_DEPTH),
                // There may be the mark of the first time.
                fields: self.data_limits.fields.saturating_add(1),
                ..self.data_limits
            };
            let data = Limited::new(data.get(), &limits, &is_cut);
            let encoded = encode::generic_limited(out, at, severity, &name, &data);
            out.note_truncated(is_cut.get());
            encoded
        } else {
            encode::generic_of_json(out, at, severity, &name, data.json)
        };
        match encoded {
            Ok(()) => self.push_noted(out, event.kind),
            Err(Failed) => self.refuse_fault(out, at(), &name, severity, event.kind),
        }
    }

    /// Shows an error to the hook, and queues what that leaves of it.
    pub(crate) fn log_error_scrubbed<E: AnyError + ?Sized>(
        &self,
        scrub: &Scrub,
        at: Timestamp,
        error: &E,
        severity: Severity,
        kind: Kind<'_>,
    ) -> Result<(), Refusal> {
        let mut event = Incoming {
            name: "UNHANDLED_EXCEPTION",
            severity,
            kind,
        };
        if Scrub::is_asked() {
            return self.refuse_scrubbed(Refusal::Scrubbed, &event);
        }
        self.with_error_scratch(|out| {
            // Each text is given as far as a whole event could hold it, and cut afterwards.
            let describe = || self.errors.describe(error, self.max_event_bytes);
            let Some(described) = panics::catch(describe) else {
                let Failed = out.fail("it panicked while it was looked at");
                return self.refuse_fault(out, at, "exception", severity, kind);
            };
            match described {
                Described::User(data) => {
                    event.name = "user_error";
                    event.severity = Severity::Warning;
                    let data = Data::of_map(data);
                    self.scrub_generic(scrub, out, &event, data, &|| at)
                }
                Described::Exception(data) => {
                    self.scrub_exception(scrub, out, &event, Data::of_map(data), at)
                }
            }
        })
    }

    fn scrub_exception(
        &self,
        scrub: &Scrub,
        out: &mut Scratch<'_>,
        event: &Incoming<'_>,
        data: Data<'_>,
        at: Timestamp,
    ) -> Result<(), Refusal> {
        let mut draft = Draft {
            name: Cow::Borrowed(event.name),
            severity: event.severity,
            is_exception: true,
            data,
        };
        if let Err(reason) = scrub.ask(&mut draft) {
            return self.refuse_scrubbed(reason, event);
        }
        let data = draft.data();
        let text = |key| data.get(key).filter(|text| !text.is_null()).map(AsText);
        let (error_type, message) = (text("error_type"), text("error_message"));
        let encoded = encode::exception(
            out,
            at,
            draft.severity,
            error_type.as_ref().map_or(&"Error", |text| text as _),
            message.as_ref().map_or(&"", |text| text as _),
            text("traceback").as_ref().map(|text| text as _),
        );
        match encoded {
            Ok(()) => self.push_noted(out, event.kind),
            Err(Failed) => self.refuse_fault(out, at, event.name, draft.severity, event.kind),
        }
    }

    /// Counts an event that the hook has dropped, or over which it has panicked. A fatal one ends the session still.
    #[cold]
    fn refuse_scrubbed(&self, reason: Refusal, event: &Incoming<'_>) -> Result<(), Refusal> {
        let why = (reason == Refusal::ScrubPanicked).then(|| {
            let name = Text::<48>::new(event.name);
            Why::new(format_args!("event {name:?}"))
        });
        let (result, waker) = self
            .with(|engine| match event.kind {
                Kind::Fatal(tail) => engine.refuse_fatal(reason, why, tail),
                _ => engine.refuse_because(reason, why),
            })
            .map_err(|Forked| self.refuse_forked())?;
        waker.into_iter().for_each(wake);
        result
    }
}

/// A string as it is, anything else as JSON.
struct AsText<'a>(&'a Value);

impl fmt::Display for AsText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Value::String(text) => f.write_str(text),
            other => write!(f, "{other}"),
        }
    }
}
