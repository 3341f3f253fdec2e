//! The settings of a `Reqwest`.

use super::Reqwest;
use crate::features::http::HttpError;
use crate::features::http::proxy::Proxies;
use crate::features::http::tls::Certificates;
use alloc::sync::Arc;
use core::fmt;
use core::time::Duration;
use reqwest::{Client, Url};
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::Handle;

/// The longest time for connecting, until the length of an attempt is known.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The settings of a [`Reqwest`]; see [`Reqwest::builder`].
///
/// ```
/// use core::time::Duration;
/// use tinkex_telemetry::Reqwest;
///
/// # fn example(private_ca: &str) -> Result<(), tinkex_telemetry::http::HttpError> {
/// let client = Reqwest::builder()
///     .root_certificates(private_ca)?
///     .proxy("http://proxy.example:3128")?
///     .connect_timeout(Duration::from_secs(2))
///     .build()?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Default)]
pub struct ReqwestBuilder {
    certificates: Certificates,
    proxies: Option<Proxies>,
    connect_timeout: Option<Duration>,
    runtime: Option<Handle>,
}

impl ReqwestBuilder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Trusts the certificates in `pem` instead of the Mozilla root certificates: a private CA. `pem` is text in PEM
    /// form, with one certificate or several.
    ///
    /// # Errors
    /// If there is no certificate in it, or one that cannot be read.
    pub fn root_certificates(mut self, pem: impl AsRef<[u8]>) -> Result<Self, HttpError> {
        self.certificates.set_roots(pem.as_ref())?;
        Ok(self)
    }

    /// Presents a certificate to the server (mutual TLS): the chain, the client's own certificate first, and its
    /// private key (PKCS#8, PKCS#1 or SEC1), both in PEM form. They may be in one file.
    ///
    /// # Errors
    /// If there is no certificate or no private key, one that cannot be read, or a key of another certificate.
    pub fn client_certificate(
        mut self,
        chain: impl AsRef<[u8]>,
        key: impl AsRef<[u8]>,
    ) -> Result<Self, HttpError> {
        self.certificates
            .set_identity(chain.as_ref(), key.as_ref())?;
        Ok(self)
    }

    /// Sends every request through this proxy, instead of those of the environment: `http://` or `https://`, with
    /// credentials if it needs them (`http://user:password@host:port`).
    ///
    /// # Errors
    /// If it is not such a URL. The message shows no credentials.
    pub fn proxy(mut self, url: &str) -> Result<Self, HttpError> {
        self.proxies = Some(Proxies::one(url)?);
        Ok(self)
    }

    /// Sends every request directly, whatever the environment says.
    #[must_use]
    pub fn no_proxy(mut self) -> Self {
        self.proxies = Some(Proxies::none());
        self
    }

    /// How long connecting may take, TLS included, shared among the addresses of the host. Never more than three
    /// quarters of an attempt, which is the default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// The tokio runtime on which connections live. Default: the one around [`build`](Self::build).
    #[must_use]
    pub fn on(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// When reqwest cannot be set up.
    pub fn build(self) -> Result<Reqwest, HttpError> {
        let roots = match &self.certificates.roots {
            Some(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone()).map_err(HttpError::new)?;
                }
                roots
            }
            None => RootCertStore {
                roots: webpki_roots::TLS_SERVER_ROOTS.to_vec(),
            },
        };
        let tls = self.certificates.client_config(roots);
        let recipe = Recipe {
            tls: Arc::new(tls.map_err(HttpError::new)?),
            proxies: self.proxies.unwrap_or_else(Proxies::from_env),
            connect_timeout: self.connect_timeout,
        };
        let client = recipe.build(self.connect_timeout.unwrap_or(CONNECT_TIMEOUT))?;
        Ok(Reqwest {
            client,
            runtime: self.runtime.or_else(|| Handle::try_current().ok()),
            proxies: Some(recipe.proxies.clone()),
            recipe: Some(recipe),
            may_redirect: false,
        })
    }
}

/// What a client is made of.
#[derive(Clone)]
pub(super) struct Recipe {
    tls: Arc<ClientConfig>,
    proxies: Proxies,
    connect_timeout: Option<Duration>,
}

impl Recipe {
    /// Another client, if connecting could otherwise take too large a part of an attempt of this length.
    pub(super) fn fitted(&self, attempt: Duration) -> Result<Option<Client>, HttpError> {
        let share = attempt / 4 * 3;
        match self.connect_timeout {
            Some(own) if own <= share => Ok(None),
            _ => self.build(share).map(Some),
        }
    }

    fn build(&self, connect_timeout: Duration) -> Result<Client, HttpError> {
        let proxies = self.proxies.clone();
        // A proxy that cannot be used is an error before anything is sent.
        let find = move |url: &Url| proxies.find(&url.as_str().parse().ok()?).ok()?;
        let builder = Client::builder()
            .tls_backend_preconfigured(ClientConfig::clone(&self.tls))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .proxy(reqwest::Proxy::custom(find))
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(1);
        builder
            .build()
            .map_err(|error| HttpError::from_error(&error))
    }
}

impl fmt::Debug for ReqwestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReqwestBuilder")
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}
