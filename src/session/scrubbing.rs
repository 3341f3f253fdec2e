//! The path from a call to the queue with a scrub hook: events are encoded, passed to the hook and queued.

use super::shared::Shared;
use crate::engine::Priority;
use crate::event::context;
use crate::event::encode::{self, Exception, Heading};
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
    heading: Heading<'a>,
    priority: Priority<'a>,
    /// Whether it is an error for which the caller is to blame.
    is_user_error: bool,
}

/// # With a scrub hook
impl Shared {
    /// Encodes data, passes it to the hook and queues the event.
    pub(crate) fn log_scrubbed<D: Serialize + ?Sized>(
        &self,
        scrub: &Scrub,
        at: &dyn Fn() -> Timestamp,
        heading: Heading<'_>,
        data: &D,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let event = Incoming {
            heading,
            priority,
            is_user_error: false,
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
                let mut encoded = encode::object_limited(out, &data);
                if let (Ok(()), Some(context)) = (&encoded, heading.context) {
                    encoded = context.add_to(out, 0);
                }
                encoded.map_err(|Failed| out.error())
            };
            let encoded = match encode(&whole) {
                Err(EncodeError::TooLarge) if whole != limits => encode(&limits),
                encoded => encoded,
            };
            if let Err(error) = encoded {
                return self.refuse(error, heading.name);
            }
            let Ok(json) = core::str::from_utf8(out.bytes()).map(String::from) else {
                let error = EncodeError::Unencodable(Reason::new("its data are not UTF-8"));
                return self.refuse(error, heading.name);
            };
            out.clear();
            out.note_truncated(is_cut.get() || heading.is_cut);
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
            name: Cow::Borrowed(event.heading.name),
            severity: event.heading.severity,
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
        if event.is_user_error {
            let room = room_for_user_error(out, event.heading.context);
            let is_cut = cut_user_error(data.get_mut(), room);
            out.note_truncated(is_cut);
        }
        let heading = Heading {
            name: &name,
            severity,
            // The data have it.
            context: None,
            is_cut: false,
        };
        let is_long = data.json.len() > self.data_limits.string_bytes;
        let has_duplicates = data.has_duplicates();
        let encoded = if data.is_changed || is_long || has_duplicates {
            let is_cut = Cell::new(false);
            let with_context = usize::from(event.heading.context.is_some());
            let limits = DataLimits {
                depth: self.data_limits.depth.min(MAX_DEPTH).max(2 * with_context),
                // The first pass may have added its own mark as one more field.
                fields: self.data_limits.fields.saturating_add(1 + with_context),
                ..self.data_limits
            };
            let merged = Merged::new(data.json, has_duplicates, data.get());
            let data = Limited::new(&merged, &limits, &is_cut);
            let encoded = encode::generic_limited(out, at, heading, &data);
            out.note_truncated(is_cut.get());
            encoded
        } else {
            encode::generic_of_json(out, at, heading, data.json.as_bytes())
        };
        match encoded {
            Ok(()) => self.push_counting_truncation(out, event.priority.of_severity(severity)),
            Err(Failed) => self.refuse_fault(out, at(), heading, event.priority),
        }
    }

    /// Passes an error to the hook and queues the result.
    pub(crate) fn log_error_scrubbed<E: AnyError + ?Sized>(
        &self,
        scrub: &Scrub,
        at: Timestamp,
        error: &E,
        heading: Heading<'_>,
        priority: Priority<'_>,
    ) -> Result<(), Refusal> {
        let mut event = Incoming {
            heading: Heading {
                name: "UNHANDLED_EXCEPTION",
                ..heading
            },
            priority,
            is_user_error: false,
        };
        if Scrub::is_running() {
            return self.refuse_scrubbed(Refusal::Scrubbed, &event);
        }
        self.with_error_writer(|out| {
            // Each text may be as long as a whole event for the hook, and is cut afterwards.
            let describe = || {
                let room = self.max_event_bytes;
                self.errors.describe(error, heading.context, room)
            };
            let Some(described) = panics::catch(describe) else {
                let Failed = out.fail("its Display or source() panicked");
                return self.refuse_fault(out, at, heading, priority);
            };
            out.note_truncated(described.is_cut);
            match described.data {
                Described::User(data) => {
                    event.heading.name = "user_error";
                    event.heading.severity = Severity::Warning;
                    event.is_user_error = true;
                    self.scrub_generic(scrub, out, &event, Data::of_json(&data), &|| at)
                }
                Described::Exception(data) => {
                    self.scrub_exception(scrub, out, &event, Data::of_map(data), at)
                }
            }
        })
    }

    /// Encodes the context of a handle in at most `room` bytes, after the hook has seen it. Returns whether it was cut, or
    /// `None` if the hook has dropped it.
    pub(super) fn scrub_context<D: Serialize>(
        &self,
        scrub: &Scrub,
        out: &mut EventWriter<'_>,
        fields: &D,
        limits: &DataLimits,
        room: usize,
    ) -> Result<Option<bool>, EncodeError> {
        let fault = |reason| EncodeError::Unencodable(Reason::new(reason));
        if Scrub::is_running() {
            return Err(fault("it was made in a scrub hook"));
        }
        let limits = DataLimits {
            depth: limits.depth.min(MAX_DEPTH),
            ..*limits
        };
        let whole = DataLimits {
            string_bytes: usize::MAX,
            ..limits
        };
        // As with an event, the hook sees whole texts if there is room.
        let mut is_cut = match context::encode_within(out, fields, &whole, self.max_event_bytes)? {
            false => false,
            true => context::encode_within(out, fields, &limits, room)?,
        };
        let json = core::str::from_utf8(out.bytes()).map(String::from);
        let json = json.map_err(|_| fault("it is not UTF-8"))?;
        let mut draft = Draft {
            name: Cow::Borrowed("context"),
            severity: Severity::Info,
            is_exception: false,
            data: Data::of_json(&json),
        };
        match scrub.apply(&mut draft) {
            Ok(()) => {}
            Err(Refusal::ScrubPanicked) => return Err(fault("the scrub hook panicked")),
            Err(_) => return Ok(None),
        }
        let data = draft.data;
        if data.is_broken() {
            return Err(fault("it is not JSON"));
        }
        let merged = Merged::new(data.json, data.has_duplicates(), data.get());
        is_cut |= context::encode_within(out, &merged, &limits, room)?;
        Ok(Some(is_cut))
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
            name: Cow::Borrowed(event.heading.name),
            severity: event.heading.severity,
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
        let traceback = text("traceback");
        // The hook may have changed it.
        let line = data.get("traceback").and_then(Value::as_str);
        let line = line.and_then(|text| text.lines().next());
        let exception = Exception {
            severity: draft.severity,
            error_type: error_type.as_ref().map_or(&"Error", |text| text as _),
            message: message.as_ref().map_or(&"", |text| text as _),
            traceback: traceback.as_ref().map(|text| text as _),
            kept: event.heading.context.map_or(0, |context| {
                let is_first = line.is_some_and(|line| line.starts_with("Context: "));
                if is_first {
                    context.len_in_traceback()
                } else {
                    0
                }
            }),
        };
        match encode::exception(out, at, &exception) {
            Ok(()) => {
                self.push_counting_truncation(out, event.priority.of_severity(draft.severity))
            }
            Err(Failed) => {
                let heading = Heading {
                    severity: draft.severity,
                    ..event.heading
                };
                self.refuse_fault(out, at, heading, event.priority)
            }
        }
    }

    /// Counts an event that the hook dropped or panicked on. A fatal one still ends the session.
    #[cold]
    fn refuse_scrubbed(&self, refusal: Refusal, event: &Incoming<'_>) -> Result<(), Refusal> {
        let reason = (refusal == Refusal::ScrubPanicked).then(|| {
            let name = Text::<48>::new(event.heading.name);
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
