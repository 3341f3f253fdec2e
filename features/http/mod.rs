//! The wire over HTTP, for any client.

mod client;
mod config;
mod events;
mod reason;
mod transport;

pub use client::{HttpClient, HttpError, MAX_RESPONSE_BYTES, ResponseBounds};
pub use config::{Config, ConfigError, ConfigProblem};
pub use events::{HttpCall, HttpEvents, Observed, RetryCount};
pub use transport::HttpTransport;

#[allow(unused_imports, reason = "there may be no feature that is switched on")]
pub(crate) use config::Api;
#[allow(unused_imports, reason = "there may be no feature that is switched on")]
pub(crate) use transport::printable;

#[allow(unused_imports, reason = "there may be no feature that is switched on")]
pub(crate) use events::{Marks, OwnRequest};
#[allow(unused_imports, reason = "there may be no feature that is switched on")]
pub(crate) use reason::{Failure, of_error, of_io, of_text};
