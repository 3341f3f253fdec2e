//! The wire protocol over HTTP, for any client.

#[cfg(feature = "client")]
mod api;
mod boxed;
mod client;
pub(crate) mod config;
mod config_error;
mod config_file;
mod either;
pub(crate) mod events;
pub(crate) mod failure;
#[cfg(any(feature = "reqwest", feature = "ureq"))]
pub(crate) mod proxy;
pub(crate) mod redact;
#[cfg(any(feature = "reqwest", feature = "ureq"))]
pub(crate) mod tls;
pub(crate) mod transport;
pub(crate) mod url;

pub use boxed::BoxHttpClient;
pub use client::{HttpClient, HttpError, MAX_RESPONSE_BYTES, ResponseBounds};
pub use config::Config;
#[cfg(feature = "cli")]
pub(crate) use config::DEFAULT_URL;
pub use config_error::{ConfigError, ConfigProblem};
pub use events::{HttpCall, HttpEvents, Observed, RetryCount};
pub use transport::HttpTransport;

#[cfg(any(feature = "client", feature = "otlp"))]
pub(crate) use transport::printable;
#[cfg(feature = "otlp")]
pub(crate) use transport::{after, no_response};
#[cfg(feature = "client")]
pub(crate) use {api::Api, failure::Failure};
