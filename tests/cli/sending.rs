//! `send`, `record`, `replay` and `trace`.

use std::io::Write;

use serde_json::Value;
use tinkex_telemetry::collector::{Collector, Reply};

use crate::process::*;

fn send(
    folder: &Folder,
    collector: &Collector,
    arguments: &[&str],
    input: &str,
) -> (Option<i32>, String) {
    let url = collector.url();
    let all = [&["send", "-", "--to", &url], arguments].concat();
    let mut running = Running::start(folder.program(&all).env("TINKER_API_KEY", "k"));
    let mut stdin = running.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("written");
    drop(stdin);
    let (code, _, stderr) = running.finish();
    (code, stderr.join("\n"))
}

#[test]
fn lines_of_json_are_a_whole_session_to_a_strict_collector() {
    let folder = Folder::new();
    let collector = Collector::start().expect("starts");
    let lines: String = (0..250)
        .map(|n| {
            format!(
                "{{\"name\":\"step\",\"data\":{{\"z\":1.50,\"n\":{n}}},\"severity\":\"warning\"}}\n"
            )
        })
        .collect();
    let (code, stderr) = send(&folder, &collector, &["--session", "s"], &lines);
    assert_eq!(code, Some(0), "{stderr}");
    let session = collector.session("s").expect("it was kept");
    assert_eq!(session.len(), 252);
    assert!(session.has_ended() && session.gaps().is_empty());
    assert_eq!(session.events()[250].data(), Some(r#"{"z":1.50,"n":249}"#));
    assert_eq!(session.events()[1].severity(), "WARNING");
}

#[test]
fn events_arrive_once_through_failures_and_a_bad_line_costs_itself() {
    let folder = Folder::new();
    let collector = Collector::start().expect("starts");
    collector.script([Reply::status(503), Reply::lost(), Reply::status(413)]);
    let input = "{\"name\":\"a\"}\nnonsense\n\n{\"name\":\"b\"}\n{\"nom\":\"c\"}\n";
    let (code, stderr) = send(&folder, &collector, &["--session", "s"], input);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("line 2 is not a JSON object"), "{stderr}");
    assert!(stderr.contains("line 5 has the key `nom`"), "{stderr}");
    let session = collector.session("s").expect("it was kept");
    assert_eq!(session.len(), 4);
    let attempts = collector.attempts();
    assert_eq!(attempts[0].1.len(), 3, "one key for all attempts");
}

#[test]
fn a_dry_run_sends_nothing() {
    let folder = Folder::new();
    let collector = Collector::start().expect("starts");
    let (code, stderr) = send(&folder, &collector, &["--dry-run"], "{\"name\":\"a\"}\n");
    assert_eq!(code, Some(0));
    assert!(stderr.contains("3 events would be sent"), "{stderr}");
    assert!(collector.requests().is_empty());
}

#[test]
fn a_server_that_refuses_the_key_ends_it_at_once() {
    let folder = Folder::new();
    let collector = Collector::builder()
        .api_key("other")
        .start()
        .expect("starts");
    let (code, stderr) = send(&folder, &collector, &[], "{\"name\":\"a\"}\n");
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("401") && !stderr.contains("other"),
        "{stderr}"
    );
    assert_eq!(collector.requests().len(), 1);
}

#[test]
fn what_was_kept_can_be_sent_as_it_was() {
    let folder = Folder::new();
    let kept = folder.join("kept");
    let (mut running, addr) = Running::serve(&folder, &["--keep", kept.to_str().expect("text")]);
    assert_eq!(deliver(addr, &batch("s", &[start(), generic(1)])), 200);
    running.signal("-TERM");
    running.ended();
    let file = crate::spooling::segment(&kept);
    let collector = Collector::builder().lenient().start().expect("starts");
    let url = collector.url();
    let file = file.to_str().expect("text");
    let (code, _, stderr) = run(&mut folder.program(&["send", file, "--to", &url]));
    assert_eq!(code, Some(0), "{stderr}");
    let session = collector.session("s").expect("it was kept");
    assert_eq!(session.len(), 2);
    assert_eq!(
        session.process_uuid(),
        Some("5f1c2d3e-4b5a-4c7d-8e9f-0a1b2c3d4e5f")
    );
}

#[test]
fn a_recording_played_back_gives_the_same_events_and_the_same_answers() {
    let folder = Folder::new();
    let tape = folder.join("tape.ndjson");
    let tape = tape.to_str().expect("text");
    let (mut running, addr) = Running::listening(
        folder
            .program(&["record", tape, "--port", "0", "--fail", "429:3"])
            .env("TINKEX_COLLECTOR_KEY", "k"),
    );
    let bodies = [
        batch("s", &[start(), generic(1)]),
        // Another client's spelling.
        batch("s", &[generic(2)]).replace(
            r#""event_data":{"n":2}"#,
            "\"event_data\": { \"n\" : 2.50 }",
        ),
    ];
    assert_eq!(deliver(addr, &bodies[0]), 429);
    for body in &bodies {
        assert_eq!(deliver(addr, body), 200);
    }
    running.signal("-TERM");
    running.ended();
    let recorded = std::fs::read_to_string(tape).expect("it was recorded");
    assert_eq!(recorded.lines().count(), 3);
    assert!(!recorded.contains("x-api-key"));
    // It is not overwritten.
    let (code, _, stderr) = run(&mut folder.program(&["record", tape, "--port", "0"]));
    assert_eq!(code, Some(1), "{stderr}");

    let collector = Collector::builder().lenient().start().expect("starts");
    let url = collector.url();
    let arguments = ["replay", tape, "--to", &url, "--speed", "0"];
    let (code, _, stderr) = run(folder.program(&arguments).env("TINKER_API_KEY", "k"));
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("answered 200, recorded 429"), "{stderr}");
    assert!(
        stderr.contains("3 requests sent, 1 answered differently"),
        "{stderr}"
    );
    let session = collector.session("s").expect("it was kept");
    let data: Vec<_> = session
        .events()
        .iter()
        .filter_map(|event| event.data())
        .collect();
    assert_eq!(data, [r#"{"n":1}"#, r#"{ "n" : 2.50 }"#]);
    assert_eq!(session.duplicates(), 2);

    let mut command = folder.program(&["replay", tape, "--responses", "--port", "0"]);
    let (mut running, addr) = Running::listening(&mut command);
    assert_eq!(deliver(addr, &bodies[0]), 429);
    assert_eq!(deliver(addr, &bodies[0]), 200);
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn a_trace_has_the_calls_the_gaps_and_the_attempts_of_a_session() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &["--fail", "503"]);
    let call = |n: u64, end: &str, second: u64| {
        let data = serde_json::json!({
            "measurements": {"duration": 1_000_000_000_u64}, "metadata": {"method": "POST", "path": "/train"},
        });
        let name = format!("tinkex.http.request.{end}");
        let mut event = event(
            n,
            "GENERIC_EVENT",
            serde_json::json!({"event_name": name, "event_data": data}),
        );
        event["timestamp"] = format!("2025-11-26T10:30:{second:02}.000000Z").into();
        event
    };
    let body = batch(
        "a b",
        &[
            start(),
            call(1, "start", 10),
            call(2, "stop", 11),
            call(5, "start", 12),
        ],
    );
    assert_eq!(deliver(addr, &body), 503);
    assert_eq!(deliver(addr, &body), 200);
    let url = format!("http://{addr}");
    let (code, stdout, stderr) = run(&mut folder.program(&["trace", "a b", "--from", &url]));
    assert_eq!(code, Some(0), "{stderr}");
    let trace: Value = serde_json::from_str(&stdout).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let of = |category: &str| {
        let found = events.iter().filter(|event| event["cat"] == category);
        found
            .map(|event| event["name"].as_str().expect("a name").to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of("call"), ["POST /train"]);
    assert_eq!(of("open"), ["POST /train (no end)"]);
    assert_eq!(of("gap"), ["missing 3-4"]);
    assert_eq!(of("batch"), ["0-5: 503", "0-5: 200"]);
    assert_eq!(of("retry"), ["attempt 2"]);
    let call = events
        .iter()
        .find(|event| event["cat"] == "call")
        .expect("it");
    assert_eq!(call["dur"], 1_000_000.0);

    let (code, _, stderr) = run(&mut folder.program(&["trace", "none", "--from", &url]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no session"), "{stderr}");
}
