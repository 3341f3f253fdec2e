//! Settings of a session that cannot work, or do not do what they seem to: what is refused, and what is reported.
#![cfg(all(feature = "collector", feature = "thread", feature = "ureq"))]

extern crate alloc;

use alloc::sync::Arc;
use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response};
use std::sync::Mutex;
use std::thread;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::diagnostic::DiagnosticKind;
use tinkex_telemetry::http::HttpError;
use tinkex_telemetry::session::{BuildError, Builder};
use tinkex_telemetry::{
    Batch, Config, HttpTransport, InitError, Receipt, Reporter, SendError, Severity, Thread,
    Transport, Ureq,
};

const KEY: &str = "sk-sentinel-0123456789";

/// Longer than anything here takes, shorter than a person waits.
const BOUND: Duration = Duration::from_secs(20);

fn to(id: &str, url: &str) -> Builder<HttpTransport<Ureq>, Thread, Thread> {
    let config = Config::new(url, KEY).expect("a config");
    Reporter::builder(id)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .enabled(true)
        .drop_timeout(Duration::from_secs(1))
}

#[test]
fn a_second_live_session_of_one_id_to_one_url_is_refused() {
    let collector = Collector::start().expect("a collector");
    let url = collector.url();
    let first = to("twin", &url).start().expect("it starts");
    for same in [url.clone(), format!("{url}//"), url.to_uppercase()] {
        let error = to("twin", &same).start().expect_err("refused");
        let BuildError::AlreadyLive { session_id } = &error else {
            panic!("{error}");
        };
        assert_eq!(session_id, "twin");
        let shown = error.to_string();
        assert!(
            shown.starts_with("the session id \"twin\" is that of a live session"),
            "{shown}"
        );
    }
    // The first one is not affected, and others are not refused.
    let other = to("another", &url).start().expect("another id");
    let elsewhere = to("twin", &format!("{url}/elsewhere"))
        .start()
        .expect("another URL");
    assert!(first.log("x", ()) && other.log("x", ()) && elsewhere.log("x", ()));
    assert!(
        first
            .stop_blocking(BOUND)
            .is_ok_and(|drain| drain.all_delivered())
    );
    assert!(to("twin", &url).start().is_ok());
}

#[test]
fn what_is_no_longer_live_does_not_refuse_its_successor() {
    let collector = Collector::start().expect("a collector");
    let url = collector.url();
    collector.always(Reply::stall());

    // Stopping, while its last request is stalled.
    let stopping = to("again", &url).start().expect("it starts");
    thread::scope(|scope| {
        let stop = scope.spawn(|| stopping.stop_blocking(Duration::from_secs(2)));
        while stopping.log("x", ()) {
            thread::yield_now();
        }
        let next = to("again", &url)
            .start()
            .expect("the first one is stopping");
        assert!(!stop.is_finished(), "it was over before it was tried");
        assert!(to("again", &url).start().is_err(), "its successor is live");
        drop(next);
    });

    // Ended by a fatal exception.
    let ended = to("fatal", &url)
        .flush_timeout(Duration::ZERO)
        .start()
        .expect("it starts");
    let _ = ended.log_fatal_exception_blocking(&core::fmt::Error, Severity::Critical);
    assert!(to("fatal", &url).start().is_ok());

    // Without a driver.
    let (reporter, driver) = to("driverless", &url).build().expect("it is built");
    assert!(to("driverless", &url).start().is_err());
    drop(driver);
    assert!(to("driverless", &url).start().is_ok());
    drop(reporter);

    // Dropped, with handles left.
    let reporter = to("dropped", &url).start().expect("it starts");
    let handle = reporter.handle();
    drop(reporter);
    assert!(to("dropped", &url).start().is_ok());
    drop(handle);

    // Refused for another reason.
    let refused = to("refused", &url)
        .handler_id("taken")
        .start()
        .expect("it starts");
    assert!(to("other", &url).handler_id("taken").start().is_err());
    assert!(to("other", &url).start().is_ok());
    drop(refused);

    // Switched off.
    let off = to("off", &url).enabled(false).start().expect("it starts");
    let on = to("off", &url).start().expect("the other one is off");
    drop((off, on));
}

#[test]
fn thousands_of_sessions_one_after_the_other_are_accepted() {
    let config = Config::new("http://127.0.0.1:1", KEY).expect("a config");
    for number in 0..4_000 {
        let transport = HttpTransport::new(config.clone(), Ureq::new());
        let id = format!("session-{}", number / 2);
        let builder = Reporter::builder(&id).transport(transport).clock(Thread);
        let (reporter, driver) = builder.enabled(true).build().expect("none is live");
        drop((reporter, driver));
    }
}

struct Swallow;

impl Transport for Swallow {
    async fn send(&mut self, _: Batch<'_>) -> Result<Receipt, SendError> {
        Ok(Receipt::delivered())
    }
}

#[test]
fn transports_without_a_destination_may_share_an_id() {
    let start = || {
        let builder = Reporter::builder("shared").transport(Swallow);
        builder.runtime(Thread).enabled(true).start()
    };
    assert!(start().is_ok_and(|first| start().is_ok() && first.is_enabled()));
}

/// The reasons of what two sessions with this configuration report about settings.
fn reported(url: &str) -> Vec<String> {
    let config = Config::new(url, KEY).expect("a config");
    let reasons = Arc::new(Mutex::new(Vec::new()));
    for id in ["a", "b"] {
        let client = async |_: Request<Bytes>| Ok::<_, HttpError>(Response::new(Bytes::new()));
        let reasons = Arc::clone(&reasons);
        let reporter = Reporter::builder(format!("{id} {url}"))
            .transport(HttpTransport::new(config.clone(), client))
            .runtime(Thread)
            .enabled(true)
            .on_diagnostic(move |diagnostic| {
                if diagnostic.kind == DiagnosticKind::Setting {
                    assert!(!diagnostic.session_id.is_empty());
                    reasons.lock().expect("a lock").push(diagnostic.to_string());
                }
            })
            .start()
            .expect("it starts");
        assert!(
            reporter
                .stop_blocking(BOUND)
                .is_ok_and(|drain| drain.all_delivered())
        );
    }
    let reasons = reasons.lock().expect("a lock");
    reasons.clone()
}

#[test]
fn a_key_over_plain_http_to_another_machine_is_reported_once() {
    for host in ["telemetry.example", "10.1.2.3", "[fd00::1]"] {
        assert_eq!(
            reported(&format!("http://{host}:8080/base")),
            [format!(
                "base_url sends the API key to {host} over plain http, where others can read it: use https://"
            )]
        );
    }
    for url in [
        "https://telemetry.example",
        "http://127.0.0.1:8080",
        "http://localhost",
        "http://[::1]",
    ] {
        assert_eq!(reported(url), Vec::<String>::new(), "{url}");
    }
}

#[test]
fn what_main_prints_of_an_error_says_what_to_change() {
    let config = Config::new("http://host:8O80", KEY).expect_err("refused");
    let expected = "base_url has the port \"8O80\", which is not a number from 1 to 65535";
    assert_eq!(format!("{config:?}"), expected);
    assert_eq!(format!("{:?}", InitError::Config(config)), expected);

    let build = to("s", "http://127.0.0.1:1").platform("what").start();
    let build = build.expect_err("refused");
    let expected = "telemetry cannot identify the session, caused by: \
                    the platform \"what\" is not of the form family/os, as unix/linux is";
    assert_eq!(format!("{build:?}"), expected);
    assert_eq!(
        format!("{:#?}", InitError::Build(build)),
        format!("telemetry cannot be started, caused by: {expected}")
    );

    let option = to("s", "http://127.0.0.1:1")
        .events(["tinkex.http.request.stopp"])
        .start();
    let shown = format!("{:?}", option.expect_err("refused"));
    assert!(shown.contains("\"tinkex.http.request.stopp\""), "{shown}");
    assert!(shown.contains("tinkex.http.request.stop,"), "{shown}");
    assert!(!shown.contains('\n'), "{shown}");
}
