//! Events: their severities, fields and errors, and how they become bytes.
//!
//! The logging thread encodes an event once. What is queued is what is sent: later changes to a value have no effect.

pub(crate) mod context;
pub(crate) mod cut;
pub(crate) mod encode;
pub(crate) mod exception;
pub(crate) mod fields;
pub(crate) mod json;
pub(crate) mod limits;
#[cfg(feature = "std")]
pub(crate) mod raw;
#[cfg(feature = "std")]
pub(crate) mod scrub;
pub(crate) mod severity;
pub(crate) mod writer;

#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use exception::UserFault;
pub use exception::{AnyError, Blame, Classify, Loggable, StatusError};
pub use fields::Fields;
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use scrub::{Draft, Verdict};
/// What a [`Draft`]'s data is made of, in the version that this crate uses.
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
#[doc(no_inline)]
pub use serde_json;
pub use severity::{ParseSeverityError, Severity};
