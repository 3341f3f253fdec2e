//! The scrub hook, which removes from events what must not leave the program.

use crate::event::raw;
use crate::event::severity::Severity;
use crate::stats::Refusal;
use crate::sys::panics;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::cell::{Cell, OnceCell};
use core::fmt;
use serde_json::{Map, Value};

/// A scrub hook's decision whether to queue an event; see [`Builder::scrub`](crate::session::Builder::scrub).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// Queue it, with the hook's changes.
    Keep,
    /// Drop it, counted as [`Scrubbed`](crate::stats::Refusal::Scrubbed).
    Drop,
}

/// An event about to be queued, for a scrub hook to inspect and redact; see
/// [`Builder::scrub`](crate::session::Builder::scrub).
///
/// The data of an exception is its texts: `error_type`, `error_message` and, if there is one, `traceback`. The data of
/// a `user_error` is what is sent.
pub struct Draft<'a> {
    pub(crate) name: Cow<'a, str>,
    pub(crate) severity: Severity,
    pub(crate) is_exception: bool,
    pub(crate) data: Data<'a>,
}

/// An event's data: JSON, parsed when the hook first reads it.
pub(crate) struct Data<'a> {
    /// As encoded; empty if there is only the parsed form.
    pub(crate) json: &'a str,
    parsed: OnceCell<Map<String, Value>>,
    /// Whether an object has a key twice, of which the hook sees only the last value.
    has_duplicates: Cell<bool>,
    pub(crate) is_changed: bool,
    /// Whether parsing failed: a `Serialize` broke its promise to write JSON.
    is_broken: Cell<bool>,
}

impl<'a> Data<'a> {
    pub(crate) fn of_json(json: &'a str) -> Self {
        Self {
            json,
            parsed: OnceCell::new(),
            has_duplicates: Cell::new(false),
            is_changed: false,
            is_broken: Cell::new(false),
        }
    }

    pub(crate) fn of_map(map: Map<String, Value>) -> Self {
        let parsed = OnceCell::from(map);
        Self {
            parsed,
            ..Self::of_json("")
        }
    }

    pub(crate) fn get(&self) -> &Map<String, Value> {
        self.parsed.get_or_init(|| {
            let Some(parsed) = raw::parse(self.json) else {
                self.is_broken.set(true);
                return Map::new();
            };
            self.has_duplicates.set(parsed.has_duplicates);
            parsed.map
        })
    }

    pub(crate) fn get_mut(&mut self) -> &mut Map<String, Value> {
        self.get();
        self.is_changed = true;
        self.parsed.get_mut().expect("get() has parsed it")
    }
}

impl Data<'_> {
    /// Whether parsing failed: a `Serialize` broke its promise to write JSON.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.get()
    }

    /// Whether the hook has seen only the last of several values of a key.
    pub(crate) fn has_duplicates(&self) -> bool {
        self.has_duplicates.get()
    }
}

impl Draft<'_> {
    /// The event's name, as given to [`Handle::log`](crate::Handle::log); for an error, `UNHANDLED_EXCEPTION` or
    /// `user_error`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the name. Has no effect on an `UNHANDLED_EXCEPTION`, which has no name in the wire format.
    pub fn set_name(&mut self, name: impl Into<String>) {
        if !self.is_exception {
            self.name = Cow::Owned(name.into());
        }
    }

    /// The event's severity.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        self.severity
    }

    /// Changes the severity.
    pub const fn set_severity(&mut self, severity: Severity) {
        self.severity = severity;
    }

    /// Whether it is an `UNHANDLED_EXCEPTION`.
    #[must_use]
    pub const fn is_exception(&self) -> bool {
        self.is_exception
    }

    /// The event's data. The first call parses it.
    #[must_use]
    pub fn data(&self) -> &Map<String, Value> {
        self.data.get()
    }

    /// The event's data, mutably. What it leaves equal is sent as it was encoded: each top-level member keeps its bytes
    /// and its place, and within a member that it changes each untouched number keeps its text, though here a number
    /// beyond 64 bits is a floating-point one. Of an `UNHANDLED_EXCEPTION`, only the three texts are sent; anything
    /// added is ignored.
    pub fn data_mut(&mut self) -> &mut Map<String, Value> {
        self.data.get_mut()
    }
}

impl fmt::Debug for Draft<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The data may hold secrets.
        f.debug_struct("Draft")
            .field("name", &self.name)
            .field("severity", &self.severity)
            .finish_non_exhaustive()
    }
}

/// The application's scrub hook.
pub(crate) struct Scrub(pub(crate) Box<dyn Fn(&mut Draft<'_>) -> Verdict + Send + Sync>);

std::thread_local! {
    static IS_IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

impl Scrub {
    /// Calls the hook. Events that it logs itself are refused meanwhile: they would call it again, forever.
    pub(crate) fn apply(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        IS_IN_HOOK.set(true);
        let verdict = panics::catch(|| (self.0)(draft));
        IS_IN_HOOK.set(false);
        match verdict {
            Some(Verdict::Keep) => Ok(()),
            Some(Verdict::Drop) => Err(Refusal::Scrubbed),
            None => Err(Refusal::ScrubPanicked),
        }
    }

    /// Whether the calling thread is in a hook.
    pub(crate) fn is_running() -> bool {
        IS_IN_HOOK.get()
    }
}
