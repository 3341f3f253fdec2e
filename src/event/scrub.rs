//! The hook that looks at events before they are queued, to remove what must not leave the program.

use crate::event::severity::Severity;
use crate::stats::Refusal;
use crate::sys::panics;
use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::string::String;
use core::cell::{Cell, OnceCell};
use core::fmt;
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
    pub(crate) name: Cow<'a, str>,
    pub(crate) severity: Severity,
    pub(crate) is_exception: bool,
    pub(crate) data: Data<'a>,
}

/// An event's data: JSON, and its parsed form once the hook has looked at it.
pub(crate) struct Data<'a> {
    /// As it was encoded; empty where `parsed` is all there is.
    pub(crate) json: &'a [u8],
    parsed: OnceCell<Map<String, Value>>,
    pub(crate) is_changed: bool,
    /// It is not the JSON that a `Serialize` promises.
    is_broken: Cell<bool>,
}

impl<'a> Data<'a> {
    pub(crate) fn of_json(json: &'a [u8]) -> Self {
        Self {
            json,
            parsed: OnceCell::new(),
            is_changed: false,
            is_broken: Cell::new(false),
        }
    }

    pub(crate) fn of_map(map: Map<String, Value>) -> Self {
        let parsed = OnceCell::from(map);
        Self {
            parsed,
            ..Self::of_json(b"")
        }
    }

    pub(crate) fn get(&self) -> &Map<String, Value> {
        self.parsed.get_or_init(|| {
            let parsed = serde_json::from_slice(self.json);
            parsed.unwrap_or_else(|_| {
                self.is_broken.set(true);
                Map::new()
            })
        })
    }

    pub(crate) fn get_mut(&mut self) -> &mut Map<String, Value> {
        self.get();
        self.is_changed = true;
        self.parsed.get_mut().expect("it was just parsed")
    }
}

impl Data<'_> {
    /// Whether it turned out not to be the JSON that a `Serialize` promises.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.get()
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
    pub(crate) fn ask(&self, draft: &mut Draft<'_>) -> Result<(), Refusal> {
        IS_IN_HOOK.set(true);
        let verdict = panics::catch(|| (self.0)(draft));
        IS_IN_HOOK.set(false);
        match verdict {
            Some(Verdict::Keep) => Ok(()),
            Some(Verdict::Drop) => Err(Refusal::Scrubbed),
            None => Err(Refusal::ScrubPanicked),
        }
    }

    pub(crate) fn is_asked() -> bool {
        IS_IN_HOOK.get()
    }
}
