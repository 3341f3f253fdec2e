//! What all calls to one backend share, for a client of its API.

use super::config::Config;
use super::config_error::ConfigError;
use super::redact::Secrets;
use super::url::PATH;
use alloc::boxed::Box;
use alloc::format;
use http::HeaderMap;

/// Base URL and headers of every call to the backend.
pub(crate) struct Api {
    /// The URL prefix of all calls, ending in a slash.
    pub(crate) base: Box<str>,
    /// Without the idempotency key.
    pub(crate) headers: HeaderMap,
    /// Redacted wherever a response's text is repeated.
    pub(crate) secrets: Secrets,
}

impl Config {
    pub(crate) fn api(&self) -> Result<Api, ConfigError> {
        let config = self.resolved.as_ref().map_err(Clone::clone)?;
        let endpoint = format!("{}", config.endpoint);
        let telemetry = PATH.rsplit('/').next().unwrap_or_default();
        Ok(Api {
            base: endpoint.strip_suffix(telemetry).unwrap_or(&endpoint).into(),
            headers: config.headers.clone(),
            secrets: config.secrets.clone(),
        })
    }
}
