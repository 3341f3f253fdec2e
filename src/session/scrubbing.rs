//! The path from a call to the queue with a scrub hook: events are encoded, passed to the hook and queued.

use super::shared::Shared;
use crate::engine::Priority;
use crate::event::encode;
use crate::event::exception::{AnyError, Described, cut_user_error, room_for_user_error};
use crate::event::limits::{DataLimits, Limited};
use crate::event::raw::Merged;
use crate::event::scrub::{Data, Draft, Scrub};
use crate::event::severity::Severity;
use crate::event::writer::{EncodeError, EventWriter, Failed};
use crate::stats::Refusal;
use crate::sys::fork::Forked;
use crate::sys::panics;
use crate::text::{Reason, Text};
use crate::time::Timestamp;
use alloc::borrow::Cow;
use alloc::string::String;
use core::cell::Cell;
use core::fmt;
use serde::Serialize;
use serde_json::Value;

/// The maximum depth of data for the hook: it must be parsed, and serde_json stops at a depth of 127.
const MAX_DEPTH: usize = 120;

/// An event on its way through the hook.
struct Incoming<'a> {
    name: &'a str,
    severity: Severity,
    priority: Priority<'a>,
}

/// # With a scrub hook
impl Shared {
    /// Encodes data, passes it to the hook and queues the event.
    pub(crate) fn log_scrubbed<D: Serialize + ?Sized>(
        &self,
        scrub: &Scrub,
        at: &dyn Fn() -> Timestamp,
        name: &str,
        data: &D,
        severity: Severity,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let event = Incoming {
            name,
            severity,
            priority,
        };
        if Scrub::is_running() {
            return self.refuse_scrubbed(Refusal::Scrubbed, &event);
        }
        let limits = DataLimits {
            depth: self.data_limits.depth.min(MAX_DEPTH),
            ..self.data_limits
        };
        // A hook cannot recognize half a secret: if there is room it sees whole texts, which are cut afterwards.
        let whole = DataLimits {
            string_bytes: usize::MAX,
            ..limits
        };
        self.with_writer(|out| {
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
            let Ok(json) = core::str::from_utf8(out.bytes()).map(String::from) else {
                let error = EncodeError::Unencodable(Reason::new("its data are not UTF-8"));
                return self.refuse(error, name);
            };
            out.clear();
            out.note_truncated(is_cut.get());
            self.scrub_generic(scrub, out, &event, Data::of_json(&json), at)
        })
    }

    /// Passes an event to the hook and queues the result.
    fn scrub_generic(
        &self,
        scrub: &Scrub,
        out: &mut EventWriter<'_>,
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
        if let Err(refusal) = scrub.apply(&mut draft) {
            return self.refuse_scrubbed(refusal, event);
        }
        let Draft {
            name,
            severity,
            mut data,
            ..
        } = draft;
        self.admit(severity, event.priority)?;
        if data.is_broken() {
            let error = EncodeError::Unencodable(Reason::new("its data are not JSON"));
            return self.refuse(error, &name);
        }
        if event.name == "user_error" && data.json.is_empty() {
            let is_cut = cut_user_error(data.get_mut(), room_for_user_error(out));
            out.note_truncated(is_cut);
        }
        let is_long = data.json.len() > self.data_limits.string_bytes;
        let has_duplicates = data.has_duplicates();
        let encoded = if data.is_changed || is_long || has_duplicates {
            let is_cut = Cell::new(false);
            let limits = DataLimits {
                depth: self.data_limits.depth.min(MAX_DEPTH),
                // The first pass may have added its own mark as one more field.
                fields: self.data_limits.fields.saturating_add(1),
                ..self.data_limits
            };
            let merged = Merged::new(data.json, has_duplicates, data.get());
            let data = Limited::new(&merged, &limits, &is_cut);
            let encoded = encode::generic_limited(out, at, severity, &name, &data);
            out.note_truncated(is_cut.get());
            encoded
        } else {
            encode::generic_of_json(out, at, severity, &name, data.json.as_bytes())
        };
        match encoded {
            Ok(()) => self.push_counting_truncation(out, event.priority.of_severity(severity)),
            Err(Failed) => self.refuse_fault(out, at(), &name, severity, event.priority),
        }
    }

    /// Passes an error to the hook and queues the result.
    pub(crate) fn log_error_scrubbed<E: AnyError + ?Sized>(
        &self,
        scrub: &Scrub,
        at: Timestamp,
        error: &E,
        severity: Severity,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let mut event = Incoming {
            name: "UNHANDLED_EXCEPTION",
            severity,
            priority,
        };
        if Scrub::is_running() {
            return self.refuse_scrubbed(Refusal::Scrubbed, &event);
        }
        self.with_error_writer(|out| {
            // Each text may be as long as a whole event for the hook, and is cut afterwards.
            let describe = || self.errors.describe(error, self.max_event_bytes);
            let Some(described) = panics::catch(describe) else {
                let Failed = out.fail("its Display or source() panicked");
                return self.refuse_fault(out, at, "exception", severity, priority);
            };
            out.note_truncated(described.is_cut);
            match described.data {
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
        out: &mut EventWriter<'_>,
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
        if let Err(refusal) = scrub.apply(&mut draft) {
            return self.refuse_scrubbed(refusal, event);
        }
        self.admit(draft.severity, event.priority)?;
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
            Ok(()) => {
                self.push_counting_truncation(out, event.priority.of_severity(draft.severity))
            }
            Err(Failed) => self.refuse_fault(out, at, event.name, draft.severity, event.priority),
        }
    }

    /// Counts an event that the hook dropped or panicked on. A fatal one still ends the session.
    #[cold]
    fn refuse_scrubbed(&self, refusal: Refusal, event: &Incoming<'_>) -> Result<(), Refusal> {
        let reason = (refusal == Refusal::ScrubPanicked).then(|| {
            let name = Text::<48>::new(event.name);
            Reason::new(format_args!("event {name:?}"))
        });
        self.update(|engine| match event.priority {
            Priority::Fatal(tail) => engine.refuse_fatal(refusal, reason, tail),
            _ => engine.refuse_with_reason(refusal, reason),
        })
        .unwrap_or_else(|Forked| Err(self.refuse_forked()))
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
