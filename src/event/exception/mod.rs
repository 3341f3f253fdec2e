//! Encoding of errors: as an unhandled exception, or as a user error.

use crate::event::context::Context;
use crate::event::cut::Cut;
use crate::event::encode::{self, Exception, Heading};
use crate::event::limits::{DataLimits, Limited};
use crate::event::severity::Severity;
use crate::event::writer::{EventWriter, Failed};
use crate::time::Timestamp;
use core::any::type_name;
use core::cell::Cell;
use core::error::Error;
use core::fmt::{self, Write};
use serde::{Serialize, Serializer, ser::SerializeMap};

mod blame;
pub(crate) mod loggable;
#[cfg(all(test, feature = "std"))]
mod tests;
mod traceback;

#[cfg(feature = "std")]
pub use blame::UserFault;
pub use blame::{Blame, Classify, StatusError};
pub use loggable::{ByBox, ByError, ByText, Loggable};
pub use traceback::Stack;
use traceback::{ErrorType, Traceback};

/// The maximum number of errors visited on a chain of [`source`](Error::source)s, which may be a loop.
const MAX_CHAIN: usize = 64;

/// Anything that can be reported as an error: every [`Error`] type, and the trait objects `dyn Error`,
/// `dyn Error + Send` and `dyn Error + Send + Sync`. See [`Loggable`] for what else can be logged.
pub trait AnyError: sealed::Sealed {
    #[doc(hidden)]
    fn as_error(&self) -> &(dyn Error + 'static);

    /// The error's type, if it is known statically.
    #[doc(hidden)]
    fn type_name(&self) -> Option<&'static str>;

    /// Who is to blame, if the error knows more than its chain.
    #[doc(hidden)]
    fn blame(&self) -> Option<Blame<'_>> {
        None
    }

    /// The stack that its event shows.
    #[doc(hidden)]
    fn stack(&self) -> Stack<'_> {
        Stack::Here
    }

    /// Whether it may be the caller's fault. A panic is not, and is logged where none of the application's code should
    /// run.
    #[doc(hidden)]
    fn is_classified(&self) -> bool {
        true
    }
}

pub(crate) mod sealed {
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

/// The data of the event that an error becomes.
#[cfg(feature = "std")]
pub(crate) enum Described {
    /// An object.
    User(alloc::string::String),
    Exception(serde_json::Map<alloc::string::String, serde_json::Value>),
}

/// [`Described`], and whether one of its texts was cut.
#[cfg(feature = "std")]
pub(crate) struct Description {
    pub(crate) data: Described,
    pub(crate) is_cut: bool,
}

/// A trait object, with what its original type says about the error.
#[cfg(feature = "alloc")]
pub struct DynamicError<'a> {
    pub(crate) error: &'a (dyn Error + 'static),
    pub(crate) blame: Option<Blame<'a>>,
    /// The stack captured where the error was created.
    pub(crate) stack: Option<alloc::string::String>,
}

#[cfg(feature = "alloc")]
impl<'a> DynamicError<'a> {
    pub(crate) fn new(error: &'a (dyn Error + 'static)) -> Self {
        Self {
            error,
            blame: None,
            stack: None,
        }
    }
}

#[cfg(feature = "alloc")]
impl sealed::Sealed for DynamicError<'_> {}

#[cfg(feature = "alloc")]
impl AnyError for DynamicError<'_> {
    fn as_error(&self) -> &(dyn Error + 'static) {
        self.error
    }

    fn type_name(&self) -> Option<&'static str> {
        None
    }

    fn blame(&self) -> Option<Blame<'_>> {
        self.blame
    }

    fn stack(&self) -> Stack<'_> {
        self.stack
            .as_ref()
            .map_or(Stack::Here, |stack| Stack::Known(stack))
    }
}

/// Names the types of errors behind trait objects, for those types that a session knows.
#[derive(Clone, Copy, Default)]
pub(crate) struct TypeNames(#[cfg(feature = "std")] Option<TypeName>);

/// A function that returns the path of an error's type, if it knows the type.
#[cfg(feature = "std")]
pub(crate) type TypeName = fn(&(dyn Error + 'static)) -> Option<&'static str>;

/// The path of an error's type, if it is this one.
#[cfg(feature = "std")]
pub(crate) fn type_name_if<E: Error + 'static>(
    error: &(dyn Error + 'static),
) -> Option<&'static str> {
    error.is::<E>().then(type_name::<E>)
}

impl TypeNames {
    #[cfg(feature = "std")]
    pub(crate) const fn new(name: TypeName) -> Self {
        Self(Some(name))
    }

    #[cfg(feature = "std")]
    fn of(self, error: &(dyn Error + 'static)) -> Option<&'static str> {
        self.0.and_then(|name| name(error))
    }

    /// Without `std` none: a list of types would cost more than it tells.
    #[cfg(not(feature = "std"))]
    fn of(self, _: &(dyn Error + 'static)) -> Option<&'static str> {
        None
    }
}

/// How a session classifies and encodes errors.
#[derive(Clone, Copy, Default)]
pub(crate) struct ErrorRules {
    /// The application's classifier.
    pub(crate) classify: Option<Classify>,
    /// The transport's classifier, for errors of its HTTP client.
    pub(crate) known: Option<Classify>,
    /// Names the types of errors behind trait objects.
    pub(crate) names: TypeNames,
    pub(crate) with_bodies: bool,
    /// Overrides `RUST_BACKTRACE`: stacks differ from build to build.
    pub(crate) without_stacks: bool,
}

impl ErrorRules {
    /// Writes everything after the id and index of the event that `error` becomes. Returns that event's severity.
    pub(crate) fn encode<E: AnyError + ?Sized>(
        &self,
        out: &mut EventWriter<'_>,
        at: Timestamp,
        error: &E,
        heading: Heading<'_>,
        limits: &DataLimits,
    ) -> Result<Severity, Failed> {
        let name = self.name(error);
        let room = room_for_user_error(out, heading.context);
        if let Some(data) = self.user_error(&name, error, room) {
            let limited = Limited::new(&data, limits, &data.is_cut);
            let heading = Heading {
                name: "user_error",
                severity: Severity::Warning,
                ..heading
            };
            let encoded = encode::generic_limited(out, || at, heading, &limited);
            out.note_truncated(data.is_cut.get());
            return encoded.map(|()| Severity::Warning);
        }
        let traceback = self.traceback(error, heading.context);
        let exception = Exception {
            severity: heading.severity,
            error_type: &name,
            message: &error.as_error(),
            traceback: traceback.as_ref().map(|traceback| traceback as _),
            kept: heading.context.map_or(0, Context::len_in_traceback),
        };
        encode::exception(out, at, &exception)?;
        Ok(heading.severity)
    }

    /// The data that [`encode`](Self::encode) would write for `error`, each text cut to `room` bytes of JSON.
    #[cfg(feature = "std")]
    pub(crate) fn describe<E: AnyError + ?Sized>(
        &self,
        error: &E,
        context: Option<&Context>,
        room: usize,
    ) -> Description {
        let name = self.name(error);
        if let Some(data) = self.user_error(&name, error, room) {
            let mut json = serde_json::to_string(&data).unwrap_or_else(|_| "{}".into());
            if let Some(context) = context {
                json.pop();
                json = alloc::format!("{json},\"context\":{}}}", context.json());
            }
            return Description {
                data: Described::User(json),
                is_cut: data.is_cut.get(),
            };
        }
        let mut is_cut = false;
        let mut data = serde_json::Map::new();
        let mut add = |key: &str, text: &dyn fmt::Display| {
            let cut = Cut::new(text, room);
            data.insert(key.into(), alloc::format!("{cut}").into());
            is_cut |= cut.is_cut();
        };
        add("error_type", &name);
        add("error_message", &error.as_error());
        if let Some(traceback) = &self.traceback(error, context) {
            add("traceback", traceback);
        }
        Description {
            data: Described::Exception(data),
            is_cut,
        }
    }

    fn name<'a, E: AnyError + ?Sized>(&self, error: &'a E) -> ErrorType<'a> {
        ErrorType {
            error: error.as_error(),
            path: error.type_name(),
            names: self.names,
        }
    }

    fn traceback<'a, E: AnyError + ?Sized>(
        &self,
        error: &'a E,
        context: Option<&'a Context>,
    ) -> Option<Traceback<'a>> {
        let stack = match error.stack() {
            _ if self.without_stacks => Stack::Unknown,
            stack => stack,
        };
        Traceback::new(error.as_error(), self.names, stack, context)
    }

    /// The data of a `user_error`, if the caller is at fault.
    fn user_error<'a, E: AnyError + ?Sized>(
        &self,
        name: &'a ErrorType<'a>,
        error: &'a E,
        room: usize,
    ) -> Option<UserError<'a>> {
        let blame = self.blame(error)?;
        Some(UserError {
            error_type: name,
            message: error.as_error(),
            status_code: blame.status,
            body: blame.body.filter(|_| self.with_bodies),
            room,
            is_cut: Cell::new(false),
        })
    }

    /// The verdict that the caller is to blame.
    fn blame<'a, E: AnyError + ?Sized>(&self, error: &'a E) -> Option<Blame<'a>> {
        if !error.is_classified() {
            return None;
        }
        let is_judged = |error| {
            self.classify
                .is_some_and(|classify| classify(error).is_some())
        };
        // What the error says as a whole does not count where the application has a verdict of its own.
        let own_blame = error
            .blame()
            .filter(|blame| blame.is_callers() && !chain(error.as_error()).any(is_judged));
        own_blame.or_else(|| self.callers_blame(error.as_error()))
    }

    /// The verdict on the first error of the chain for which the caller is to blame.
    fn callers_blame<'a>(&self, error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        chain(error).find_map(|error| {
            // The application's verdict takes precedence.
            let verdict = self.classify.and_then(|classify| classify(error));
            verdict
                .or_else(|| error.downcast_ref().map(StatusError::blame))
                .or_else(|| user_fault(error))
                .or_else(|| self.known?(error))
                .filter(Blame::is_callers)
        })
    }
}

#[cfg(feature = "std")]
fn user_fault(error: &(dyn Error + 'static)) -> Option<Blame<'static>> {
    error.is::<UserFault>().then(Blame::user)
}

#[cfg(not(feature = "std"))]
fn user_fault(_: &(dyn Error + 'static)) -> Option<Blame<'static>> {
    None
}

/// An error and its sources, at most [`MAX_CHAIN`] of them: the one loop over [`source`](Error::source) in this crate.
pub(crate) fn chain<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
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
    /// Each text's share of the room: one `n`-th.
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

/// The room for the texts of a user error: what keys, head, timestamp and context leave.
pub(crate) fn room_for_user_error(out: &EventWriter<'_>, context: Option<&Context>) -> usize {
    let taken = 192 + context.map_or(0, Context::len_in_data);
    out.room().saturating_sub(taken)
}

/// Cuts the texts of a described user error to their shares of the room. Returns whether it cut one.
#[cfg(feature = "std")]
pub(crate) fn cut_user_error(
    data: &mut serde_json::Map<alloc::string::String, serde_json::Value>,
    room: usize,
) -> bool {
    let mut is_cut = false;
    for (key, share) in UserError::SHARES {
        if let Some(serde_json::Value::String(text)) = data.get_mut(key) {
            let cut = Cut::new(text, room / share);
            let shortened = alloc::format!("{cut}");
            is_cut |= cut.is_cut();
            *text = shortened;
        }
    }
    is_cut
}

/// Whether a value's `Display` writes nothing.
fn is_empty(value: &dyn fmt::Display) -> bool {
    struct Empty;
    impl Write for Empty {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if text.is_empty() {
                Ok(())
            } else {
                Err(fmt::Error)
            }
        }
    }
    write!(Empty, "{value}").is_ok()
}
