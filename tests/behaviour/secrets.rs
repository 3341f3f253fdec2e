//! Where the API key appears: in one header of each request, and nowhere else.

use crate::support::{BOUND, Failure, KEY, child, is_child};
use core::fmt::Debug;
use core::time::Duration;
use tinkex_telemetry::collector::{Collector, Reply};
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::runtime::Runtime;
use tinkex_telemetry::session::BuildError;
use tinkex_telemetry::{
    Batch, Config, Handle, HttpTransport, Receipt, Reporter, Reqwest, SendError, Severity, Thread,
    Tokio, Transport, Ureq, fields,
};

/// Whether a text contains part of the key; a third of it is already too much.
fn has_key(text: &str) -> bool {
    let parts = KEY.as_bytes().windows(KEY.len() / 3);
    parts
        .filter_map(|part| core::str::from_utf8(part).ok())
        .any(|part| text.contains(part))
}

const URLS: &str = "TINKEX_TEST_URLS";

#[test]
fn the_api_key_is_in_one_header_and_nowhere_else() {
    // The program logs everything at the most verbose level; each of its sessions talks to a different server.
    let accepting = Collector::builder()
        .api_key(KEY)
        .start()
        .expect("a collector");
    let replies = [401, 413, 500, 301].map(Reply::status);
    let others = replies
        .into_iter()
        .chain([Reply::garbage(), Reply::close_after_body()])
        .map(|reply| {
            let collector = Collector::start().expect("a collector");
            collector.always(reply);
            collector
        });
    let others: Vec<_> = others.collect();
    let urls: Vec<_> = others
        .iter()
        .chain([&accepting])
        .map(Collector::url)
        .collect();
    let output = child("secrets::child_prints_everything")
        .env(URLS, urls.join(","))
        .output()
        .expect("it runs");
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    assert!(output.status.success(), "{printed}");

    // It printed everything.
    for expected in [
        "Telemetry rejected by the backend: HTTP 401: ",
        "Telemetry send failed after 1 retry: HTTP 500",
        "Telemetry event too large for the backend: HTTP 413",
        "Exception logged for session ID: ",
        "DEBUG tinkex_telemetry: ",
        "TRACE",
        "api_key contains CR, LF or NUL",
        "Batch {",
        "Builder {",
        "Config {",
        "Driver {",
        "HttpTransport {",
        "Reporter {",
        "Reqwest {",
        "Err(HTTP 401: ",
        "Ureq {",
    ] {
        assert!(
            printed.contains(expected),
            "{expected:?} is not in {printed}"
        );
    }
    // ureq logs every byte it sends at its most verbose level, and at no other.
    let is_raw = |line: &str| line.starts_with("TRACE ureq_proto::util: ");
    let mut leaks = printed
        .lines()
        .filter(|line| has_key(line) && !is_raw(line));
    assert_eq!(leaks.next(), None);

    for collector in others.iter().chain([&accepting]) {
        let requests = collector.requests();
        assert!(!requests.is_empty());
        assert!(
            !has_key(&format!("{requests:?}")),
            "the collector must not show it either"
        );
        for request in requests {
            let mut with_key = request
                .headers()
                .iter()
                .filter(|(_, value)| has_key(&String::from_utf8_lossy(value.as_bytes())));
            assert_eq!(
                with_key.next().map(|(name, _)| name.as_str()),
                Some("x-api-key")
            );
            assert_eq!(with_key.next(), None);
        }
    }
    let sessions = accepting.sessions();
    assert_eq!(sessions.len(), 2);
    for session in sessions {
        assert_eq!(session.len(), 4);
        let mut events = session.events().iter();
        assert!(events.all(|event| !has_key(event.json())));
    }
}

/// Prints every record of the `log` facade.
struct Printer;

impl log::Log for Printer {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        println!("{} {}: {}", record.level(), record.target(), record.args());
    }

    fn flush(&self) {}
}

fn show(value: &impl Debug) {
    println!("{value:?} {value:#?}");
}

/// Prints what a transport is given.
struct Shown<T>(T);

impl<T: Transport> Transport for Shown<T> {
    fn send(
        &mut self,
        batch: Batch<'_>,
    ) -> impl Future<Output = Result<Receipt, SendError>> + Send {
        show(&batch);
        let result = Transport::send(&mut self.0, batch);
        async move {
            let result = result.await;
            show(&result);
            result
        }
    }
}

#[test]
fn child_prints_everything() {
    if !is_child() {
        return;
    }
    log::set_logger(&Printer).expect("there is no other");
    log::set_max_level(log::LevelFilter::Trace);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let urls = std::env::var(URLS).expect("they are set");
    let urls = urls.split(',').chain(["http://127.0.0.1:1"]);
    for (session, url) in urls.enumerate() {
        let reqwest = Reqwest::on(runtime.handle().clone()).expect("a client");
        show(&reqwest);
        let on_tokio = Tokio::on(runtime.handle().clone());
        exercise(&format!("ureq {session}"), url, Ureq::new(), Thread);
        exercise(&format!("reqwest {session}"), url, reqwest, on_tokio);
    }
    for wrong in [format!("{KEY}\r\nx: y"), format!("{KEY}\u{7f}é")] {
        show(&Config::new("http://127.0.0.1:1", &wrong));
        println!(
            "{}",
            Config::new("http://127.0.0.1:1", &wrong).expect_err("refused")
        );
    }
    show(&Config::new(&format!("http://{KEY}@127.0.0.1:1"), KEY));
}

fn exercise<R: Runtime>(session: &str, url: &str, client: impl HttpClient + Debug, runtime: R) {
    show(&client);
    let config = Config::new(url, KEY).expect("a config");
    show(&config);
    let transport = HttpTransport::new(config.clone(), client);
    show(&transport);
    let builder = Reporter::builder(session)
        .transport(Shown(transport))
        .runtime(runtime)
        .enabled(true)
        .max_retries(1)
        .retry_base_delay(Duration::ZERO);
    show(&builder);
    let reporter = builder.start().expect("it starts");
    show(&reporter.wait_until_drained_blocking(BOUND));
    reporter.log("x", fields! { n: 1 });
    let error = Failure("an application error", None);
    show(&reporter.log_fatal_exception_blocking(&error, Severity::Error));
    show(&reporter);
    show(&Handle::clone(&reporter));
    show(&reporter.stats());
    show(&reporter.stop_blocking(BOUND));

    let transport = HttpTransport::new(config.clone(), Ureq::new());
    let refused: Result<_, BuildError> = Reporter::builder("\n")
        .transport(transport)
        .clock(Thread)
        .enabled(true)
        .build();
    show(&refused);
    let built = Reporter::builder("s")
        .transport(HttpTransport::new(config, Ureq::new()))
        .clock(Thread)
        .enabled(true)
        .build();
    show(&built);
}
