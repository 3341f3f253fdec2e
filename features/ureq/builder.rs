//! The settings of a `Ureq`.

use super::MAX_THREADS;
use super::Ureq;
use crate::features::http::HttpError;
use crate::features::http::proxy::Proxies;
use crate::features::http::tls::Certificates;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use rustls::pki_types::CertificateDer;
use ureq::Agent;
use ureq::config::{Config, ConfigBuilder};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};
use ureq::typestate::AgentScope;

/// For each phase of a call.
pub(super) const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest head of a response, in bytes. With TLS, ureq keeps a buffer of this size for each connection, also while
/// it is idle.
const MAX_HEAD: usize = 68 * 1024;

/// With TLS: a record. Smaller than ureq's default of 128 KiB, for there may be many sessions.
const OUTPUT_BUFFER: usize = 16 * 1024;

/// The configuration of every agent of our own. Its proxies are set for each request.
pub(super) fn config(timeout: Duration) -> ConfigBuilder<AgentScope> {
    // Not `timeout_global`: to bound name lookups, ureq starts another thread for each request.
    Agent::config_builder()
        .timeout_connect(Some(timeout))
        .timeout_send_request(Some(timeout))
        .timeout_send_body(Some(timeout))
        .timeout_recv_response(Some(timeout))
        .timeout_recv_body(Some(timeout))
        .max_response_header_size(MAX_HEAD)
        .input_buffer_size(MAX_HEAD)
        .output_buffer_size(OUTPUT_BUFFER)
        .proxy(None)
        // A session's requests are sequential and need one.
        .max_idle_connections(MAX_THREADS)
        .max_idle_connections_per_host(MAX_THREADS)
}

/// The settings of a [`Ureq`]; see [`Ureq::builder`].
///
/// ```
/// use core::time::Duration;
/// use tinkex_telemetry::Ureq;
///
/// # fn example(private_ca: &str) -> Result<(), tinkex_telemetry::http::HttpError> {
/// let client = Ureq::builder()
///     .root_certificates(private_ca)?
///     .proxy("http://proxy.example:3128")?
///     .connect_timeout(Duration::from_secs(2))
///     .build();
/// # drop(client);
/// # Ok(())
/// # }
/// ```
pub struct UreqBuilder {
    certificates: Certificates,
    identity: Option<ClientCert>,
    proxies: Option<Proxies>,
    connect_timeout: Option<Duration>,
    timeout: Duration,
}

impl UreqBuilder {
    pub(super) fn new() -> Self {
        Self {
            certificates: Certificates::default(),
            identity: None,
            proxies: None,
            connect_timeout: None,
            timeout: TIMEOUT,
        }
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
        let (chain, key) = (chain.as_ref(), key.as_ref());
        self.certificates.set_identity(chain, key)?;
        let identity = self.certificates.identity.as_ref();
        let chain = identity.map_or_else(Vec::new, |identity| owned(&identity.chain));
        // Without the reason: it could show a piece of the key.
        let key = PrivateKey::from_pem(key)
            .map_err(|_| HttpError::new("client_certificate: no private key in the PEM text"))?;
        self.identity = Some(ClientCert::new_with_certs(&chain, key));
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
    /// quarters of what is left of an attempt, which is the default.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// How long each phase of a call may take; see [`Ureq::with_timeout`]. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The client.
    #[must_use]
    pub fn build(self) -> Ureq {
        let mut tls = TlsConfig::builder().client_cert(self.identity);
        if let Some(roots) = &self.certificates.roots {
            tls = tls.root_certs(RootCerts::new_with_certs(&owned(roots)));
        }
        let config: Config = config(self.timeout)
            .timeout_connect(Some(self.connect_timeout.unwrap_or(self.timeout)))
            .tls_config(tls.build())
            .build();
        Ureq::with_settings(config, self.proxies.unwrap_or_else(Proxies::from_env))
    }
}

fn owned(certificates: &[CertificateDer<'static>]) -> Vec<Certificate<'static>> {
    let certificates = certificates.iter();
    certificates
        .map(|certificate| Certificate::from_der(certificate).to_owned())
        .collect()
}

impl fmt::Debug for UreqBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UreqBuilder")
            .field("connect_timeout", &self.connect_timeout)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
