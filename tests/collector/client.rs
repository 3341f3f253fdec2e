//! A minimal client: the requests of the tests, and how they are sent.

use core::{net::SocketAddr, time::Duration};
use std::{
    io::{self, Read, Write},
    net::TcpStream,
};

use serde_json::{Value, json};
use tinkex_telemetry::collector::Collector;

/// Longer than anything here takes, shorter than a person waits.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
pub(crate) const KEY: &str = "0d1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f";

// Requests.

pub(crate) fn id(n: u64) -> String {
    format!("6f1c2d3e-4b5a-4c7d-8e9f-{n:012x}")
}

pub(crate) fn common(n: u64, kind: &str) -> Value {
    json!({
        "event": kind,
        "event_id": id(n),
        "event_session_index": n,
        "severity": "INFO",
        "timestamp": "2025-11-26T10:30:45.000000Z",
    })
}

pub(crate) fn with(mut event: Value, fields: Value) -> Value {
    let (Some(event_keys), Value::Object(fields)) = (event.as_object_mut(), fields) else {
        panic!("objects");
    };
    event_keys.extend(fields);
    event
}

pub(crate) fn start() -> Value {
    common(0, "SESSION_START")
}

pub(crate) fn generic(n: u64) -> Value {
    with(
        common(n, "GENERIC_EVENT"),
        json!({"event_name": "x", "event_data": {"n": n}}),
    )
}

pub(crate) fn exception(n: u64) -> Value {
    let fields = json!({"error_type": "Error", "error_message": "", "traceback": "here"});
    with(common(n, "UNHANDLED_EXCEPTION"), fields)
}

pub(crate) fn end(n: u64) -> Value {
    with(
        common(n, "SESSION_END"),
        json!({"duration": "25:00:00.000001"}),
    )
}

pub(crate) fn batch(session: &str, events: &[Value]) -> Value {
    json!({
        "session_id": session,
        "platform": "unix/linux",
        "sdk_version": "1.0.0",
        "process_uuid": "5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f",
        "events": events,
    })
}

// Sending.

pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the collector listens");
    stream.set_read_timeout(Some(BOUND)).expect("a timeout");
    stream
}

pub(crate) fn write_request(
    stream: &mut TcpStream,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) {
    let mut request = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    stream
        .write_all(request.as_bytes())
        .expect("the head is written");
    // The collector may have hung up already.
    let _ = stream.write_all(body);
}

pub(crate) const HEADERS: [(&str, &str); 4] = [
    ("content-type", "application/json"),
    ("x-api-key", "k"),
    ("user-agent", "test/1"),
    ("x-idempotency-key", KEY),
];

pub(crate) const LINE: &str = "POST /api/v1/telemetry";

/// A request in flight: `post` writes it, `read` waits for the response.
pub(crate) fn post(collector: &Collector, body: &Value) -> TcpStream {
    let mut stream = connect(collector.addr());
    write_request(&mut stream, LINE, &HEADERS, body.to_string().as_bytes());
    stream
}

/// All bytes until the connection is closed or reset.
pub(crate) fn read(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(crate) fn exchange(
    collector: &Collector,
    line: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> String {
    let mut stream = connect(collector.addr());
    write_request(&mut stream, line, headers, body);
    read(stream)
}

pub(crate) fn status(response: &str) -> u16 {
    let word = response
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3));
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("no status in {response:?}"))
}

pub(crate) fn body(response: &str) -> Value {
    let (_, body) = response.split_once("\r\n\r\n").expect("a head");
    serde_json::from_str(body).expect("a JSON body")
}

pub(crate) fn send(collector: &Collector, body: &Value) -> u16 {
    status(&read(post(collector, body)))
}

/// The field that a strict collector complains about.
pub(crate) fn complaint(collector: &Collector, request: &Value) -> String {
    let response = read(post(collector, request));
    assert_eq!(status(&response), 422, "{request} got {response}");
    let response = body(&response);
    assert!(response["error"].is_string(), "{response}");
    response["field"].as_str().expect("a field").to_owned()
}
