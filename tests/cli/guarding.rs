//! What strangers on this machine, broken requests and two processes on one port cannot do.

use core::net::SocketAddr;
use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde_json::{Value, json};

use crate::process::*;

/// A server that responds 200 to everything, and the heads of the requests that reach it.
fn backend() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (seen, heads) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            if head.is_empty() {
                continue;
            }
            let _ = seen.send(String::from_utf8_lossy(&head).into_owned());
            let response = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
            let _ = stream.write_all(response.as_bytes());
        }
    });
    (addr, heads)
}

fn get(addr: SocketAddr, path: &str, header: &str) -> u16 {
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}");
    request(addr, &head, "").0
}

const ODD: [&str; 8] = [
    "/foo",
    "/api/v1",
    "/api/v1/",
    "//api/v1/asample",
    "/x/../api/v1/asample",
    "/api/v1//asample",
    "/api/v1/../../admin",
    "/api/v1/%2e%2e/%2e%2e/admin",
];

#[test]
fn by_no_path_does_a_stranger_reach_the_backend_of_a_run() {
    let folder = Folder::new();
    let (upstream, heads) = backend();
    let child = r#"echo "$TINKER_BASE_URL"; echo "$TINKER_API_KEY"; read -r line || true"#;
    let mut command = folder.program(&["run", "--", "bash", "-c", child]);
    command
        .env("TINKER_API_KEY", "real")
        .env("TINKER_BASE_URL", format!("http://{upstream}"));
    let mut running = Running::start(&mut command);
    let addr = running.line_with("http://");
    let addr = addr.trim_start_matches("http://").parse();
    let (addr, key) = (addr.expect("an address"), running.line());
    for path in ODD.into_iter().chain(["/api/v1/asample"]) {
        assert_eq!(get(addr, path, "accept: */*"), 401, "{path}");
        assert_eq!(get(addr, path, "x-api-key: guess"), 401, "{path}");
    }
    // Nor does the program send the real key anywhere but to a call.
    for path in ODD {
        let status = get(addr, path, &format!("x-api-key: {key}"));
        assert_eq!(status, 404, "{path}");
    }
    let path = "/api/v1/training_runs/r/checkpoints?limit=2";
    assert_eq!(get(addr, path, &format!("x-api-key: {key}")), 200);
    let head = heads.recv_timeout(BOUND).expect("one request");
    assert!(head.starts_with(&format!("GET {path} ")), "{head}");
    assert!(head.contains("x-api-key: real"), "{head}");
    assert!(heads.try_recv().is_err(), "and no other");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn a_collector_with_a_key_passes_nothing_on_without_it() {
    let folder = Folder::new();
    let (upstream, heads) = backend();
    let to = format!("http://{upstream}");
    let (mut running, addr) = Running::serve(&folder, &["--key", "k", "--forward", &to]);
    for path in ["/foo", "/api/v1", "//api/v1/asample"] {
        assert_eq!(get(addr, path, "accept: */*"), 401, "{path}");
    }
    running.line_with("refused (401): GET /foo: x-api-key is missing");
    assert_eq!(get(addr, "/foo", "x-api-key: k"), 200);
    let head = heads.recv_timeout(BOUND).expect("one request");
    assert!(head.starts_with("GET /foo "), "{head}");
    assert!(heads.try_recv().is_err(), "and no other");
}

#[test]
fn a_request_that_breaks_off_is_not_passed_on() {
    let folder = Folder::new();
    let (upstream, heads) = backend();
    let to = format!("http://{upstream}");
    let (_running, addr) = Running::serve(&folder, &["--forward", &to]);
    for path in ["/upload", "/api/v1/upload"] {
        let mut stream = TcpStream::connect(addr).expect("it listens");
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("written");
        stream.write_all(b"half").expect("written");
        stream.shutdown(Shutdown::Write).expect("half closed");
        let mut response = Vec::new();
        stream.set_read_timeout(Some(BOUND)).expect("a timeout");
        let _ = stream.read_to_end(&mut response);
        assert_eq!(String::from_utf8_lossy(&response), "", "{path}");
    }
    assert_eq!(get(addr, "/whole", "accept: */*"), 200);
    let head = heads.recv_timeout(BOUND).expect("a request");
    assert!(head.starts_with("GET /whole "), "{head}");
}

#[test]
fn every_request_is_recorded_and_one_with_a_query_is_answered_as_recorded() {
    let folder = Folder::new();
    let (upstream, _heads) = backend();
    let file = folder.join("bug.ndjson");
    let mut command = folder.program(&["record", file.to_str().expect("text")]);
    command.args(["--port", "0", "--fail", "close"]);
    command.args(["--forward", &format!("http://{upstream}")]);
    let (mut running, addr) = Running::listening(&mut command);
    assert_eq!(deliver(addr, &batch("s", &[start()])), 0);
    running.line_with("no response (close): POST /api/v1/telemetry");
    assert_eq!(get(addr, "/other?a=1", "accept: */*"), 200);
    assert_eq!(get(addr, "/api/v1/telemetry", "accept: */*"), 405);
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(0));
    let text = fs::read_to_string(&file).expect("it is written");
    let lines = text.lines().map(serde_json::from_str::<Value>);
    let lines: Vec<Value> = lines.map(|line| line.expect("JSON")).collect();
    let paths: Vec<_> = lines
        .iter()
        .filter_map(|line| line["path"].as_str())
        .collect();
    let expected = ["/api/v1/telemetry", "/other?a=1", "/api/v1/telemetry"];
    assert_eq!(paths, expected, "{text}");

    let mut command = folder.program(&["replay", file.to_str().expect("text")]);
    let (_running, addr) = Running::listening(command.args(["--responses", "--port", "0"]));
    assert_eq!(get(addr, "/other?a=1", "accept: */*"), 200);
    assert_eq!(get(addr, "/other?a=1", "accept: */*"), 404, "once");
    assert_eq!(get(addr, "/other", "accept: */*"), 404, "another request");
}

#[test]
fn a_small_request_cannot_ask_for_a_huge_result() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let ask = |tokens: usize| {
        let body = json!({
            "prompt": {"chunks": [{"tokens": vec![1; tokens]}]}, "prompt_logprobs": true,
            "topk_prompt_logprobs": 64, "sampling_params": {},
        });
        let head = "POST /api/v1/asample HTTP/1.1\r\nhost: localhost";
        request(addr, head, &body.to_string())
    };
    let (status, body) = ask(100_000);
    assert_eq!(status, 422, "{body}");
    let (status, body) = ask(100);
    assert_eq!(status, 200, "{body}");
    let body = json!({"forward_input": {"data": vec![0; 200_000]}}).to_string();
    let head = "POST /api/v1/forward HTTP/1.1\r\nhost: localhost";
    assert_eq!(request(addr, head, &body).0, 422);
}

#[test]
fn what_comes_while_kept_events_are_read_is_kept_and_printed_too() {
    let folder = Folder::new();
    let kept = folder.join("kept");
    let keep = ["--keep", kept.to_str().expect("text")];
    {
        let (mut running, addr) = Running::serve(&folder, &keep);
        for portion in 0..20 {
            let events: Vec<_> = (0..1_000).map(|n| generic(portion * 1_000 + n)).collect();
            assert_eq!(deliver(addr, &batch("old", &events)), 200);
        }
        running.signal("-TERM");
        assert_eq!(running.ended().code(), Some(0));
    }
    let (mut running, addr) = Running::serve(&folder, &keep);
    // At once, after the line that invites it.
    assert_eq!(deliver(addr, &batch("fresh", &[start(), generic(1)])), 200);
    running.line_with("fresh 0 INFO     SESSION_START");
    running.line_with("fresh 1 INFO     x");
    running.signal("-TERM");
    running.line_with("old      20000");
    assert_eq!(running.ended().code(), Some(0));
    let (mut running, _) = Running::serve(&folder, &keep);
    running.line_with("read 20002 events from");
}

#[test]
fn what_cannot_listen_makes_no_file_and_records_nothing() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let port = addr.port().to_string();
    let (file, kept) = (folder.join("bug.ndjson"), folder.join("kept"));
    let (file, kept) = (file.to_str().expect("text"), kept.to_str().expect("text"));
    for arguments in [
        &["record", file, "--port", &port][..],
        &["serve", "--keep", kept, "--port", &port],
        &["serve", "--fail", "503", "--port", &port],
    ] {
        let (code, _, stderr) = run(&mut folder.program(arguments));
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains("is in use: give another"), "{stderr}");
    }
    assert!(!fs::exists(file).expect("known") && !fs::exists(kept).expect("known"));
}

#[test]
fn json_lines_have_no_character_that_controls_a_terminal() {
    let folder = Folder::new();
    let mut running = Running::start(&mut folder.program(&["--port", "0", "--json"]));
    let addr = running.error_with("listening on http://");
    let addr = addr.rsplit("http://").next().expect("an address").parse();
    let addr = addr.expect("an address");
    let session = "s\u{9b}2J\u{202e}";
    assert_eq!(deliver(addr, &batch(session, &[start()])), 200);
    let tail = ["tail", &format!("http://{addr}"), "--once", "--json"];
    let (_, tailed, _) = run(&mut folder.program(&tail));
    let own: Vec<_> = (0..3).map(|_| running.line()).collect();
    for line in own.iter().map(String::as_str).chain(tailed.lines()) {
        assert!(!line.contains(['\u{9b}', '\u{202e}']), "{line:?}");
        let value: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(value["session"], session, "{line}");
    }
    assert!(tailed.lines().count() >= 3, "{tailed}");
}

#[test]
fn texts_that_are_kept_for_each_session_are_short() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let long = "x".repeat(10_000);
    assert_eq!(deliver(addr, &batch(&long, &[start()])), 422);
    for key in ["platform", "sdk_version", "process_uuid"] {
        let mut body: Value = serde_json::from_str(&batch("s", &[start()])).expect("JSON");
        body[key] = long.clone().into();
        assert_eq!(deliver(addr, &body.to_string()), 422, "{key}");
    }
    assert_eq!(deliver(addr, &batch(&long[..8_000], &[start()])), 200);
}

#[test]
fn the_token_goes_to_no_other_address_and_not_to_a_process_that_took_the_port() {
    let folder = Folder::new();
    // A port that is free.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("an address").port().to_string();
    let serve = ["serve", "--port", &port];
    let (mut running, addr) = Running::listening(&mut folder.program(&serve));
    let first = token(&folder, addr);
    let tail = |host: &str| {
        let url = format!("http://{host}:{port}");
        run(&mut folder.program(&["tail", "--once", &url]))
    };
    assert_eq!(tail("127.0.0.1").0, Some(0));
    assert_eq!(tail("localhost").0, Some(0));
    let other = TcpListener::bind(format!("127.0.0.2:{port}")).expect("a port");
    let head = head_of_one(other);
    assert_eq!(tail("127.0.0.2").0, Some(1));
    let head = head.recv_timeout(BOUND).expect("a request").to_lowercase();
    assert!(!head.contains("authorization"), "{head}");

    running.signal("-KILL");
    running.ended();
    let head = head_of_one(TcpListener::bind(addr).expect("the port"));
    assert_eq!(tail("127.0.0.1").0, Some(1));
    let head = head.recv_timeout(BOUND).expect("a request").to_lowercase();
    assert!(!head.contains("authorization"), "{head}");

    let (_running, addr) = Running::listening(&mut folder.program(&serve));
    assert_ne!(token(&folder, addr), first, "it may be known");
}

/// The head of the next request, which gets a 404.
fn head_of_one(listener: TcpListener) -> Receiver<String> {
    let (seen, head) = channel();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut bytes = [0; 4_096];
        let length = stream.read(&mut bytes).unwrap_or(0);
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        let response = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let _ = stream.write_all(response.as_bytes());
        drop(listener);
        let _ = seen.send(text);
    });
    head
}

#[test]
fn a_port_that_was_not_given_leaves_no_token() {
    let folder = Folder::new();
    let (mut running, _) = Running::serve(&folder, &[]);
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(0));
    let files = fs::read_dir(folder.join("tinkex-telemetry")).expect("a folder");
    assert_eq!(files.count(), 0);
}
