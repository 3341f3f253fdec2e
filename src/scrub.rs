//! The hook that looks at events before they are queued, to remove what must not leave the program.

use crate::encode;
use crate::engine::{Kind, wake};
use crate::exception::{AnyError, Described, cut_user_error, room_for_user_error};
use crate::fork::Forked;
use crate::limits::{DataLimits, Limited};
use crate::panics;
use crate::scratch::{EncodeError, Failed, Scratch};
use crate::severity::Severity;
use crate::shared::Shared;
use crate::stats::Refusal;
use crate::text::{Text, Why};
use crate::time::Timestamp;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::cell::{Cell, OnceCell};
use core::fmt;
use serde::Serialize;
use serde_json::{Map, Value};

/// What becomes of an event that a scrub hook has looked at; see [`Builder::scrub`](crate::Builder::scrub).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// It is queued, with what the hook has changed.
    Keep,
    /// It is dropped, and counted as [`Scrubbed`](crate::Refusal::Scrubbed).
    Drop,
}

/// An event before it is queued, as a scrub hook sees it; see [`Builder::scrub`](crate::Builder::scrub).
///
/// The data of an exception are its texts: `error_type`, `error_message` and `traceback`, if there is one. Those of a
/// `user_error` are what is sent.
pub struct Draft<'a> {
    name: Cow<'a, str>,
    severity: Severity,
    is_exception: bool,
    data: Data<'a>,
}

struct Data<'a> {
    /// As it was encoded; empty where `parsed` is all there is.
    json: &'a [u8],
    parsed: OnceCell<Map<String, Value>>,
    is_changed: bool,
    /// It is not the JSON that a `Serialize` promises.
    is_broken: Cell<bool>,
}

impl<'a> Data<'a> {
    fn of_json(json: &'a [u8]) -> Self {
        Self {
            json,
            parsed: OnceCell::new(),
            is_changed: false,
            is_broken: Cell::new(false),
        }
    }

    fn of_map(map: Map<String, Value>) -> Self {
        let parsed = OnceCell::from(map);
        Self {
            parsed,
            ..Self::of_json(b"")
        }
    }

    fn get(&self) -> &Map<String, Value> {
        self.parsed.get_or_init(|| {
            let parsed = serde_json::from_slice(self.json);
            parsed.unwrap_or_else(|_| {
                self.is_broken.set(true);
                Map::new()
            })
        })
    }

    fn get_mut(&mut self) -> &mut Map<String, Value> {
        self.get();
        self.is_changed = true;
        self.parsed.get_mut().expect("it was just parsed")
    }
}

impl Draft<'_> {
    /// What [`Handle::log`](crate::Handle::log) was given; `UNHANDLED_EXCEPTION` or `user_error` for an error.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the name. An `UNHANDLED_EXCEPTION` has none on the wire: there it does nothing.
    pub fn set_name(&mut self, name: impl Into<String>) {
        if !self.is_exception {
            self.name = Cow::Owned(name.into());
        }
    }

    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Changes how bad it is.
    pub const fn set_severity(&mut self, severity: Severity) {
        self.severity = severity;
    }

    /// Whether it is an `UNHANDLED_EXCEPTION`.
    #[must_use]
    pub const fn is_exception(&self) -> bool {
        self.is_exception
    }

    /// The data. The first look at it costs a parse.
    #[must_use]
    pub fn data(&self) -> &Map<String, Value> {
        self.data.get()
    }

    /// The data, to be changed: it is written anew then, with numbers beyond 64 bits as floating point. Of an
    /// `UNHANDLED_EXCEPTION` only its three texts are sent, whatever else is put here.
    pub fn data_mut(&mut self) -> &mut Map<String, Value> {
        self.data.get_mut()
    }
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The data may hold what must not be seen.
        f.debug_struct("Draft")
            .field("name", &self.name)
            .field("severity", &self.severity)
            .finish_non_exhaustive()
    }
}

/// The hook.
pub(crate) struct Scrub(pub(crate) Box<dyn Fn(&mut Draft<'_>) -> Verdict + Send + Sync>);

std::thread_local! {
    static IS_IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

impl Scrub {
    /// Asks the hook. What it logs itself would ask it again, without an end: that is refused meanwhile.
    fn ask(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        IS_IN_HOOK.set(true);
        let verdict = panics::catch(|| (self.0)(draft));
        IS_IN_HOOK.set(false);
        match verdict {
            Some(Verdict::Keep) => Ok(()),
            Some(Verdict::Drop) => Err(Refusal::Scrubbed),
            None => Err(Refusal::ScrubPanicked),
        }
    }

    fn is_asked() -> bool {
        IS_IN_HOOK.get()
    }
}

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
        if data.is_broken.get() {
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
