//! The contract of an `HttpClient`, whatever agent or client an adapter was given: no redirects, no errors for statuses.

use crate::servers::Server;
use crate::sessions::{KEY, options, reqwest, start, tokio};
use tinkex_telemetry::http::{HttpClient, Surf};
use tinkex_telemetry::runtime::{Runtime, Smol};
use tinkex_telemetry::{Reqwest, Thread, Tokio, Ureq};

/// A server that accepts everything.
fn accepting() -> Server {
    Server::start(|asked| {
        asked.read_body();
        asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        true
    })
}

/// A server that redirects every request.
fn redirecting(status: u16, to: String) -> Server {
    Server::start(move |asked| {
        asked.read_body();
        asked.say(format!(
            "HTTP/1.1 {status} There\r\nlocation: {to}/y\r\ncontent-length: 0\r\n\r\n"
        ));
        true
    })
}

const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

fn no_redirect_is_followed<H: HttpClient>(client: impl Fn() -> H, runtime: impl Runtime) {
    for status in REDIRECTS {
        let elsewhere = accepting();
        let server = redirecting(status, elsewhere.url());
        let session = start(&server.url(), options(), client(), runtime.clone());
        assert!(session.drain().is_drained(), "{status}");
        assert_eq!(session.rejected(), 1, "{status}");
        assert_eq!(
            (server.requests(), elsewhere.requests()),
            (1, 0),
            "{status}"
        );
    }
}

#[test]
fn no_redirect_is_followed_by_a_client_that_can_be_kept_from_it() {
    // Follows ten redirects, if not told otherwise.
    no_redirect_is_followed(
        || Ureq::with_agent(ureq::Agent::new_with_defaults()),
        Thread,
    );
    no_redirect_is_followed(Ureq::new, Thread);
    no_redirect_is_followed(reqwest, Thread);
    let following = || {
        let policy = reqwest::redirect::Policy::limited(10);
        let builder = reqwest::Client::builder().redirect(policy);
        let client = Reqwest::from_builder(builder.tls_backend_preconfigured(any_tls()));
        client.expect("a client").spawn_on(tokio().clone())
    };
    no_redirect_is_followed(following, Tokio::on(tokio().clone()));
}

fn any_tls() -> rustls::ClientConfig {
    let ring = alloc::sync::Arc::new(rustls::crypto::ring::default_provider());
    rustls::ClientConfig::builder_with_provider(ring)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth()
}

fn a_followed_redirect_is_rejected<H: HttpClient>(client: impl Fn() -> H, runtime: impl Runtime) {
    for status in REDIRECTS {
        let elsewhere = accepting();
        let server = redirecting(status, elsewhere.url());
        let session = start(&server.url(), options(), client(), runtime.clone());
        assert!(session.drain().is_drained(), "{status}");
        assert_eq!(session.handle.stats().delivered, 0, "{status}");
        assert_eq!(session.rejected(), 1, "{status}");
        let reports = session.report_of("the API key has left for 127.0.0.1");
        assert!(!reports.contains(KEY), "{reports}");
        // Why it matters.
        assert!(elsewhere.heads()[0].contains(KEY), "{status}");
    }
}

#[test]
fn what_a_client_has_redirected_against_the_contract_is_rejected_and_the_report_says_so() {
    let following = || {
        let client = reqwest::Client::builder().tls_backend_preconfigured(any_tls());
        Reqwest::with_client(client.build().expect("a client")).spawn_on(tokio().clone())
    };
    a_followed_redirect_is_rejected(following, Tokio::on(tokio().clone()));
    a_followed_redirect_is_rejected(following, Thread);
    let surf = || Surf::new(|| ::surf::Client::new().with(::surf::middleware::Redirect::new(5)));
    a_followed_redirect_is_rejected(surf, Smol);
}

#[test]
fn a_client_that_fails_on_too_many_redirects_is_rejected_too() {
    let client = || {
        let policy = reqwest::redirect::Policy::limited(0);
        let client = reqwest::Client::builder().redirect(policy);
        let client = client.tls_backend_preconfigured(any_tls()).build();
        Reqwest::with_client(client.expect("a client")).spawn_on(tokio().clone())
    };
    let server = redirecting(302, accepting().url());
    let session = start(&server.url(), options(), client(), Thread);
    assert!(session.drain().is_drained());
    assert_eq!(session.rejected(), 1);
    assert_eq!(server.requests(), 1);
}

#[test]
fn a_status_is_no_error_and_its_retry_after_is_heard_whatever_agent_is_used() {
    let server = Server::start(|asked| {
        asked.read_body();
        let response = match asked.n {
            0 => "429 Slow\r\nretry-after: 0\r\ncontent-length: 4\r\n\r\nslow",
            1 => "400 No\r\ncontent-length: 4\r\n\r\nwhat",
            _ => "200 OK\r\ncontent-length: 0\r\n\r\n",
        };
        asked.say(format!("HTTP/1.1 {response}"));
        true
    });
    // Takes statuses for errors, and has no timeouts.
    let mut client = Ureq::with_agent(ureq::Agent::new_with_defaults());
    let mut ask = || {
        let request = http::Request::post(format!("{}/x", server.url()));
        let request = request.body(bytes::Bytes::from_static(b"{}"));
        let response = tokio().block_on(client.send(request.expect("a request")));
        response.expect("a response")
    };
    let busy = ask();
    assert_eq!(busy.status(), 429);
    assert_eq!(busy.headers()["retry-after"], "0");
    assert_eq!(busy.body(), "slow");
    assert_eq!(ask().body(), "what");
    assert_eq!(ask().status(), 200);
}
