//! A private CA and client certificates.

use crate::sessions::{Session, options, start, tokio};
use alloc::sync::Arc;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use tinkex_telemetry::{Reqwest, Thread, Ureq};

// Made for these tests: CN=test CA, and a certificate by it for localhost and 127.0.0.1, and for a client.
const CA: &str = include_str!("pem/ca.pem");
const SERVER: [&str; 2] = [
    include_str!("pem/server.pem"),
    include_str!("pem/server-key.pem"),
];
const CLIENT: [&str; 2] = [
    include_str!("pem/client.pem"),
    include_str!("pem/client-key.pem"),
];

/// A server that wants a certificate by the CA, and accepts every request. Returns its URL.
fn server() -> String {
    let ring = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_slice(CA.as_bytes()).expect("a certificate");
    roots.add(ca).expect("a root");
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&ring));
    let [certificate, key] = SERVER.map(str::as_bytes);
    let config = ServerConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("a verifier"))
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate).expect("a certificate")],
            PrivateKeyDer::from_pem_slice(key).expect("a key"),
        );
    let config = Arc::new(config.expect("a configuration"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            thread::spawn(move || answer(StreamOwned::new(connection, stream)));
        }
    });
    url
}

fn answer(mut stream: impl Read + Write) -> Option<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).ok()?;
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).ok()?.to_lowercase();
        let length = head
            .split("content-length: ")
            .nth(1)?
            .split("\r\n")
            .next()?;
        stream.read_exact(&mut vec![0; length.parse().ok()?]).ok()?;
        let response = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(response).ok()?;
        stream.flush().ok()?;
    }
}

fn is_delivered(session: &Session) -> bool {
    session.drain().all_delivered()
}

#[test]
fn a_private_ca_and_a_client_certificate_are_settings_of_the_builders() {
    let url = server();
    let mut options = options();
    options.max_retries = 0;
    let [certificate, key] = CLIENT;
    let both = (
        Ureq::builder()
            .root_certificates(CA)
            .and_then(|builder| builder.client_certificate(certificate, key))
            .expect("certificates")
            .build(),
        Reqwest::builder()
            .on(tokio().clone())
            .root_certificates(CA)
            .and_then(|builder| builder.client_certificate(certificate, key))
            .and_then(|builder| builder.build())
            .expect("a client"),
    );
    assert!(is_delivered(&start(&url, options.clone(), both.0, Thread)));
    assert!(is_delivered(&start(&url, options.clone(), both.1, Thread)));
    let without_identity = (
        Ureq::builder()
            .root_certificates(CA)
            .expect("certificates")
            .build(),
        Reqwest::builder()
            .on(tokio().clone())
            .root_certificates(CA)
            .and_then(|builder| builder.build())
            .expect("a client"),
    );
    assert!(!is_delivered(&start(
        &url,
        options.clone(),
        without_identity.0,
        Thread
    )));
    assert!(!is_delivered(&start(
        &url,
        options.clone(),
        without_identity.1,
        Thread
    )));
    let strangers = (Ureq::new(), crate::sessions::reqwest());
    assert!(!is_delivered(&start(
        &url,
        options.clone(),
        strangers.0,
        Thread
    )));
    assert!(!is_delivered(&start(&url, options, strangers.1, Thread)));
}

#[test]
fn a_wrong_certificate_is_an_error_that_names_the_setting_and_shows_no_key() {
    let other_key = SERVER[1];
    for (chain, key, problem) in [
        ("", CLIENT[1], "no certificate"),
        (CLIENT[0], "", "no private key"),
        (CLIENT[0], CLIENT[0], "no private key"),
        (CLIENT[0], other_key, "keys may not be consistent"),
    ] {
        let ureq = Ureq::builder().client_certificate(chain, key);
        let ureq = ureq.expect_err(problem).to_string();
        let reqwest = Reqwest::builder().client_certificate(chain, key);
        assert_eq!(ureq, reqwest.expect_err(problem).to_string());
        assert!(ureq.starts_with("client_certificate: "), "{ureq}");
    }
    let ureq = Ureq::builder().root_certificates("no PEM");
    assert!(ureq.is_err_and(|error| error.to_string().starts_with("root_certificates: ")));
}
