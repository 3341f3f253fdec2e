//! Certificates as settings of a client: PEM text, checked when it is given.

use super::client::HttpError;
use alloc::sync::Arc;
use alloc::vec::Vec;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The certificates of one client.
#[derive(Default)]
pub(crate) struct Certificates {
    /// Trusted instead of the Mozilla root certificates.
    pub(crate) roots: Option<Vec<CertificateDer<'static>>>,
    pub(crate) identity: Option<Identity>,
}

/// The client's own certificate, with the chain above it, and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Certificates {
    pub(crate) fn set_roots(&mut self, pem: &[u8]) -> Result<(), HttpError> {
        const SETTING: &str = "root_certificates";
        let roots = certificates(SETTING, pem)?;
        let mut store = RootCertStore::empty();
        for (n, root) in roots.iter().enumerate() {
            store.add(root.clone()).map_err(|error| {
                HttpError::new(format_args!("{SETTING}: certificate {}: {error}", n + 1))
            })?;
        }
        self.roots = Some(roots);
        Ok(())
    }

    pub(crate) fn set_identity(&mut self, chain: &[u8], key: &[u8]) -> Result<(), HttpError> {
        const SETTING: &str = "client_certificate";
        let chain = certificates(SETTING, chain)?;
        // Without the reason: it could show a piece of the key.
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            HttpError::new(format_args!("{SETTING}: no private key in the PEM text"))
        })?;
        let with_identity = Self {
            roots: None,
            identity: Some(Identity { chain, key }),
        };
        with_identity
            .client_config(RootCertStore::empty())
            .map_err(|error| HttpError::new(format_args!("{SETTING}: {error}")))?;
        self.identity = with_identity.identity;
        Ok(())
    }

    /// A configuration of rustls that trusts `roots` and has this identity. It neither uses nor sets the process-wide
    /// default provider.
    pub(crate) fn client_config(
        &self,
        roots: RootCertStore,
    ) -> Result<ClientConfig, rustls::Error> {
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        match &self.identity {
            Some(Identity { chain, key }) => {
                config.with_client_auth_cert(chain.clone(), key.clone_key())
            }
            None => Ok(config.with_no_client_auth()),
        }
    }
}

fn certificates(setting: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, HttpError> {
    let fail = |problem: &str| HttpError::new(format_args!("{setting}: {problem} in the PEM text"));
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if certificates.is_empty() => Err(fail("no certificate")),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(fail("something that is not PEM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    #[test]
    fn text_without_certificates_is_an_error_that_names_the_setting() {
        let mut certificates = Certificates::default();
        for (pem, problem) in [
            ("", "no certificate in the PEM text"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA",
                "something that is not PEM in the PEM text",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "certificate 1: invalid peer certificate: BadEncoding",
            ),
        ] {
            let error = certificates.set_roots(pem.as_bytes()).unwrap_err();
            assert_eq!(
                error.to_string(),
                alloc::format!("root_certificates: {problem}")
            );
        }
        let error = certificates.set_identity(b"", b"").unwrap_err();
        assert_eq!(
            error.to_string(),
            "client_certificate: no certificate in the PEM text"
        );
        assert!(certificates.roots.is_none() && certificates.identity.is_none());
    }
}
