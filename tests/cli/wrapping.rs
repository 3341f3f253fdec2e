//! `serve --forward` and `run`: what passes through.

use tinkex_telemetry::collector::{Collector, Reply};

use crate::process::*;

#[test]
fn a_forwarded_request_arrives_with_its_own_key_and_its_response_comes_back() {
    let folder = Folder::new();
    let backend = Collector::builder()
        .lenient()
        .api_key("k")
        .start()
        .expect("starts");
    backend.script([Reply::status(429).retry_after("9")]);
    let (mut running, addr) = Running::serve(&folder, &["--forward", &backend.url()]);
    let body = batch("s", &[start(), generic(1)]);
    assert_eq!(deliver(addr, &body), 429);
    assert!(running.line().contains("answered 429, Retry-After: 9"));
    assert_eq!(deliver(addr, &body), 200);
    running.line_with("s 1 INFO     x");
    let theirs = backend.session("s").expect("it was kept");
    assert_eq!(theirs.len(), 2);
    assert_eq!(backend.requests().len(), 2);

    // Nothing is added: without a key there is none.
    let head = "POST /api/v1/create_session HTTP/1.1\r\nhost: localhost";
    assert_eq!(request(addr, head, "{}").0, 401);
    // And what the backend accepts is accepted, whatever the check says.
    backend.always(Reply::status(200));
    let (status, _) = request(
        addr,
        "POST /api/v1/telemetry HTTP/1.1\r\nhost: localhost\r\nx-api-key: k",
        "{}",
    );
    assert_eq!(status, 422, "the backend's own check, here");
    backend.stop();
    assert_eq!(deliver(addr, &body), 502);
}

#[test]
fn a_redirect_is_given_back_and_not_followed() {
    let folder = Folder::new();
    let elsewhere = Collector::start().expect("starts");
    let backend = Collector::start().expect("starts");
    let location = format!("{}/api/v1/telemetry", elsewhere.url());
    backend.always(Reply::status(307).header("location", &location));
    let (_running, addr) = Running::serve(&folder, &["--forward", &backend.url()]);
    assert_eq!(deliver(addr, &batch("s", &[start()])), 307);
    assert!(elsewhere.requests().is_empty());
}

/// A program that sends a session of one event and asks the backend for something, with what its environment says.
const CHILD: &str = r#"
set -e
host=${TINKER_BASE_URL#http://}; port=${host#*:}
post() {
    exec 3<>/dev/tcp/127.0.0.1/$port
    printf 'POST %s HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx-api-key: %s\r\ncontent-type: application/json\r\ncontent-length: %s\r\n\r\n%s' "$1" "$TINKER_API_KEY" "${#2}" "$2" >&3
    head -1 <&3 | tr -d '\r'
}
post /api/v1/telemetry '{"session_id":"s","platform":"a/b","sdk_version":"1","events":[{"event":"SESSION_START","event_id":"e","event_session_index":0,"severity":"INFO","timestamp":"2025-11-26T10:30:45Z"}]}'
post /api/v1/create_session '{"tags":[],"user_metadata":null,"sdk_version":"1","type":"create_session"}'
exit 7
"#;

#[test]
fn run_takes_the_telemetry_and_passes_the_other_calls_on_with_the_real_key() {
    let folder = Folder::new();
    let backend = Collector::builder()
        .api_key("real")
        .start()
        .expect("starts");
    let mut command = folder.program(&["run", "--", "bash", "-c", CHILD]);
    command
        .env("TINKER_API_KEY", "real")
        .env("TINKER_BASE_URL", backend.url());
    let (code, stdout, stderr) = run(&mut command);
    assert_eq!(code, Some(7), "{stderr}");
    assert_eq!(stdout, "HTTP/1.1 200 OK\nHTTP/1.1 200 OK");
    assert!(stderr.contains("s        1       -"), "{stderr}");
    assert!(!stderr.contains("real"), "{stderr}");
    assert!(backend.requests().is_empty(), "no telemetry reaches it");
    assert_eq!(backend.backend().calls_of("create_session").len(), 1);
}

#[test]
fn run_without_a_key_is_an_error_and_offline_says_first_and_last_that_nothing_is_trained() {
    let folder = Folder::new();
    let (code, _, stderr) = run(&mut folder.program(&["run", "--", "true"]));
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("TINKER_API_KEY") && stderr.contains("--offline"),
        "{stderr}"
    );

    let (code, stdout, stderr) =
        run(&mut folder.program(&["run", "--offline", "--", "bash", "-c", CHILD]));
    assert_eq!(code, Some(7), "{stderr}");
    assert_eq!(stdout, "HTTP/1.1 200 OK\nHTTP/1.1 200 OK");
    let said = |line: Option<&str>| line.is_some_and(|line| line.contains("nothing is trained"));
    assert!(
        said(stderr.lines().next()) && said(stderr.lines().last()),
        "{stderr}"
    );
}

#[test]
fn run_passes_signals_on_and_says_by_its_code_what_ended_the_program() {
    let folder = Folder::new();
    let mut command = folder.program(&[
        "run",
        "--offline",
        "--",
        "bash",
        "-c",
        "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done",
    ]);
    let mut running = Running::start(&mut command);
    running.line_with("ready");
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(9));

    let (code, _, _) =
        run(&mut folder.program(&["run", "--offline", "--", "bash", "-c", "kill -KILL $$"]));
    assert_eq!(code, Some(137));
    let (code, _, stderr) =
        run(&mut folder.program(&["run", "--offline", "--", "no-such-program"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("no-such-program"), "{stderr}");
}

#[test]
fn a_stranger_without_the_key_of_a_run_reaches_no_backend() {
    let folder = Folder::new();
    let backend = Collector::builder().lenient().start().expect("starts");
    let child = r#"echo "$TINKER_BASE_URL"; read -r line || true"#;
    let mut command = folder.program(&["run", "--", "bash", "-c", child]);
    command
        .env("TINKER_API_KEY", "real")
        .env("TINKER_BASE_URL", backend.url());
    let mut running = Running::start(&mut command);
    let addr = running.line_with("http://");
    let addr = addr
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let head = "POST /api/v1/create_session HTTP/1.1\r\nhost: localhost\r\nx-api-key: guess";
    assert_eq!(request(addr, head, "{}").0, 401);
    assert!(backend.backend().calls().is_empty());
    assert_eq!(running.ended().code(), Some(0));
}
