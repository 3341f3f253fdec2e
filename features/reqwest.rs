//! reqwest: an asynchronous HTTP client, for tokio.

use super::http::{HttpClient, HttpError, ResponseBounds};
use crate::event::Blame;
use alloc::sync::Arc;
use alloc::vec::Vec;
use bytes::Bytes;
use core::error::Error;
use http::{Request, Response};
use reqwest::Client;
use rustls::{ClientConfig, RootCertStore};

/// An [`HttpClient`] for drivers that run on tokio, with rustls and the Mozilla root certificates.
///
/// Neither uses nor sets rustls's process-wide default provider.
#[derive(Clone, Debug)]
pub struct Reqwest {
    client: Client,
}

impl Reqwest {
    /// A client that follows no redirects and keeps its connection between requests.
    ///
    /// # Errors
    /// When reqwest cannot be set up, for example because of invalid proxy variables in the environment.
    pub fn new() -> Result<Self, HttpError> {
        let builder = Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .pool_max_idle_per_host(1);
        match builder.build() {
            Ok(client) => Ok(Self::with_client(client)),
            Err(error) => Err(HttpError::from_error(&error)),
        }
    }

    /// Uses the application's `client`, which brings its own certificates and proxies. It should not follow redirects.
    #[must_use]
    pub const fn with_client(client: Client) -> Self {
        Self { client }
    }
}

fn tls() -> Result<ClientConfig, HttpError> {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let roots = RootCertStore {
        roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
    };
    let config = ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .map_err(HttpError::new)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

impl HttpClient for Reqwest {
    async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(HttpError::new("reqwest works only on a tokio runtime"));
        }
        exchange(&self.client, request)
            .await
            .map_err(|error| HttpError::from_error(&error.without_url()))
    }

    /// The status of a [`reqwest::Error`] from `error_for_status`.
    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        let status = error.downcast_ref::<reqwest::Error>()?.status()?;
        Some(Blame::status(status.as_u16()))
    }
}

async fn exchange(client: &Client, request: Request<Bytes>) -> reqwest::Result<Response<Bytes>> {
    let max_bytes = ResponseBounds::of(&request).max_bytes;
    let mut response = client.execute(request.try_into()?).await?;
    let mut result = Response::new(Bytes::new());
    *result.status_mut() = response.status();
    *result.headers_mut() = core::mem::take(response.headers_mut());
    let mut body = response.chunk().await?.unwrap_or_default();
    let mut longer = Vec::new();
    // A body read to its end lets the connection be reused.
    while body.len().max(longer.len()) < max_bytes
        && let Some(chunk) = response.chunk().await?
    {
        if longer.is_empty() {
            longer.extend_from_slice(&body);
        }
        longer.extend_from_slice(&chunk);
    }
    if !longer.is_empty() {
        body = longer.into();
    }
    *result.body_mut() = body;
    Ok(result)
}
