//! The transport: one request for each batch, over any HTTP client.

use super::config::{OtlpConfig, ResolvedConfig};
use super::request::Encoder;
use super::response::outcome;
use crate::event::Blame;
use crate::features::http::ConfigError;
use crate::features::http::events::OwnRequest;
use crate::features::http::transport::BODY_TIMEOUT;
use crate::features::http::{HttpClient, ResponseBounds, no_response, printable};
use crate::transport::{Batch, Receipt, SendError, SetupError, Transport};
use alloc::vec::Vec;
use bytes::Bytes;
use core::error::Error;
use core::fmt;
use http::{Method, Request};

/// Sends batches to an OpenTelemetry collector, as log records over OTLP/HTTP, through any [`HttpClient`].
///
/// ```
/// # #[cfg(all(feature = "thread", feature = "ureq"))]
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport};
/// use tinkex_telemetry::{Reporter, Thread, Ureq};
///
/// let config = OtlpConfig::from_env()?; // OTEL_EXPORTER_OTLP_ENDPOINT and others
/// let telemetry = Reporter::builder("session-123")
///     .transport(OtlpTransport::new(config, Ureq::new()))
///     .runtime(Thread)
///     .start()?;
/// # drop(telemetry);
/// # Ok(())
/// # }
/// ```
///
/// | response | outcome |
/// |---|---|
/// | 2xx | handed over: a collector may still lose what it has acknowledged. Records that a partial success reports as rejected are dropped, with reason `rejected` |
/// | none; 429, 502, 503, 504 | retried, after `Retry-After` if present |
/// | 413; 400 with a text such as "too large" | too large: the batch is halved |
/// | 400, 422 | a record is invalid: the batch is halved until the events at fault stand alone |
/// | anything else, 500 and redirects included | rejected: the protocol forbids to retry them |
///
/// Sending again after a response that was lost stores a record twice; `log.record.uid` tells.
pub struct OtlpTransport<H> {
    config: Result<ResolvedConfig, ConfigError>,
    client: H,
    encoder: Encoder,
    /// The body of the last request, to be reused.
    spare: Vec<u8>,
}

impl<H> OtlpTransport<H> {
    /// A transport that sends to `config`'s URL through `client`.
    pub fn new(config: OtlpConfig, client: H) -> Self {
        Self {
            config: config.resolved,
            client,
            encoder: Encoder::default(),
            spare: Vec::new(),
        }
    }
}

impl<H: HttpClient> Transport for OtlpTransport<H> {
    async fn send(&mut self, batch: Batch<'_>) -> Result<Receipt, SendError> {
        let config = self.config.as_ref().map_err(SendError::retryable)?;
        let mut body = core::mem::take(&mut self.spare);
        body.clear();
        self.encoder
            .encode(config, batch.body(), &mut body)
            .map_err(|_| SendError::invalid_events("an event is not the JSON of an event"))?;
        let body = Bytes::from(config.compressed(body)?);
        let mut request = Request::new(body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = config.endpoint.clone();
        *request.headers_mut() = config.headers.clone();
        request.extensions_mut().insert(OwnRequest);
        let mut bounds = ResponseBounds::of(&request);
        bounds.give_up_after = Some(batch.time_left());
        bounds.body_timeout = Some((batch.time_left() / 4).min(BODY_TIMEOUT));
        request.extensions_mut().insert(bounds);
        let result = self.client.send(request).await;
        if body.is_unique() {
            self.spare = Vec::from(body);
        }
        match result {
            Ok(response) => outcome(&response, batch.event_count(), config),
            Err(error) => match error.response().filter(|_| error.is_retryable()) {
                Some(response) => outcome(&response, batch.event_count(), config),
                None => Err(no_response(&error, &config.endpoint, &config.secrets)),
            },
        }
    }

    fn check(&self) -> Result<(), SetupError> {
        let config = self.config.as_ref().map_err(SetupError::new)?;
        let checked = self.client.check(&config.endpoint);
        checked.map_err(|error| {
            let message = printable::<160>(error.message().as_bytes(), &config.secrets);
            SetupError::new(message)
        })
    }

    fn destination(&self) -> Option<&str> {
        let config = self.config.as_ref().ok()?;
        Some(&config.destination)
    }

    fn warning(&self) -> Option<SetupError> {
        let warning = self.config.as_ref().ok()?.warning.as_ref()?;
        Some(SetupError::new(warning))
    }

    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        H::blame(error)
    }
}

impl<H> fmt::Debug for OtlpTransport<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpTransport")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}
