//! `tail`, `trace` and `replay`: what they print once, and what they leave alone.

use core::time::Duration;
use std::{fs, net::TcpListener, process::Command, thread};

use serde_json::{Value, json};

use crate::process::*;

#[test]
fn tail_ends_when_its_reader_has_gone_though_nothing_comes() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    assert_eq!(deliver(addr, &batch("s", &[start(), generic(1)])), 200);
    let program = env!("CARGO_BIN_EXE_tinkex-telemetry");
    let pipe = format!("'{program}' tail http://{addr} | head -1");
    let mut shell = Command::new("sh");
    shell.args(["-c", &pipe]).env("XDG_RUNTIME_DIR", &folder.0);
    let mut piped = Running::start(&mut shell);
    assert!(piped.line().contains("s 0 INFO"));
    assert_eq!(piped.ended().code(), Some(0));
}

#[test]
fn tail_prints_nothing_twice_when_the_collector_is_started_again() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("an address").port().to_string();
    let kept = folder.join("kept");
    let serve = [
        "serve",
        "--port",
        &port,
        "--keep",
        kept.to_str().expect("text"),
    ];
    let (mut running, addr) = Running::listening(&mut folder.program(&serve));
    assert_eq!(deliver(addr, &batch("s", &[start(), generic(1)])), 200);
    let url = format!("http://{addr}");
    let mut tail = Running::start(&mut folder.program(&["tail", &url]));
    tail.line_with("s 1 INFO     x");
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(0));
    let (_running, addr) = Running::listening(&mut folder.program(&serve));
    tail.error_with("was started again");
    assert_eq!(deliver(addr, &batch("s", &[generic(2)])), 200);
    loop {
        let line = tail.line();
        assert!(
            !line.contains("s 0 INFO") && !line.contains("s 1 INFO"),
            "{line}"
        );
        if line.contains("s 2 INFO     x") {
            break;
        }
    }
}

#[test]
fn a_trace_of_no_session_leaves_the_file_alone_and_runs_are_apart() {
    let folder = Folder::new();
    let (kept, file) = (folder.join("kept"), folder.join("trace.json"));
    let (kept, file) = (kept.to_str().expect("text"), file.to_str().expect("text"));
    let (mut running, addr) = Running::serve(&folder, &["--keep", kept]);
    let first = batch("s", &[start(), generic(1)]);
    assert_eq!(deliver(addr, &first), 200);
    let other = batch("s", &[start(), generic(1)]).replace("5f1c2d3e", "6f1c2d3e");
    assert_eq!(deliver(addr, &other), 200);
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(0));
    fs::write(file, "older").expect("written");
    let trace = |session| {
        let arguments = ["trace", session, "--keep", kept, "--output", file];
        run(&mut folder.program(&arguments)).0
    };
    assert_eq!(trace("none"), Some(1));
    assert_eq!(fs::read_to_string(file).expect("it is there"), "older");
    assert_eq!(trace("s"), Some(0));
    let text = fs::read_to_string(file).expect("it is there");
    let runs = text.matches(r#""name":"process_name""#).count();
    assert_eq!(runs, 2, "{text}");
    assert!(text.contains("s#2"), "{text}");
    let nowhere = folder.join("none/trace.json");
    let nowhere = nowhere.to_str().expect("text");
    let arguments = ["trace", "s", "--keep", kept, "--output", nowhere];
    let (code, _, stderr) = run(&mut folder.program(&arguments));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(nowhere), "{stderr}");
}

#[test]
fn a_wait_for_an_event_sees_one_that_comes_late_and_out_of_order() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let head = format!(
        "POST /ui/api/wait HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}",
        token(&folder, addr).trim()
    );
    let named = |n, name| {
        event(
            n,
            "GENERIC_EVENT",
            json!({"event_name": name, "event_data": {}}),
        )
    };
    let waits = ["early", "last"].map(|name| {
        let head = head.clone();
        let body = json!({"session": "s", "name": name, "timeout_ms": 20_000});
        thread::spawn(move || request(addr, &head, &body.to_string()))
    });
    let portions = [
        (100..200).map(generic).collect::<Vec<_>>(),
        vec![generic(300)],
        vec![named(0, "early")],
        vec![named(301, "last")],
    ];
    for events in portions {
        assert_eq!(deliver(addr, &batch("s", &events)), 200);
        // Longer than the collector rests between two looks.
        thread::sleep(Duration::from_millis(50));
    }
    for wait in waits {
        let (status, body) = wait.join().expect("it ends");
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["met"], true, "{body}");
    }
}

#[test]
fn options_that_would_do_nothing_are_refused() {
    let folder = Folder::new();
    for arguments in [
        &["replay", "f", "--to", "http://127.0.0.1:1", "--fail", "503"][..],
        &["replay", "f", "--to", "http://127.0.0.1:1", "--keep", "d"],
        &["replay", "f", "--to", "http://127.0.0.1:1", "--port", "1"],
        &["replay", "f", "--responses", "--speed", "2"],
    ] {
        let (code, _, stderr) = run(&mut folder.program(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains("cannot be used with"), "{stderr}");
    }
}
