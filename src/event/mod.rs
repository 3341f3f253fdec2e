//! Events: their severities, fields and errors, and how they become bytes.
//!
//! An event is encoded once, by the thread that logs it. What is queued is what is sent; a value that changes later
//! changes nothing.

pub(crate) mod encode;
pub(crate) mod exception;
pub(crate) mod fields;
pub(crate) mod limits;
#[cfg(feature = "std")]
pub(crate) mod scrub;
pub(crate) mod severity;
pub(crate) mod writer;

#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use exception::UserFault;
pub use exception::{AnyError, Classify, Fault, StatusError};
pub use fields::Fields;
#[cfg(feature = "std")]
#[cfg_attr(docsrs, doc(cfg(feature = "std")))]
pub use scrub::{Draft, Verdict};
pub use severity::{ParseSeverityError, Severity};
