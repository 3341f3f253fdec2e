//! An OpenTelemetry collector in place of the backend: the same sessions, over the transport of the feature `otlp`.

use crate::session::{BOUND, builder, options};
use crate::table::Verdict::{self, Passed};
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use serde_json::Value;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;
use std::thread;
use tinkex_telemetry::fields;
use tinkex_telemetry::http::HttpClient;
use tinkex_telemetry::otlp::{OtlpConfig, OtlpTransport, Protocol};
use zoo::runtimes::{Opened, RuntimeUnderTest};

/// A collector that keeps the bodies of requests. It ends with the process.
struct Collector {
    url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Of the next answers; then each is a 200.
    statuses: Mutex<VecDeque<&'static str>>,
    bodies: Mutex<Vec<Vec<u8>>>,
}

impl Collector {
    fn start(statuses: &[&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared::default());
        let statuses = statuses.iter().copied();
        shared.statuses.lock().expect("no panic").extend(statuses);
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&serving);
                // Fails when the client has closed the connection.
                thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self {
            url: format!("http://{address}"),
            shared,
        }
    }

    fn bodies(&self) -> Vec<Vec<u8>> {
        self.shared.bodies.lock().expect("no panic").clone()
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_ascii_lowercase());
        }
        let length = head
            .iter()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        // Some clients ask for the whole URL.
        let is_for_logs =
            |line: &String| line.starts_with("post ") && line.ends_with("/v1/logs http/1.1");
        let is_for_logs = head.first().is_some_and(is_for_logs);
        let next = shared.statuses.lock().expect("no panic").pop_front();
        let status = match next {
            _ if !is_for_logs => "404 Not Found",
            None => "200 OK",
            Some(status) => status,
        };
        shared.bodies.lock().expect("no panic").push(body);
        let mut out = stream;
        write!(out, "HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\n{{}}")?;
    }
}

fn open<W: RuntimeUnderTest, H: HttpClient>(
    runtime: &W,
    client: fn() -> H,
    collector: &Collector,
    protocol: Protocol,
) -> Opened {
    let config = OtlpConfig::new(&collector.url).expect("a URL");
    let transport = OtlpTransport::new(config.protocol(protocol), client());
    runtime.open(builder("otlp", options()), transport)
}

pub(crate) fn a_collector_takes_what_a_session_has_logged<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let (runtime, collector) = (W::new(), Collector::start(&[]));
    let Opened { handle, reporter } = open(&runtime, client, &collector, Protocol::HttpJson);
    for n in 0..250 {
        assert!(handle.log("x", fields! { n: n }));
    }
    let drain = handle.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_safe() && drain.handed_over == 252, "{drain:?}");
    drop(reporter);
    let bodies = collector.bodies();
    let requests = bodies
        .iter()
        .map(|body| serde_json::from_slice::<Value>(body).expect("JSON"));
    let records: Vec<Value> = requests
        .flat_map(|request| {
            let records = &request["resourceLogs"][0]["scopeLogs"][0]["logRecords"];
            records.as_array().expect("records").clone()
        })
        .collect();
    let names: Vec<_> = records
        .iter()
        .map(|record| record["eventName"].as_str().unwrap_or_default())
        .collect();
    let expected = [&["session.start"][..], &["x"; 250], &["session.end"]].concat();
    assert_eq!(names, expected);
    Passed
}

pub(crate) fn a_collector_that_is_overloaded_is_asked_again<W: RuntimeUnderTest, H: HttpClient>(
    client: fn() -> H,
) -> Verdict {
    let statuses = ["503 Service Unavailable", "429 Too Many Requests"];
    let (runtime, collector) = (W::new(), Collector::start(&statuses));
    let Opened { handle, reporter } = open(&runtime, client, &collector, Protocol::HttpProtobuf);
    assert!(handle.log("x", ()));
    let drain = handle.stop_blocking(BOUND).expect("no executor here");
    assert!(drain.all_safe() && drain.handed_over == 3, "{drain:?}");
    drop(reporter);
    let bodies = collector.bodies();
    assert_eq!(bodies.len(), 3);
    // The same request, and it is not empty.
    assert!(bodies.iter().all(|body| *body == bodies[0]) && bodies[0].len() > 100);
    Passed
}
