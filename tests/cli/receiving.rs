//! `serve` and `tail`.

use core::time::Duration;
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt};

use serde_json::{Value, json};

use crate::process::*;

#[test]
fn bad_arguments_are_named_and_exit_with_2() {
    let folder = Folder::new();
    for (arguments, named) in [
        (&["--loud"][..], "--loud"),
        (&["serve", "--port", "http"], "http"),
        (&["serve", "--memory", "0"], "--memory"),
        (&["serve", "--fail", "503,hang"], "`hang`"),
        (&["serve", "--forward", "localhost:80"], "--forward"),
        (&["tail", "ftp://x"], "ftp://x"),
        (&["send"], "SOURCE"),
        (&["replay", "x"], "--to"),
        (&["run"], "CMD"),
    ] {
        let (code, _, stderr) = run(&mut folder.program(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{stderr}");
    }
}

#[test]
fn the_help_of_each_command_has_an_example() {
    let folder = Folder::new();
    let (code, help, _) = run(&mut folder.program(&["--help"]));
    assert_eq!(code, Some(0));
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<_> = commands.take_while(|line| !line.is_empty()).collect();
    assert!(commands.len() > 8, "{help}");
    for command in commands {
        let name = command.split_whitespace().next().expect("a name");
        if name == "help" {
            continue;
        }
        let (code, help, _) = run(&mut folder.program(&["help", name]));
        assert_eq!(code, Some(0));
        let is_example = help.contains(&format!("  tinkex-telemetry {name}"))
            || help.contains("| tinkex-telemetry send");
        assert!(is_example, "{help}");
    }
}

#[test]
fn completions_and_the_manual_page_name_every_command() {
    let folder = Folder::new();
    for arguments in [
        &["completions", "bash"][..],
        &["completions", "fish"],
        &["completions", "zsh"],
        &["man"],
    ] {
        let (code, stdout, _) = run(&mut folder.program(arguments));
        assert_eq!(code, Some(0));
        for command in ["serve", "replay", "trace"] {
            let text = stdout.to_lowercase();
            assert!(text.contains(command), "{arguments:?}: {command}");
        }
    }
}

#[test]
fn each_event_is_a_line_and_nothing_a_client_sends_reaches_the_terminal_raw() {
    let folder = Folder::new();
    let (mut running, addr) = Running::serve(&folder, &[]);
    let exception = json!({
        "error_type": "Bad\u{202e}Error", "error_message": "it\u{1b}[31m broke",
        "traceback": "Caused by: io::Error: no\u{9b}such\nCaused by: other\nStack:\n  here",
        "severity": "ERROR",
    });
    let mut data = generic(1);
    data["event_data"] = json!({"a\u{7}": "\u{2066}x\u{200b}"});
    let events = [
        start(),
        data,
        event(2, "UNHANDLED_EXCEPTION", exception),
        event(3, "SESSION_END", json!({"duration": "25:00:00.000001"})),
    ];
    assert_eq!(deliver(addr, &batch("s\u{1b}[2J", &events)), 200);
    assert_eq!(
        running.line(),
        r"10:30:45.250 s\u{1b}[2J 0 INFO     SESSION_START"
    );
    assert_eq!(
        running.line(),
        r#"10:30:45.250 s\u{1b}[2J 1 INFO     x {"a\u0007":"\u{2066}x\u{200b}"}"#
    );
    assert_eq!(
        running.line(),
        r"10:30:45.250 s\u{1b}[2J 2 ERROR    Bad\u{202e}Error it\u{1b}[31m broke"
    );
    assert_eq!(running.line(), r"    Caused by: io::Error: no\u{9b}such");
    assert_eq!(running.line(), "    Caused by: other");
    assert_eq!(
        running.line(),
        r"10:30:45.250 s\u{1b}[2J 3 INFO     SESSION_END 25:00:00.000001"
    );
    running.signal("-INT");
    let (code, table, _) = running.finish();
    assert_eq!(code, Some(0));
    assert_eq!(
        table,
        [
            r"session     events  gaps  duplicates  errors  ended",
            r"s\u{1b}[2J  4       -     0           1       yes"
        ]
    );
}

#[test]
fn refused_and_scripted_requests_are_lines_with_their_reason() {
    let folder = Folder::new();
    let (mut running, addr) = Running::serve(&folder, &["--fail", "503,429:7"]);
    let body = batch("s", &[start()]);
    assert_eq!(deliver(addr, &body), 503);
    let line = running.line();
    assert!(
        line.ends_with("answered 503: POST /api/v1/telemetry session s events 0-0"),
        "{line}"
    );
    assert_eq!(deliver(addr, &body), 429);
    let line = running.line();
    assert!(line.contains("answered 429, Retry-After: 7"), "{line}");
    let loud = body.replace("INFO", "LOUD\u{202e}");
    assert_eq!(deliver(addr, &loud), 422);
    let line = running.line();
    assert!(
        line.contains(r"refused (422): POST /api/v1/telemetry: session s: events[0].severity"),
        "{line}"
    );
    assert!(line.contains(r"LOUD\u{202e}"), "{line}");
    let head = "POST /api/v1/telemetry HTTP/1.1\r\nhost: evil.example";
    assert_eq!(request(addr, head, &body).0, 403);
    assert!(running.line().contains("refused (403)"));
}

#[test]
fn a_long_value_is_cut_and_not_with_full() {
    let folder = Folder::new();
    let long = "x".repeat(30_000);
    let data = format!(r#"{{"z":1,"long":"{long}","a":2}}"#);
    let body = batch("s", &[generic(1)]).replace(r#"{"n":1}"#, &data);
    let (mut running, addr) = Running::serve(&folder, &[]);
    assert_eq!(deliver(addr, &body), 200);
    let line = running.line();
    assert!(
        line.len() < 400 && line.ends_with(r#"x…" (30000 bytes),"a":2}"#),
        "{line}"
    );
    let (mut running, addr) = Running::serve(&folder, &["--full"]);
    assert_eq!(deliver(addr, &body), 200);
    assert!(running.line().contains(&data));
}

#[test]
fn with_json_each_line_is_an_object_and_the_rest_is_on_standard_error() {
    let folder = Folder::new();
    let mut running = Running::start(&mut folder.program(&["--port", "0", "--json"]));
    let line = running.error_with("listening on http://");
    let addr = line.rsplit("http://").next().expect("an address").parse();
    let addr = addr.expect("an address");
    assert_eq!(deliver(addr, &batch("s", &[start(), generic(1)])), 200);
    let mut kinds = Vec::new();
    for _ in 0..4 {
        let value: Value = serde_json::from_str(&running.line()).expect("JSON");
        kinds.push(value["type"].as_str().expect("a type").to_owned());
    }
    assert_eq!(kinds, ["session", "event", "event", "request"]);
    running.signal("-TERM");
    running.error_with("s        2       -     0           0       no");
    assert_eq!(running.ended().code(), Some(0));
}

#[test]
fn the_key_can_come_from_a_variable() {
    let folder = Folder::new();
    let mut command = folder.program(&["--port", "0"]);
    let (mut running, addr) = Running::listening(command.env("TINKEX_COLLECTOR_KEY", "secret"));
    assert_eq!(deliver(addr, &batch("s", &[start()])), 401);
    let line = running.line();
    assert!(
        line.contains("x-api-key does not match") && !line.contains("secret"),
        "{line}"
    );
}

#[test]
fn it_ends_when_nothing_reads_its_output_any_more() {
    let folder = Folder::new();
    let program = env!("CARGO_BIN_EXE_tinkex-telemetry");
    let pipe = format!("'{program}' --port 0 | head -1");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &pipe]).env("XDG_RUNTIME_DIR", &folder.0);
    let (code, stdout, _) = run(&mut shell);
    assert_eq!(code, Some(0));
    let addr = stdout.rsplit("http://").next().expect("an address");
    // The shell waits for `head` alone, perhaps.
    let end = std::time::Instant::now() + BOUND;
    while TcpListener::bind(addr).is_err() {
        assert!(std::time::Instant::now() < end, "the port is still taken");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_reader_that_stops_does_not_stop_the_server_or_its_end() {
    use std::process::Stdio;
    let folder = Folder::new();
    let mut command = folder.program(&["serve", "--port", "0"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it runs");
    let mut stdout = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let mut first = String::new();
    std::io::BufRead::read_line(&mut stdout, &mut first).expect("a line");
    let addr = first.trim().rsplit("http://").next().expect("an address");
    let addr = addr.parse().expect("an address");
    // More than a pipe holds, unread.
    let name = "x".repeat(190);
    for n in 0..1_000 {
        let body = batch("s", &[generic(n)]).replace(r#""x""#, &format!("\"{name}\""));
        assert_eq!(deliver(addr, &body), 200);
    }
    let pid = child.id().to_string();
    let kill = std::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status();
    assert!(kill.expect("kill runs").success());
    let end = std::time::Instant::now() + BOUND;
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child") {
            break status;
        }
        if std::time::Instant::now() > end {
            let _ = child.kill();
            panic!("it does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(0));
}

#[test]
fn a_port_that_another_program_has_is_named() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    drop(taken);
    let silent = TcpListener::bind(format!("127.0.0.1:{port}")).expect("a port");
    // It closes every connection.
    std::thread::spawn(move || {
        for stream in silent.incoming().take(20) {
            drop(stream);
        }
    });
    let (code, _, stderr) = run(&mut folder.program(&["--port", &port]));
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains(&format!("port {port} is in use")),
        "{stderr}"
    );
}

#[test]
fn a_second_collector_on_a_port_shows_what_the_first_one_receives() {
    let folder = Folder::new();
    let (_first, addr) = Running::serve(&folder, &[]);
    assert_eq!(deliver(addr, &batch("s", &[start()])), 200);
    let port = addr.port().to_string();
    let mut second = Running::start(&mut folder.program(&["serve", "--port", &port]));
    second.error_with("is in use by another collector");
    assert!(second.line().contains("s 0 INFO     SESSION_START"));
    assert_eq!(deliver(addr, &batch("s", &[generic(1)])), 200);
    assert!(second.line().contains("s 1 INFO     x"));
}

#[test]
fn tail_filters_and_ends_when_it_is_told_to() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let mut bad = generic(1);
    bad["severity"] = "ERROR".into();
    assert_eq!(deliver(addr, &batch("a", &[start(), bad])), 200);
    assert_eq!(deliver(addr, &batch("b", &[start(), generic(1)])), 200);
    let url = format!("http://{addr}");
    let tail = |arguments: &[&str]| {
        let all = [&["tail", &url, "--once"], arguments].concat();
        let (code, stdout, stderr) = run(&mut folder.program(&all));
        assert_eq!(code, Some(0), "{stderr}");
        stdout.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(tail(&[]).len(), 4);
    assert_eq!(tail(&["--session", "b"]).len(), 2);
    assert_eq!(tail(&["--kind", "session_start"]).len(), 2);
    assert_eq!(tail(&["--kind", "x"]).len(), 2);
    let errors = tail(&["--min-severity", "warning", "--json"]);
    assert_eq!(errors.len(), 1);
    let error: Value = serde_json::from_str(&errors[0]).expect("JSON");
    assert_eq!(error["event"]["severity"], "ERROR");
}

#[test]
fn the_stream_and_the_calls_of_the_page_need_the_token() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let token = token(&folder, addr);
    let file = folder.join("tinkex-telemetry");
    let mode = |path: &std::path::Path| {
        fs::metadata(path)
            .expect("it is there")
            .permissions()
            .mode()
    };
    assert_eq!(mode(&file) & 0o777, 0o700);
    assert_eq!(mode(&file.join(addr.port().to_string())) & 0o777, 0o600);
    for path in [
        "/ui/api/sessions",
        "/ui/api/stream?once=1",
        "/ui/api/event?session=s&index=0",
    ] {
        for (header, expected) in [
            ("accept: */*".to_owned(), 401),
            ("authorization: Bearer x".to_owned(), 401),
            (format!("authorization: Bearer {token}x"), 401),
            (
                format!("authorization: Bearer {token}\r\norigin: http://evil.example"),
                403,
            ),
        ] {
            let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{header}");
            assert_eq!(request(addr, &head, "").0, expected, "{path} {header}");
        }
    }
    let head = format!(
        "GET /ui/api/sessions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}"
    );
    assert_eq!(request(addr, &head, ""), (200, "[]".to_owned()));
    let text = format!(
        "POST /ui/api/clear HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\ncontent-type: text/plain"
    );
    // Two content types: the first is not JSON.
    assert_eq!(request(addr, &text, "{}").0, 415);
}

#[test]
fn the_url_with_the_token_opens_the_page_and_nothing_else_does() {
    let folder = Folder::new();
    let (running, addr) = Running::serve(&folder, &[]);
    let token = token(&folder, addr);
    let get = |path: &str, header: &str| {
        let head = format!(
            "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\n{header}",
            addr.port()
        );
        request(addr, &head, "")
    };
    assert_eq!(get("/ui", "accept: */*").0, 401);
    assert_eq!(get("/ui?t=guess", "accept: */*").0, 401);
    assert_eq!(get(&format!("/ui/main.js?t={token}"), "accept: */*").0, 401);
    assert_eq!(get(&format!("/ui?t={token}"), "accept: */*").0, 303);
    let cookie = format!("cookie: other=1; tinkex-{}={token}", addr.port());
    let (status, page) = get("/ui", &cookie);
    assert_eq!(status, 200);
    let files = page.split('"').filter(|part| part.starts_with("/ui/"));
    for file in files {
        assert_eq!(get(file, &cookie).0, 200, "{file}");
        assert_eq!(get(file, "accept: */*").0, 401, "{file}");
    }
    // A cookie of another port's, or sent by another site.
    assert_eq!(get("/ui", &format!("cookie: tinkex-1={token}")).0, 401);
    assert_eq!(
        get("/ui", &format!("{cookie}\r\nsec-fetch-site: cross-site")).0,
        403
    );
    drop(running);
}

#[test]
fn an_open_page_goes_on_after_a_restart_on_the_same_port() {
    let folder = Folder::new();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("an address").port().to_string();
    let mut command = folder.program(&["serve", "--port", &port]);
    let (mut running, addr) = Running::listening(&mut command);
    let first = token(&folder, addr);
    running.signal("-TERM");
    assert_eq!(running.ended().code(), Some(0));
    let live = folder.join("tinkex-telemetry").join(&port);
    assert!(!live.exists(), "`tail` finds none that has ended");
    let mut command = folder.program(&["serve", "--port", &port]);
    let (_running, addr) = Running::listening(&mut command);
    assert_eq!(token(&folder, addr), first);
}

#[test]
fn a_test_in_another_language_can_wait_for_an_event() {
    let folder = Folder::new();
    let (_running, addr) = Running::serve(&folder, &[]);
    let head = format!(
        "POST /ui/api/wait HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}",
        token(&folder, addr)
    );
    let wait = |body: Value| {
        let (status, body) = request(addr, &head, &body.to_string());
        (
            status,
            serde_json::from_str::<Value>(&body).unwrap_or_default(),
        )
    };
    assert_eq!(wait(json!({"session": 1})).0, 400);
    let (status, answer) = wait(json!({"session": "s", "timeout_ms": 0}));
    assert_eq!((status, &answer["met"]), (200, &json!(false)));
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| wait(json!({"session": "s", "name": "x", "timeout_ms": 20_000})));
        assert_eq!(deliver(addr, &batch("s", &[start(), generic(1)])), 200);
        let (_, answer) = waiting.join().expect("no panic");
        assert_eq!(answer["met"], true);
        assert_eq!(answer["event"]["event_data"]["n"], 1);
        assert_eq!(answer["session"]["events"], 2);
    });
}

#[test]
fn what_is_kept_is_there_after_a_kill_and_damage_costs_a_line() {
    let folder = Folder::new();
    let kept = folder.join("kept");
    let keep = ["--keep", kept.to_str().expect("text")];
    {
        let (mut running, addr) = Running::serve(&folder, &keep);
        assert_eq!(
            deliver(addr, &batch("s", &[start(), generic(1), generic(2)])),
            200
        );
        assert_eq!(deliver(addr, &batch("other", &[start()])), 200);
        running.line_with("other 0 INFO");
        // The disk is behind the line.
        let end = std::time::Instant::now() + BOUND;
        while segments(&kept).len() < 2 || segments(&kept).iter().any(|(_, text)| text.is_empty()) {
            assert!(std::time::Instant::now() < end, "nothing is written");
            std::thread::sleep(Duration::from_millis(10));
        }
        running.signal("-KILL");
        running.ended();
    }
    let (mut running, addr) = Running::serve(&folder, &keep);
    running.line_with("read 4 events from");
    running.signal("-TERM");
    running.line_with("s        3       -");
    drop(running);
    // One bit in the middle event.
    let (path, text) = segments(&kept)
        .into_iter()
        .find(|(_, text)| text.contains("\"s\""))
        .expect("it");
    fs::write(&path, text.replacen(r#"{"n":1}"#, r#"{"n":3}"#, 1)).expect("written");
    let (mut running, _) = Running::serve(&folder, &keep);
    running.line_with("read 3 events");
    running.signal("-TERM");
    running.line_with("s        2       1");
    let _ = addr;
}

/// The files of a kept directory, and their contents.
fn segments(kept: &std::path::Path) -> Vec<(std::path::PathBuf, String)> {
    let mut found = Vec::new();
    for folder in fs::read_dir(kept).into_iter().flatten().flatten() {
        for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let text = fs::read_to_string(file.path()).unwrap_or_default();
            found.push((file.path(), text));
        }
    }
    found.sort();
    found
}

#[test]
fn a_full_disk_is_said_and_stops_nothing() {
    let folder = Folder::new();
    let kept = folder.join("kept");
    let program = env!("CARGO_BIN_EXE_tinkex-telemetry");
    // No file may grow beyond a few blocks; the signal that says so would end the program.
    let limited = format!(
        "trap '' XFSZ; ulimit -f 8; exec '{program}' --port 0 --keep '{}'",
        kept.display()
    );
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", &limited])
        .env("XDG_RUNTIME_DIR", &folder.0);
    let (mut running, addr) = Running::listening(&mut shell);
    let text = "x".repeat(1_000);
    for n in 0..40 {
        let mut event = generic(n);
        event["event_data"]["text"] = text.clone().into();
        assert_eq!(deliver(addr, &batch("s", &[event])), 200);
    }
    running.line_with(" not kept: ");
    running.signal("-TERM");
    let (code, table, stderr) = running.finish();
    assert_eq!(code, Some(1), "{stderr:?}");
    assert!(
        table.iter().any(|line| line.starts_with("s        40")),
        "{table:?}"
    );
    assert!(
        stderr.iter().any(|line| line.contains(" not kept: ")),
        "{stderr:?}"
    );
    for (_, text) in segments(&kept) {
        assert!(text.ends_with("}\n"), "no line is torn");
    }
}
