//! Secrets in a request's header, query and userinfo, or in an error text, appear in no event, no log line and no
//! request of the session.

use crate::clients::each_way;
use crate::events::{RecordedEvents, SESSION};
use crate::server::{SECRET, Server, refused};
use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response};
use std::sync::Mutex;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, HttpError, HttpEvents};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq};

/// The secret as encoded in userinfo.
const ENCODED: &str = "Wm05eVltbGtaR1Z1";

fn is_clean(text: &str) -> bool {
    let text = text.to_lowercase();
    [SECRET, ENCODED]
        .iter()
        .all(|secret| !text.contains(&secret.to_lowercase()))
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Records the lines of this crate only: HTTP clients log what they send, under their own targets.
struct LineRecorder;

impl log::Log for LineRecorder {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("tinkex_telemetry") {
            let mut lines = LINES.lock().expect("no panic");
            lines.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn no_secret_of_a_request_is_emitted_logged_or_sent() {
    log::set_logger(&LineRecorder).expect("no other logger is set");
    log::set_max_level(log::LevelFilter::Trace);
    let server = Server::start();
    each_way(|name, on, recorded, get| {
        let collector = Collector::start().expect("a collector");
        let session = session(recorded, &collector);
        recorded
            .bus
            .attach_logger(log::Level::Info)
            .expect("not forked");
        let urls = [
            server.url("/200"),
            server.url("/503"),
            server.url("/close"),
            refused("/refused"),
            // A name that does not resolve.
            format!(
                "http://{SECRET}:{SECRET}@{}.invalid/x?{SECRET}",
                SECRET.to_lowercase()
            ),
        ];
        for url in urls {
            on.run(get(url, 0));
        }
        let events = recorded.take();
        assert_eq!(events.len(), 10, "{name}");
        for event in events {
            assert!(is_clean(&event.to_string()), "{name}: {event}");
        }
        finish(session, &collector, 10);
    });

    // A client whose errors contain the whole request.
    let recorded = RecordedEvents::new();
    let collector = Collector::start().expect("a collector");
    let session = session(&recorded, &collector);
    let chatty = async |request: Request<Bytes>| {
        let text = format!("{} {:?} timed out", request.uri(), request.headers());
        Err::<Response<Bytes>, _>(HttpError::new(text))
    };
    let mut client = HttpEvents::new(&session).wrap(chatty);
    let request = Request::get(server.url("/x")).header("x-key", SECRET);
    let request = request.body(Bytes::new()).expect("a request");
    assert!(smol::block_on(client.send(request)).is_err());
    assert_eq!(recorded.short(), ["GET /x", "GET /x: timeout: timed out"]);
    let shown = HttpEvents::new(&session);
    assert!(is_clean(&format!(
        "{shown:?} {:?} {session:?}",
        shown.start("GET", "/x")
    )));
    recorded.take();
    // Two requests with two events each: the second was dropped.
    finish(session, &collector, 4);

    let lines = LINES.lock().expect("no panic");
    assert!(
        lines
            .iter()
            .any(|line| line.contains("path=/503 status=503 result=error"))
    );
    for line in &*lines {
        assert!(is_clean(line), "{line}");
    }
}

type Session = Reporter<HttpTransport<Ureq>, Thread, Thread>;

/// A session on the bus, to a collector.
fn session(recorded: &RecordedEvents, collector: &Collector) -> Session {
    let config = Config::new(&collector.url(), "any key").expect("a config");
    Reporter::builder(SESSION)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .bus(recorded.bus.clone())
        .enabled(true)
        .start()
        .expect("the session starts")
}

fn finish(session: Session, collector: &Collector, events: usize) {
    let drain = session.stop_blocking(Duration::from_secs(20));
    assert!(drain.expect("no deadlock").all_delivered());
    let got = collector.session(SESSION).expect("the session arrived");
    // Two more: the session's start and end.
    assert_eq!(got.len(), events + 2);
    for event in got.events() {
        assert!(is_clean(event.json()), "{}", event.json());
    }
}
