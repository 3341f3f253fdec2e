//! Reqwest's runtime: tokio, wherever the session runs.

use crate::servers::Server;
use crate::sessions::{KEY, REQWEST, options, start};
use tinkex_telemetry::runtime::Smol;
use tinkex_telemetry::{Config, HttpTransport, Reporter, Reqwest, Thread};

fn accepting() -> Server {
    Server::start(|asked| {
        asked.read_body();
        asked.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        true
    })
}

#[test]
fn reqwest_works_on_every_runtime_with_a_handle_of_tokio() {
    for (name, start) in REQWEST {
        let server = accepting();
        let session = start(&server.url(), options());
        for n in 0..3 {
            session.handle.log("x", tinkex_telemetry::fields! { n: n });
            assert!(session.drain().all_delivered(), "{name}");
        }
    }
}

#[test]
fn reqwest_takes_the_runtime_around_it() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = runtime.block_on(async { Reqwest::new().expect("a client") });
    let server = accepting();
    let session = start(&server.url(), options(), client, Smol);
    assert!(session.drain().all_delivered());
}

#[test]
fn without_a_runtime_of_tokio_a_session_over_reqwest_does_not_start() {
    let config = Config::new("http://127.0.0.1:1", KEY).expect("a config");
    let client = Reqwest::new().expect("a client");
    let started = Reporter::builder("s")
        .enabled(true)
        .transport(HttpTransport::new(config, client))
        .runtime(Thread)
        .start();
    let error = started.expect_err("no runtime");
    let mut shown = error.to_string();
    let mut next = core::error::Error::source(&error);
    while let Some(source) = next {
        shown += &format!(": {source}");
        next = source.source();
    }
    assert!(shown.contains("Reqwest::on(handle)"), "{shown}");
}

#[test]
fn the_end_of_reqwests_runtime_is_an_error_that_says_so() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let client = Reqwest::on(runtime.handle().clone()).expect("a client");
    drop(runtime);
    let mut options = options();
    options.max_retries = 0;
    let session = start(&accepting().url(), options, client, Thread);
    assert!(session.drain().is_drained());
    assert_eq!(session.handle.stats().dropped.retries_exhausted, 1);
    session.report_of("the tokio runtime of Reqwest has ended");
}
