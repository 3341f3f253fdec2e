//! Proxies: a setting of the client, or the environment's.

use crate::servers::Server;
use crate::sessions::{KEY, child, is_child, options, start, tokio};
use std::io::copy;
use std::net::TcpStream;
use std::thread;
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::session::SessionId;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Reqwest, Thread, Ureq};

/// A proxy that makes every tunnel to, and answers every other request for, the same server.
fn proxy(to: u16) -> Server {
    Server::start(move |asked| {
        if !asked.head.starts_with("connect ") {
            asked.read_body();
            asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            return true;
        }
        asked.say("HTTP/1.1 200 Connected\r\n\r\n");
        let there = TcpStream::connect(("127.0.0.1", to)).expect("the server");
        thread::scope(|scope| {
            scope.spawn(|| copy(&mut &*asked.stream, &mut &there));
            let _ = copy(&mut &there, &mut &*asked.stream);
            let _ = asked.stream.shutdown(std::net::Shutdown::Both);
        });
        false
    })
}

fn accepting() -> Server {
    Server::start(|asked| {
        asked.read_body();
        asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        true
    })
}

#[test]
fn requests_go_through_the_proxy_that_is_set_with_its_credentials() {
    let server = accepting();
    let proxy = proxy(server.port);
    let url = format!("http://me:pass%40word@127.0.0.1:{}", proxy.port);
    let ureq = Ureq::builder().proxy(&url).expect("a proxy").build();
    let reqwest = Reqwest::builder().on(tokio().clone());
    let reqwest = reqwest.proxy(&url).expect("a proxy").build();
    let target = "http://backend.invalid:8080";
    let session = start(target, options(), ureq, Thread);
    assert!(session.drain().all_delivered());
    let session = start(target, options(), reqwest.expect("a client"), Thread);
    assert!(session.drain().all_delivered());
    let heads = proxy.heads();
    assert!(
        heads[0].starts_with("connect backend.invalid:8080 "),
        "{heads:?}"
    );
    // "me:pass@word", in lower case.
    let credentials = "proxy-authorization: basic bwu6cgfzc0b3b3jk";
    for head in &heads {
        assert!(head.contains(credentials), "{heads:?}");
    }
    assert_eq!(heads.len(), 2, "{heads:?}");
}

fn start_error(url: &str, client: impl HttpClient) -> String {
    let config = Config::new(url, KEY).expect("a config");
    let started = Reporter::builder(SessionId::random())
        .enabled(true)
        .transport(HttpTransport::new(config, client))
        .runtime(Thread)
        .drop_timeout(core::time::Duration::ZERO)
        .start();
    let error = match started {
        Ok(_) => return "started".into(),
        Err(error) => error,
    };
    let mut shown = error.to_string();
    let mut next = core::error::Error::source(&error);
    while let Some(source) = next {
        shown += &format!(": {source}");
        next = source.source();
    }
    shown
}

#[test]
fn a_proxy_that_is_not_supported_is_an_error_when_the_session_is_built() {
    for url in [
        "socks5://me:secret@127.0.0.1:1",
        "http://me:secret@127.0.0.1:99999",
    ] {
        let ureq = Ureq::builder().proxy(url).expect_err("refused").to_string();
        let reqwest = Reqwest::builder().proxy(url).expect_err("refused");
        assert_eq!(ureq, reqwest.to_string());
        assert!(
            ureq.starts_with("proxy: ") && !ureq.contains("secret"),
            "{ureq}"
        );
    }
    if is_child() {
        let clients = || (Ureq::new(), Reqwest::on(tokio().clone()).expect("a client"));
        let (ureq, reqwest) = clients();
        for shown in [
            start_error("https://backend.example", ureq),
            start_error("https://backend.example", reqwest),
        ] {
            let said = "ALL_PROXY: socks5:// proxies are not supported";
            assert!(shown.contains(said), "{shown}");
            assert!(!shown.contains("secret"), "{shown}");
        }
        // Loopback and what NO_PROXY names are not concerned.
        for url in ["http://127.0.0.1:1", "https://backend.internal"] {
            let (ureq, reqwest) = clients();
            assert_eq!(start_error(url, ureq), "started");
            assert_eq!(start_error(url, reqwest), "started");
        }
        println!("done in a child");
        return;
    }
    let variables = [
        ("ALL_PROXY", "socks5://me:secret@proxy.example:1080"),
        ("NO_PROXY", "10.0.0.0/8 , internal"),
    ];
    let name = "proxies::a_proxy_that_is_not_supported_is_an_error_when_the_session_is_built";
    let printed = child(&[], name, &variables);
    assert!(printed.contains("done in a child"), "{printed}");
}

#[test]
fn the_proxy_of_the_environment_is_used_except_for_loopback_and_under_cgi() {
    if is_child() {
        let server = accepting();
        let proxied = |url: &str| {
            let session = start(url, options(), Ureq::new(), Thread);
            assert!(session.drain().all_delivered(), "{url}");
            let reqwest = Reqwest::on(tokio().clone()).expect("a client");
            let session = start(url, options(), reqwest, Thread);
            assert!(session.drain().all_delivered(), "{url}");
        };
        proxied(&server.url());
        assert!(server.requests() >= 2);
        if std::env::var_os("REQUEST_METHOD").is_none() {
            proxied("http://backend.invalid");
        }
        println!("done in a child");
        return;
    }
    let server = accepting();
    let proxy = proxy(server.port);
    let url = proxy.url();
    let name = "proxies::the_proxy_of_the_environment_is_used_except_for_loopback_and_under_cgi";
    let printed = child(&[], name, &[("HTTP_PROXY", &url)]);
    assert!(printed.contains("done in a child"), "{printed}");
    let proxied = proxy.requests();
    assert!(proxied >= 2, "{:?}", proxy.heads());
    let printed = child(
        &[],
        name,
        &[("HTTP_PROXY", &url), ("REQUEST_METHOD", "GET")],
    );
    assert!(printed.contains("done in a child"), "{printed}");
    assert_eq!(proxy.requests(), proxied);
}
