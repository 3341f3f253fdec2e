//! Errors become events: an unhandled exception, or the user's own fault.

use crate::encode::{self, Cut};
use crate::limits::{DataLimits, Limited};
use crate::scratch::{Failed, Scratch};
use crate::severity::Severity;
use crate::time::Timestamp;
use core::any::type_name;
use core::cell::Cell;
use core::error::Error;
use core::fmt::{self, Write};
use serde::{Serialize, Serializer, ser::SerializeMap};

#[cfg(feature = "alloc")]
use alloc::string::String;

/// How far down a chain of [`source`](Error::source)s is looked: chains may be loops.
const MAX_CHAIN: usize = 64;

/// Anything that can be reported as an error: every [`Error`] type, and the trait objects `dyn Error`,
/// `dyn Error + Send` and `dyn Error + Send + Sync` (so `&*boxed` and `anyhow_error.as_ref()`).
pub trait AnyError: sealed::Sealed {
    #[doc(hidden)]
    fn as_error(&self) -> &(dyn Error + 'static);

    /// The error's type, where the compiler knows it.
    #[doc(hidden)]
    fn type_name(&self) -> Option<&'static str>;
}

mod sealed {
    pub trait Sealed {}
    impl<E: core::error::Error + 'static> Sealed for E {}
}

impl<E: Error + 'static> AnyError for E {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self
    }

    fn type_name(&self) -> Option<&'static str> {
        Some(type_name::<E>())
    }
}

macro_rules! any_error_for_trait_objects {
    ($($object:ty),*) => {$(
        impl sealed::Sealed for $object {}

        impl AnyError for $object {
            fn as_error(&self) -> &(dyn Error + 'static) {
                self
            }

            fn type_name(&self) -> Option<&'static str> {
                None
            }
        }
    )*};
}

any_error_for_trait_objects!(
    dyn Error + 'static,
    dyn Error + Send + 'static,
    dyn Error + Send + Sync + 'static
);

/// What a request's failure says about whose fault it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault<'a> {
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// The error says of itself that its category is "user".
    pub is_user: bool,
    /// The answer's body; attached to events only when the application opts in.
    pub body: Option<&'a str>,
}

impl<'a> Fault<'a> {
    /// An answer with this HTTP status.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            is_user: false,
            body: None,
        }
    }

    /// An error that says of itself that its category is "user".
    #[must_use]
    pub const fn user() -> Self {
        Self {
            status: None,
            is_user: true,
            body: None,
        }
    }

    /// With the answer's body.
    #[must_use]
    pub const fn with_body(mut self, body: &'a str) -> Self {
        self.body = Some(body);
        self
    }

    /// Whether it is the caller's own fault: category "user", or a status of 400 to 499 except 408 and 429.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        self.is_user || matches!(self.status, Some(400..=407 | 409..=428 | 430..=499))
    }
}

/// Looks at one error of a chain and says what it knows of whose fault it is; see
/// [`Builder::classify_errors`](crate::Builder::classify_errors).
pub type Classify = for<'a> fn(&'a (dyn Error + 'static)) -> Option<Fault<'a>>;

/// A failed request, as an error for applications that have none of their own: with it anywhere on an error's
/// `source()` chain, a status of the caller's own making is reported as `user_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusError {
    status: u16,
    #[cfg(feature = "alloc")]
    body: Option<String>,
}

impl StatusError {
    /// The answer had this HTTP status.
    #[must_use]
    pub const fn new(status: u16) -> Self {
        Self {
            status,
            #[cfg(feature = "alloc")]
            body: None,
        }
    }

    /// With the answer's body, which goes into events only when the application opts in.
    #[cfg(feature = "alloc")]
    #[must_use]
    pub fn with_body(mut self, body: impl Into<String>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    fn fault(&self) -> Fault<'_> {
        let fault = Fault::status(self.status);
        #[cfg(feature = "alloc")]
        if let Some(body) = &self.body {
            return fault.with_body(body);
        }
        fault
    }
}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP status {}", self.status)
    }
}

impl Error for StatusError {}

/// The event that an error becomes, in words.
#[cfg(feature = "std")]
pub(crate) enum Described {
    User(serde_json::Map<String, serde_json::Value>),
    Exception(serde_json::Map<String, serde_json::Value>),
}

/// How a session looks at errors.
#[derive(Clone, Copy, Default)]
pub(crate) struct ErrorRules {
    pub(crate) classify: Option<Classify>,
    pub(crate) with_bodies: bool,
    /// Even where `RUST_BACKTRACE` asks for stacks: they differ from build to build.
    pub(crate) without_stacks: bool,
}

impl ErrorRules {
    /// Everything behind the id and index of the event that `error` becomes.
    pub(crate) fn encode<E: AnyError + ?Sized>(
        &self,
        out: &mut Scratch<'_>,
        at: Timestamp,
        error: &E,
        severity: Severity,
        limits: &DataLimits,
    ) -> Result<(), Failed> {
        let name = ErrorType(error.as_error(), error.type_name());
        let error = error.as_error();
        let room = room_for_user_error(out);
        if let Some(data) = self.user_error(&name, error, room) {
            let limited = Limited::new(&data, limits, &data.is_cut);
            let encoded =
                encode::generic_limited(out, || at, Severity::Warning, "user_error", &limited);
            out.note_truncated(data.is_cut.get());
            return encoded;
        }
        let traceback = Traceback::capture(error, self.without_stacks);
        encode::exception(
            out,
            at,
            severity,
            &name,
            &error,
            traceback.as_ref().map(|traceback| traceback as _),
        )
    }

    /// What [`encode`](Self::encode) would write of `error`, each text of at most `room` bytes.
    #[cfg(feature = "std")]
    pub(crate) fn describe<E: AnyError + ?Sized>(&self, error: &E, room: usize) -> Described {
        let name = ErrorType(error.as_error(), error.type_name());
        let error = error.as_error();
        if let Some(data) = self.user_error(&name, error, room) {
            let data = serde_json::to_value(data).unwrap_or_default();
            return Described::User(match data {
                serde_json::Value::Object(data) => data,
                _ => serde_json::Map::new(),
            });
        }
        let traceback = Traceback::capture(error, self.without_stacks);
        let mut data = serde_json::Map::new();
        let mut add = |key: &str, text: &dyn fmt::Display| {
            let text = alloc::format!("{}", Cut::new(text, room));
            data.insert(key.into(), text.into());
        };
        add("error_type", &name);
        add("error_message", &error);
        if let Some(traceback) = &traceback {
            add("traceback", traceback);
        }
        Described::Exception(data)
    }

    /// The data of `error`, if it is the caller's own fault.
    fn user_error<'a>(
        &self,
        name: &'a ErrorType<'a>,
        error: &'a (dyn Error + 'static),
        room: usize,
    ) -> Option<UserError<'a>> {
        let fault = self.callers_fault(error)?;
        Some(UserError {
            error_type: name,
            message: error,
            status_code: fault.status,
            body: fault.body.filter(|_| self.with_bodies),
            room,
            is_cut: Cell::new(false),
        })
    }

    /// The first error on the chain that is the caller's own fault.
    fn callers_fault<'a>(&self, error: &'a (dyn Error + 'static)) -> Option<Fault<'a>> {
        chain(error).find_map(|error| {
            let own = error.downcast_ref().map(StatusError::fault);
            own.or_else(|| self.classify?(error))
                .filter(Fault::is_callers)
        })
    }
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    core::iter::successors(Some(error), |&error| error.source()).take(MAX_CHAIN)
}

/// `event_data` of a `user_error`.
struct UserError<'a> {
    error_type: &'a dyn fmt::Display,
    message: &'a dyn Error,
    status_code: Option<u16>,
    body: Option<&'a str>,
    room: usize,
    is_cut: Cell<bool>,
}

impl UserError<'_> {
    /// The part of the room that each text may have.
    const SHARES: [(&'static str, usize); 3] = [("error_type", 8), ("message", 4), ("body", 4)];

    fn add<M: SerializeMap>(
        &self,
        map: &mut M,
        (key, share): (&'static str, usize),
        text: &dyn fmt::Display,
    ) -> Result<(), M::Error> {
        let cut = Cut::new(text, self.room / share);
        map.serialize_entry(key, &cut)?;
        self.is_cut.set(self.is_cut.get() | cut.is_cut());
        Ok(())
    }
}

impl Serialize for UserError<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let [error_type, message, body] = Self::SHARES;
        let mut map = serializer.serialize_map(None)?;
        self.add(&mut map, error_type, self.error_type)?;
        if !is_empty(&self.message) {
            self.add(&mut map, message, &self.message)?;
        }
        if let Some(status) = self.status_code {
            map.serialize_entry("status_code", &status)?;
        }
        if let Some(text) = &self.body {
            self.add(&mut map, body, text)?;
        }
        map.end()
    }
}

/// What its texts may take: the keys, the head and the timestamp have theirs.
pub(crate) fn room_for_user_error(out: &Scratch<'_>) -> usize {
    out.room().saturating_sub(192)
}

/// Cuts the texts of a user error, that were described at length, to their parts of the room.
#[cfg(feature = "std")]
pub(crate) fn cut_user_error(data: &mut serde_json::Map<String, serde_json::Value>, room: usize) {
    for (key, share) in UserError::SHARES {
        if let Some(serde_json::Value::String(text)) = data.get_mut(key) {
            *text = alloc::format!("{}", Cut::new(text, room / share));
        }
    }
}

/// Whether a value's `Display` writes nothing.
fn is_empty(value: &dyn fmt::Display) -> bool {
    struct Nothing;
    impl Write for Nothing {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if text.is_empty() {
                Ok(())
            } else {
                Err(fmt::Error)
            }
        }
    }
    write!(Nothing, "{value}").is_ok()
}

/// The name of an error's type: of a known type the last segment of its path; else the identifier its `Debug` form
/// begins with, or `Error`.
struct ErrorType<'a>(&'a dyn Error, Option<&'static str>);

impl fmt::Display for ErrorType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = self.1 {
            let without_parameters = path.split('<').next().unwrap_or(path);
            return f.write_str(without_parameters.rsplit("::").next().unwrap_or(path));
        }
        let mut name = Identifier::default();
        // It stops at the first character that is not part of the identifier, with an error.
        let _ = write!(name, "{:?}", self.0);
        match name.0.as_str() {
            "" => f.write_str("Error"),
            name => f.write_str(name),
        }
    }
}

/// Takes the identifier that a text begins with.
#[derive(Default)]
struct Identifier(heapless::String<64>);

impl Write for Identifier {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let belongs = character == '_'
                || character.is_alphabetic()
                || (character.is_numeric() && !self.0.is_empty());
            if !belongs || self.0.push(character).is_err() {
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}

/// An error's sources, then, with `std`, the stack of the thread that reports it, if `RUST_BACKTRACE` asks for one.
struct Traceback<'a> {
    error: &'a (dyn Error + 'static),
    #[cfg(feature = "std")]
    backtrace: std::backtrace::Backtrace,
}

impl<'a> Traceback<'a> {
    /// `None` when there is nothing to show.
    fn capture(error: &'a (dyn Error + 'static), without_stack: bool) -> Option<Self> {
        let _ = without_stack;
        let traceback = Self {
            error,
            #[cfg(feature = "std")]
            backtrace: if without_stack {
                std::backtrace::Backtrace::disabled()
            } else {
                std::backtrace::Backtrace::capture()
            },
        };
        (error.source().is_some() || traceback.has_stack()).then_some(traceback)
    }

    #[cfg(feature = "std")]
    fn has_stack(&self) -> bool {
        self.backtrace.status() == std::backtrace::BacktraceStatus::Captured
    }

    #[cfg(not(feature = "std"))]
    #[expect(clippy::unused_self, reason = "there is never a stack without std")]
    fn has_stack(&self) -> bool {
        false
    }
}

impl fmt::Display for Traceback<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for source in chain(self.error).skip(1) {
            write!(
                f,
                "{separator}Caused by: {}: {source}",
                ErrorType(source, None)
            )?;
            separator = "\n";
        }
        #[cfg(feature = "std")]
        if self.has_stack() {
            write!(f, "{separator}Stack:\n{}", self.backtrace)?;
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "std"))]
mod tests {
    use super::*;
    use crate::scratch::encoded;
    use alloc::boxed::Box;
    use serde_json::{Value, json};

    #[derive(Debug)]
    struct Failed<S>(&'static str, Option<S>);

    impl<S> fmt::Display for Failed<S> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl<S: Error + 'static> Error for Failed<S> {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_ref().map(|source| source as _)
        }
    }

    fn event<E: AnyError + ?Sized>(rules: ErrorRules, error: &E) -> Value {
        let at = Timestamp::from_unix_micros(0);
        let tail = encoded(4_000, |out| {
            rules.encode(out, at, error, Severity::Critical, &DataLimits::NONE)
        });
        serde_json::from_slice(&[b"{\"event_id\":0", &tail.unwrap()[..]].concat()).unwrap()
    }

    /// The traceback without the stack, which is there when `RUST_BACKTRACE` is set.
    fn sources(event: &Value) -> &str {
        let traceback = event["traceback"].as_str().unwrap_or_default();
        traceback.split("Stack:\n").next().unwrap().trim_end()
    }

    #[test]
    fn an_error_is_an_unhandled_exception_with_its_sources() {
        let error = Failed("outer", Some("x".parse::<u8>().unwrap_err()));
        let json = event(ErrorRules::default(), &error);
        assert_eq!(json["event"], "UNHANDLED_EXCEPTION");
        assert_eq!(json["severity"], "CRITICAL");
        assert_eq!(json["error_type"], "Failed");
        assert_eq!(json["error_message"], "outer");
        assert_eq!(
            sources(&json),
            "Caused by: ParseIntError: invalid digit found in string"
        );
    }

    #[test]
    fn an_error_without_sources_has_no_traceback() {
        let json = event(ErrorRules::default(), &fmt::Error);
        assert_eq!(sources(&json), "");
        let wants_stack = Traceback::capture(&fmt::Error, false).is_some();
        assert_eq!(json.get("traceback").is_some(), wants_stack);
    }

    #[test]
    fn behind_dyn_the_type_is_what_debug_begins_with() {
        let boxed: Box<dyn Error> = Box::new("x".parse::<u8>().unwrap_err());
        assert_eq!(
            event(ErrorRules::default(), &*boxed)["error_type"],
            "ParseIntError"
        );
        let text: Box<dyn Error + Send + Sync> = "just text".into();
        assert_eq!(event(ErrorRules::default(), &*text)["error_type"], "Error");
    }

    #[test]
    fn a_4xx_anywhere_on_the_chain_is_the_users_own_fault() {
        for status in 100..600 {
            let error = Failed("outer", Some(StatusError::new(status).with_body("no")));
            let json = event(ErrorRules::default(), &error);
            if (400..500).contains(&status) && status != 408 && status != 429 {
                assert_eq!(json["event_name"], "user_error");
                assert_eq!(json["severity"], "WARNING");
                assert_eq!(
                    json["event_data"],
                    json!({"error_type": "Failed", "message": "outer", "status_code": status})
                );
            } else {
                assert_eq!(json["event"], "UNHANDLED_EXCEPTION", "{status}");
            }
        }
    }

    #[test]
    fn bodies_and_empty_messages_are_left_out_unless_wanted() {
        let error = Failed("", Some(StatusError::new(404).with_body("no such model")));
        let with_bodies = ErrorRules {
            with_bodies: true,
            classify: None,
            ..ErrorRules::default()
        };
        assert_eq!(
            event(with_bodies, &error)["event_data"],
            json!({"error_type": "Failed", "status_code": 404, "body": "no such model"})
        );
    }

    #[test]
    fn a_classifier_of_the_applications_own_is_asked_for_every_error_on_the_chain() {
        let rules = ErrorRules {
            classify: Some(|error| error.is::<fmt::Error>().then(Fault::user)),
            with_bodies: false,
            ..ErrorRules::default()
        };
        let json = event(rules, &Failed("outer", Some(fmt::Error)));
        assert_eq!(
            json["event_data"],
            json!({"error_type": "Failed", "message": "outer"})
        );
    }

    #[test]
    fn a_chain_that_is_a_loop_ends() {
        #[derive(Debug)]
        struct Loop;
        impl fmt::Display for Loop {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("again")
            }
        }
        impl Error for Loop {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&Self)
            }
        }
        let json = event(ErrorRules::default(), &Loop);
        assert_eq!(sources(&json).lines().count(), MAX_CHAIN - 1);
    }

    #[test]
    fn a_huge_message_is_cut_and_not_refused() {
        let long = "y".repeat(10_000);
        let error: Box<dyn Error> = long.clone().into();
        let json = event(ErrorRules::default(), &*error);
        let message = json["error_message"].as_str().unwrap();
        assert!(message.ends_with("… (cut)") && long.starts_with(&message[..100]));
    }

    #[test]
    fn a_user_error_of_long_texts_fits_into_the_smallest_event() {
        let long = "y".repeat(10_000);
        let error = StatusError::new(404).with_body(long);
        let rules = ErrorRules {
            with_bodies: true,
            classify: None,
            ..ErrorRules::default()
        };
        let room = crate::Options::MIN_EVENT_BYTES - crate::encode::Front::MAX;
        let at = Timestamp::from_unix_micros(0);
        let tail = encoded(room, |out| {
            rules.encode(out, at, &error, Severity::Error, &DataLimits::NONE)
        });
        assert!(tail.is_ok(), "{tail:?}");
    }

    #[test]
    fn an_error_whose_display_fails_is_reported_as_far_as_it_went() {
        #[derive(Debug)]
        struct Half;
        impl fmt::Display for Half {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("half of")?;
                Err(fmt::Error)
            }
        }
        impl Error for Half {}
        assert_eq!(
            event(ErrorRules::default(), &Half)["error_message"],
            "half of"
        );
    }
}
