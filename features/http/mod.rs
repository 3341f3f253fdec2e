//! The wire over HTTP, for any client.

mod client;
mod config;
mod transport;

pub use client::{HttpClient, HttpError, MAX_ANSWER_BYTES};
pub use config::{Config, ConfigError, ConfigProblem};
pub use transport::HttpTransport;
