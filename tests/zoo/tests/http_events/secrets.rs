//! What is in a request's header, query and userinfo, or in the text of an error, is in no event, in no line of the log
//! and in no request of the session's.

use crate::clients::each_way;
use crate::server::{SECRET, Server, refused};
use crate::told::{SESSION, Told};
use bytes::Bytes;
use core::time::Duration;
use http::{Request, Response};
use std::sync::Mutex;
use tinkex_telemetry::collector::Collector;
use tinkex_telemetry::http::{HttpClient, HttpError, HttpEvents};
use tinkex_telemetry::{Config, HttpTransport, Reporter, Thread, Ureq};

/// Also as userinfo is encoded.
const ENCODED: &str = "Wm05eVltbGtaR1Z1";

fn is_clean(text: &str) -> bool {
    let text = text.to_lowercase();
    [SECRET, ENCODED]
        .iter()
        .all(|secret| !text.contains(&secret.to_lowercase()))
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Keeps what this crate writes; HTTP clients write what they send to targets of their own.
struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("tinkex_telemetry") {
            let mut lines = LINES.lock().expect("it is sound");
            lines.push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn no_secret_of_a_request_is_told_to_anybody() {
    log::set_logger(&Keeper).expect("there is no other");
    log::set_max_level(log::LevelFilter::Trace);
    let server = Server::start();
    each_way(|name, on, told, get| {
        let collector = Collector::start().expect("a collector");
        let session = session(told, &collector);
        told.bus
            .attach_logger(log::Level::Info)
            .expect("not forked");
        let urls = [
            server.url("/200"),
            server.url("/503"),
            server.url("/close"),
            refused("/refused"),
            // A name that nobody has.
            format!(
                "http://{SECRET}:{SECRET}@{}.invalid/x?{SECRET}",
                SECRET.to_lowercase()
            ),
        ];
        for url in urls {
            on.run(get(url, 0));
        }
        let events = told.take();
        assert_eq!(events.len(), 10, "{name}");
        for event in events {
            assert!(is_clean(&event.to_string()), "{name}: {event}");
        }
        finish(session, &collector, 10);
    });

    // A client whose errors tell everything.
    let told = Told::new();
    let collector = Collector::start().expect("a collector");
    let session = session(&told, &collector);
    let chatty = async |request: Request<Bytes>| {
        let text = format!("{} {:?} timed out", request.uri(), request.headers());
        Err::<Response<Bytes>, _>(HttpError::new(text))
    };
    let mut client = HttpEvents::new(&session).wrap(chatty);
    let request = Request::get(server.url("/x")).header("x-key", SECRET);
    let request = request.body(Bytes::new()).expect("a request");
    assert!(smol::block_on(client.send(request)).is_err());
    assert_eq!(told.short(), ["GET /x", "GET /x: timeout: timed out"]);
    let shown = HttpEvents::new(&session);
    assert!(is_clean(&format!(
        "{shown:?} {:?} {session:?}",
        shown.start("GET", "/x")
    )));
    told.take();
    // That one was given up.
    finish(session, &collector, 4);

    let lines = LINES.lock().expect("it is sound");
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
fn session(told: &Told, collector: &Collector) -> Session {
    let config = Config::new(&collector.url(), "any key").expect("a config");
    Reporter::builder(SESSION)
        .transport(HttpTransport::new(config, Ureq::new()))
        .runtime(Thread)
        .bus(told.bus.clone())
        .enabled(true)
        .start()
        .expect("it starts")
}

fn finish(session: Session, collector: &Collector, told: usize) {
    let drain = session.stop_blocking(Duration::from_secs(20));
    assert!(drain.expect("another thread").all_delivered());
    let got = collector.session(SESSION).expect("it is there");
    // And the session's start and end.
    assert_eq!(got.len(), told + 2);
    for event in got.events() {
        assert!(is_clean(event.json()), "{}", event.json());
    }
}
