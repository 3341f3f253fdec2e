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

/// A [`HttpClient`] for drivers that run on tokio, with rustls and the Mozilla root certificates.
///
/// The process's own default of rustls is neither needed nor set.
#[derive(Clone, Debug)]
pub struct Reqwest {
    client: Client,
}

impl Reqwest {
    /// A client that follows no redirects and keeps its connection between requests.
    ///
    /// # Errors
    /// When reqwest cannot be set up, as with proxy variables in the environment that make no sense.
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

    /// A client of the application's own: certificates, proxies and the like are its own. It should follow no
    /// redirects.
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

    /// The status of a [`reqwest::Error`], which `error_for_status` makes.
    fn blame<'a>(error: &'a (dyn Error + 'static)) -> Option<Blame<'a>> {
        let status = error.downcast_ref::<reqwest::Error>()?.status()?;
        Some(Blame::status(status.as_u16()))
    }
}

async fn exchange(client: &Client, request: Request<Bytes>) -> reqwest::Result<Response<Bytes>> {
    let most = ResponseBounds::of(&request).max_bytes;
    let mut answer = client.execute(request.try_into()?).await?;
    let mut result = Response::new(Bytes::new());
    *result.status_mut() = answer.status();
    *result.headers_mut() = core::mem::take(answer.headers_mut());
    let mut body = answer.chunk().await?.unwrap_or_default();
    let mut longer = Vec::new();
    // Read to its end, the connection can be used again.
    while body.len().max(longer.len()) < most
        && let Some(chunk) = answer.chunk().await?
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
