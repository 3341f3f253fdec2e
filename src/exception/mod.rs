//! Errors become events: an unhandled exception, or the user's own fault.

use crate::encode::{self, Cut};
use crate::scratch::{Failed, Scratch};
use crate::severity::Severity;
use crate::time::Timestamp;
use core::any::type_name;
use core::error::Error;
use core::fmt::{self, Write};
use serde::{Serialize, Serializer, ser::SerializeMap};

mod fault;
#[cfg(all(test, feature = "std"))]
mod tests;
mod traceback;

pub use fault::{Classify, Fault, StatusError};
pub use traceback::Stack;
use traceback::{ErrorType, Traceback};

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

    /// Whose fault it was, where the error knows more than its chain.
    #[doc(hidden)]
    fn fault(&self) -> Option<Fault<'_>> {
        None
    }

    /// Where it happened.
    #[doc(hidden)]
    fn stack(&self) -> Stack<'_> {
        Stack::Here
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

/// How a session looks at errors.
#[derive(Clone, Copy, Default)]
pub(crate) struct ErrorRules {
    /// The application's own.
    pub(crate) classify: Option<Classify>,
    /// The transport's, for the errors of its client.
    pub(crate) known: Option<Classify>,
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
    ) -> Result<(), Failed> {
        let name = ErrorType(error.as_error(), error.type_name());
        let stack = match error.stack() {
            _ if self.without_stacks => Stack::Unknown,
            stack => stack,
        };
        let own_fault = error.fault().filter(Fault::is_callers);
        let error = error.as_error();
        if let Some(fault) = own_fault.or_else(|| self.callers_fault(error)) {
            let data = UserError {
                error_type: &name,
                message: error,
                status_code: fault.status,
                body: fault.body.filter(|_| self.with_bodies),
                // The keys, the head and the timestamp have theirs.
                room: out.room().saturating_sub(192),
            };
            return encode::generic(out, || at, Severity::Warning, "user_error", &data);
        }
        let traceback = Traceback::new(error, stack);
        encode::exception(
            out,
            at,
            severity,
            &name,
            &error,
            traceback.as_ref().map(|traceback| traceback as _),
        )
    }

    /// The first error on the chain that is the caller's own fault.
    fn callers_fault<'a>(&self, error: &'a (dyn Error + 'static)) -> Option<Fault<'a>> {
        chain(error).find_map(|error| {
            // The application is asked first: it may know better.
            let asked = self.classify.and_then(|classify| classify(error));
            asked
                .or_else(|| error.downcast_ref().map(StatusError::fault))
                .or_else(|| self.known?(error))
                .filter(Fault::is_callers)
        })
    }
}

/// An error and its sources.
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
}

impl Serialize for UserError<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("error_type", &Cut::new(self.error_type, self.room / 8))?;
        if !is_empty(&self.message) {
            map.serialize_entry("message", &Cut::new(&self.message, self.room / 4))?;
        }
        if let Some(status) = self.status_code {
            map.serialize_entry("status_code", &status)?;
        }
        if let Some(body) = &self.body {
            map.serialize_entry("body", &Cut::new(body, self.room / 4))?;
        }
        map.end()
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
